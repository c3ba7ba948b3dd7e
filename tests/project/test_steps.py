import os

import pytest

from palate.errors import StorageError
from palate.project.steps import Steps, digest, file_digest


def test_a_step_runs_once_for_the_same_inputs(tmp_path):
    runs = []

    def make(folder):
        runs.append(folder)
        (folder / "result").write_text("done")
        return {"rows": 3}

    first = Steps(tmp_path).run("count", {"a": 1}, make)
    again = Steps(tmp_path).run("count", {"a": 1}, make)
    other = Steps(tmp_path).run("count", {"a": 2}, make)
    assert (first.state, again.state, other.state) == ("made", "kept", "made")
    assert len(runs) == 2
    assert again.detail == {"rows": 3}
    assert (again.folder / "result").read_text() == "done"


def test_a_step_that_fails_leaves_nothing(tmp_path):
    def make(folder):
        (folder / "half").write_text("half")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        Steps(tmp_path).run("x", {}, make)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said(tmp_path):
    def make(folder):
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError) as caught:
        Steps(tmp_path).run("x", {}, make)
    assert caught.value.exit_code == 2
    for word in ("step x", "No space left", "Free some space"):
        assert word in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_sweep_keeps_what_this_run_used(tmp_path):
    steps = Steps(tmp_path)
    (tmp_path / ".x-1.99.tmp").mkdir()
    Steps(tmp_path).run("x", {"old": True}, lambda folder: {})
    kept = steps.run("x", {"old": False}, lambda folder: {})
    steps.sweep()
    assert list(tmp_path.iterdir()) == [kept.folder]


def test_the_newest_result_is_found_and_nothing_is_made(tmp_path):
    steps = Steps(tmp_path)
    assert steps.latest("x") is None
    for number in range(3):
        steps.run("x", {"number": number}, lambda folder, number=number: {"number": number})
    steps.run("x-ray", {}, lambda folder: {})
    (tmp_path / "x-half").mkdir()
    newest = steps.latest("x")
    assert (newest.name, newest.detail, newest.state) == ("x", {"number": 2}, "kept")


def test_digests_see_content_not_order(tmp_path):
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    (tmp_path / "one").write_text("1")
    before = file_digest(tmp_path)
    os.utime(tmp_path / "one", (1, 1))
    assert file_digest(tmp_path) == before
    (tmp_path / "one").write_text("2")
    assert file_digest(tmp_path) != before
