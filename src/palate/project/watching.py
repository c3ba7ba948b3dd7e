"""When to refresh again: after a while, or when enough has happened."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from palate.errors import StorageError
from palate.serving.landing import ITEMS
from palate.serving.state import State

_LOOK = 2.0  # seconds between looks


class Watch:
    """What has come since a refresh began, by its landing folder and, where there is one, the state.

    Args:
        every: Seconds from one beginning to the next; None: no schedule.
        events: So many landed events, or any item put or deleted, are reason enough; None: only the schedule is.
    """

    def __init__(self, landing: Path, state: State | None, every: float | None, events: int | None) -> None:
        self.landing, self.state, self.every, self.events = landing, state, every, events
        self._version = 0
        self.begin()

    def begin(self) -> None:
        """A refresh begins now: what comes from here on is news."""
        self._began = time.monotonic()
        self._items, self._events = self._put(), self._landed()

    def wait(self) -> None:
        """Return when the next refresh is due."""
        while not self.due():
            time.sleep(_LOOK)

    def due(self) -> bool:
        if self.every is not None and time.monotonic() - self._began >= self.every:
            return True
        return self.events is not None and (self._put() != self._items or self._landed() >= self._events + self.events)

    def _put(self) -> int:
        """Grows whenever an item is put or deleted."""
        if self.state is None:
            file = self.landing / ITEMS
            return file.stat().st_mtime_ns if file.exists() else 0
        with suppress(StorageError):  # away: nothing is known to have come
            self._version = self.state.items(self._version)[0]
        return self._version

    def _landed(self) -> int:
        return sum(_rows(part) for part in (self.landing / "events").glob("[!.]*.parquet"))


def _rows(part: Path) -> int:
    """A part that cannot be read is named by the refresh that reads it."""
    try:
        return int(pq.read_metadata(part).num_rows)
    except (OSError, pa.ArrowException):
        return 0
