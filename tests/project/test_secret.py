from concurrent.futures import ThreadPoolExecutor

import pytest

from palate.errors import StorageError
from palate.project.secret import kept_secret


def test_drawn_once_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "state" / "salt"
    first = kept_secret(path)
    assert kept_secret(path) == first
    assert len(first) == 32
    assert path.stat().st_mode & 0o077 == 0
    assert [file.name for file in path.parent.iterdir()] == ["salt"]
    assert kept_secret(tmp_path / "other") != first


def test_of_many_that_draw_at_once_one_wins(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: kept_secret(tmp_path / "salt"), range(40)))) == 1


def test_a_place_that_cannot_hold_it_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="could not be kept") as caught:
        kept_secret(tmp_path / "file" / "salt")
    assert "salt" in str(caught.value)
