import os

import pytest

from palate.data.whole_file import replace_file
from palate.errors import StorageError


def test_a_file_is_replaced_whole_with_its_mode_and_behind_its_link(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    replace_file(real, "old")
    real.chmod(0o640)
    link.symlink_to(real)
    replace_file(link, b"new")
    assert (real.read_text(), real.stat().st_mode & 0o777, link.is_symlink()) == ("new", 0o640, True)
    replace_file(tmp_path / "a" / "b", "made with its folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "link", "real"]


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "kept"
    replace_file(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        StorageError, match=r"The thing could not be written(.|\n)*kept(.|\n)*No space(.|\n)*Free some space"
    ):
        replace_file(path, "new", "The thing")
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]
    assert path.read_text() == "old"
