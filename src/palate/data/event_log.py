"""A log too large for memory: histories in memory-mapped files, which training reads where it needs them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from palate.data.dataset import Histories
from palate.errors import InputError, StorageError

Numbers = npt.NDArray[np.integer]
Chunk = tuple[Numbers, Numbers, Numbers]  # user_num, item_num, microseconds
_ROWS = 4_000_000  # handled at a time: bounds the memory


@dataclass(frozen=True)
class EventLog:
    """What a sequence model learns from where a `Dataset` would be too large: numbers alone, in order of time.

    `write_log` makes its files once, `open_log` maps them.
    """

    histories: Histories
    n_items: int

    @cached_property
    def item_counts(self) -> npt.NDArray[np.int64]:
        """Events per item, [n_items]."""
        counts = np.zeros(self.n_items, dtype=np.int64)
        for start in range(0, len(self.histories.items), _ROWS):
            counts += np.bincount(self.histories.items[start : start + _ROWS], minlength=self.n_items)
        return counts


def open_log(folder: str | Path) -> EventLog:
    """The log of a folder, mapped.

    Raises:
        StorageError: It cannot be read, or its parts do not fit together.
    """
    folder = Path(folder)
    try:
        offsets, sizes = np.load(folder / "offsets.npy"), np.load(folder / "sizes.npy")
        items, times = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("items", "times"))
        if not len(items) == len(times) == offsets[-1]:
            raise ValueError(f"{len(items)} items, {len(times)} times, offsets up to {offsets[-1]}")
    except (OSError, ValueError, EOFError, IndexError) as error:
        raise StorageError("The log cannot be read", where=str(folder), got=error, hint="write it again") from error
    return EventLog(Histories(offsets, items, times), int(sizes[0]))


def write_log(chunks: Callable[[], Iterable[Chunk]], folder: str | Path, n_users: int, n_items: int) -> EventLog:
    """Write a log of events that come in any order; those of one time stay in the order in which they came.

    Args:
        chunks: The events in parts that fit into memory; called twice.
        folder: Replaced whole.
        n_users: Users are numbered below this.
        n_items: Items are numbered below this.

    Raises:
        InputError: A number out of range.
    """
    folder = Path(folder)
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    offsets = np.zeros(n_users + 1, dtype=np.int64)
    for users, items, _ in chunks():
        _check(users, n_users, "user")
        _check(items, n_items, "item")
        offsets[1:] += np.bincount(users, minlength=n_users)
    offsets = offsets.cumsum()
    np.save(partial / "offsets.npy", offsets)
    np.save(partial / "sizes.npy", np.array([n_items]))
    kept = [_column(partial / "items.npy", np.int32, offsets), _column(partial / "times.npy", np.int64, offsets)]
    if offsets[-1]:
        _scatter(chunks(), kept, offsets[:-1].copy())
        _order(kept, offsets)
    for column in kept:
        if isinstance(column, np.memmap):
            column.flush()
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return open_log(folder)


def _column(path: Path, dtype: type[np.generic], offsets: Numbers) -> npt.NDArray[np.generic]:
    if not offsets[-1]:  # an empty file cannot be mapped
        np.save(path, np.zeros(0, dtype))
        return np.zeros(0, dtype)
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(int(offsets[-1]),))


def _check(numbers: Numbers, below: int, what: str) -> None:
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < below:
        worst = numbers.min() if numbers.min() < 0 else numbers.max()
        raise InputError(f"A number of the {what}s is out of range", got=int(worst), allowed=f"0 to {below - 1}")


def _scatter(chunks: Iterable[Chunk], kept: list[npt.NDArray[np.generic]], free: npt.NDArray[np.int64]) -> None:
    """Put each event at its user's next free place."""
    for users, *columns in chunks:
        order = np.argsort(users, kind="stable")
        owner, first, counts = np.unique(users[order], return_index=True, return_counts=True)
        places = np.repeat(free[owner] - first, counts) + np.arange(len(order))
        free[owner] += counts
        for column, values in zip(kept, columns, strict=True):
            column[places] = values[order]


def _order(kept: list[npt.NDArray[np.generic]], offsets: npt.NDArray[np.int64]) -> None:
    """Sort each user's events by time, stably."""
    for first, last in _ranges(offsets):
        rows = slice(int(offsets[first]), int(offsets[last]))
        owner = np.repeat(np.arange(first, last), np.diff(offsets[first : last + 1]))
        order = np.lexsort((kept[1][rows], owner))
        for column in kept:
            column[rows] = column[rows][order]


def _ranges(offsets: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Users [first, last) with about `_ROWS` events together."""
    edges = np.unique(offsets[:-1] // _ROWS, return_index=True)[1].tolist()
    yield from zip(edges, [*edges[1:], len(offsets) - 1], strict=True)
