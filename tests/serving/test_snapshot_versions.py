from __future__ import annotations

from pathlib import Path

import pytest
from tiny_snapshot import tiny_snapshot

from palate.errors import InputError, StorageError
from palate.serving.load import load_snapshot
from palate.serving.versions import current, current_name, list_snapshots, prune, rollback, use


@pytest.fixture
def three(tmp_path: Path) -> list[str]:
    """Snapshots used one after the other."""
    return [tiny_snapshot(tmp_path, 40, 2, seed).name for seed in range(3)]


def test_rollback_goes_back_one_at_a_time(tmp_path: Path, three: list[str]) -> None:
    assert current(tmp_path).name == three[2]
    assert (rollback(tmp_path), rollback(tmp_path)) == (three[1], three[0])
    assert current(tmp_path).name == three[0]
    with pytest.raises(InputError, match="no earlier snapshot"):
        rollback(tmp_path)
    assert current(tmp_path).name == three[0]


def test_what_was_rolled_back_may_be_used_again(tmp_path: Path, three: list[str]) -> None:
    rollback(tmp_path)
    use(tmp_path, three[2])
    use(tmp_path, three[2])
    assert rollback(tmp_path) == three[1]


def test_old_ones_go_but_the_current_and_that_before_it(tmp_path: Path, three: list[str]) -> None:
    newest = tiny_snapshot(tmp_path, 40, 2, 3).name
    use(tmp_path, three[0])  # the oldest is current, and the newest was before it
    assert prune(tmp_path, 4) == []
    opened = load_snapshot(tmp_path / three[1])
    (tmp_path / ".gone-before").mkdir()  # of one that was killed
    assert prune(tmp_path, 1) == three[1:]
    assert list_snapshots(tmp_path) == [three[0], newest] and not [*tmp_path.glob(".gone-*")]
    assert opened.vectors.sum() == opened.vectors.copy().sum()  # who has it open goes on
    assert (current_name(tmp_path), rollback(tmp_path)) == (three[0], newest)


def test_a_damaged_snapshot_is_refused_and_the_old_one_stays(tmp_path: Path, three: list[str]) -> None:
    for name in three[:2]:
        file = tmp_path / name / "bits.npy"
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StorageError, match=r"bits\.npy"):
        use(tmp_path, three[0], load_snapshot)
    with pytest.raises(StorageError, match=r"bits\.npy"):
        rollback(tmp_path, load_snapshot)
    assert current(tmp_path).name == three[2]


def test_a_choice_of_an_older_version_is_read(tmp_path: Path, three: list[str]) -> None:
    (tmp_path / "current").write_text(three[0] + "\n")
    assert current(tmp_path).name == three[0]
    use(tmp_path, three[1])
    assert rollback(tmp_path) == three[0]
    assert list_snapshots(tmp_path) == three


def test_one_that_is_gone_is_passed_over(tmp_path: Path, three: list[str]) -> None:
    (tmp_path / three[1] / "manifest.json").unlink()
    assert rollback(tmp_path) == three[0]
