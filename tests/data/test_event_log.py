"""A log written in parts is the histories of the same events, and says what is wrong with its input."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data import event_log
from palate.data.event_log import Chunk, open_log, write_log
from palate.errors import InputError, StorageError

EVENT = st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(-3, 3))


@given(st.lists(st.lists(EVENT, max_size=8), max_size=5), st.integers(1, 9))
def test_is_the_events_by_user_and_time(parts: list[list[tuple[int, int, int]]], rows: int) -> None:
    chunks = [tuple(np.array(part, dtype=np.int64).reshape(-1, 3).T) for part in parts]
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_log, "_ROWS", rows)  # many ranges of users
        log = write_log(lambda: chunks, Path(folder) / "log", 6, 10)
        events = [event for part in parts for event in part]
        for user in range(6):
            expected = sorted((e for e in events if e[0] == user), key=lambda e: e[2])
            assert log.histories.of(user).tolist() == [item for _, item, _ in expected]
            assert log.histories.times_of(user).tolist() == [time for *_, time in expected]
        assert log.item_counts.tolist() == np.bincount([e[1] for e in events], minlength=10).tolist()
        assert (log.n_items, log.histories.items.dtype) == (10, np.int32)


def chunk(users: list[int], items: list[int]) -> Chunk:
    return np.array(users), np.array(items), np.zeros(len(users), np.int64)


@pytest.mark.parametrize(("users", "items", "got"), [([0, 2], [0, 0], 2), ([0, 1], [0, 5], 5), ([-1, 0], [0, 0], -1)])
def test_names_a_number_out_of_range(tmp_path: Path, users: list[int], items: list[int], got: int) -> None:
    with pytest.raises(InputError, match="out of range") as caught:
        write_log(lambda: [chunk(users, items)], tmp_path / "log", 2, 5)
    assert caught.value.got == got
    assert not (tmp_path / "log").exists()


def test_a_new_log_replaces_the_old_one(tmp_path: Path) -> None:
    for items in ([1, 2, 3], [4]):
        write_log(lambda items=items: [chunk([0] * len(items), items)], tmp_path / "log", 1, 5)
    assert open_log(tmp_path / "log").histories.items.tolist() == [4]
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


@pytest.mark.parametrize("broken", ["items.npy", "times.npy", "offsets.npy", "sizes.npy"])
@pytest.mark.parametrize("content", [None, b"", b"\x93NUMPY"])
def test_says_that_a_log_is_broken(tmp_path: Path, broken: str, content: bytes | None) -> None:
    write_log(lambda: [chunk([0, 0], [1, 2])], tmp_path / "log", 1, 5)
    path = tmp_path / "log" / broken
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(StorageError, match="cannot be read") as caught:
        open_log(tmp_path / "log")
    assert caught.value.where == str(tmp_path / "log")


def test_says_that_parts_do_not_fit(tmp_path: Path) -> None:
    write_log(lambda: [chunk([0, 0], [1, 2])], tmp_path / "log", 1, 5)
    np.save(tmp_path / "log" / "items.npy", np.zeros(3, np.int32))
    with pytest.raises(StorageError, match="cannot be read") as caught:
        open_log(tmp_path / "log")
    assert "3 items, 2 times" in str(caught.value)
