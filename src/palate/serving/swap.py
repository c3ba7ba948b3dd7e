"""Another snapshot while the server answers: found, checked and warmed beside the one in use, then exchanged."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

from palate.errors import PalateError
from palate.serving.live import Live
from palate.serving.metering import Meter
from palate.serving.observed import say
from palate.serving.opened import Snapshot
from palate.serving.versions import current

_AGAIN = 60.0  # seconds until a snapshot that was refused is tried again


class Watcher:
    """Looks which snapshot is current, each second and when told, and has it served; going back is the same.

    One that is damaged, or fails when it is warmed, is refused: the log says why, `palate_snapshot_stale` is 1, and the
    old one goes on answering. Requests under way end with the snapshot that they began with; its files are unmapped
    after the last of them.

    Args:
        folder: The folder of snapshots.
        opened: From a snapshot's path to one that is checked and warm.
    """

    def __init__(
        self,
        live: Live,
        folder: Path,
        opened: Callable[[Path], Snapshot],
        meter: Meter,
        every: float = 1.0,
        also: Callable[[], object] = lambda: None,
    ) -> None:
        self.live, self.folder, self.opened, self.meter, self.every, self.also = (
            live,
            folder,
            opened,
            meter,
            every,
            also,
        )
        self._refused: dict[str, float] = {}
        self._told, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="snapshots", daemon=True)
        self._report(live.built)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Returns once a swap that is under way has ended."""
        self._stop.set()
        self._told.set()
        if self._thread.is_alive():
            self._thread.join()

    def hurry(self) -> None:
        """Look now, and try again what was refused. Safe in a signal handler."""
        self._refused = {}
        self._told.set()

    def look(self) -> bool:
        """Serve the current snapshot if it is another one; whether it was exchanged."""
        try:
            path = current(self.folder)
        except PalateError as error:
            return self._refuse("", error)
        if path == self.live.built.path:
            self._refused = {}
            self.meter.stale.set(0)
            return False
        if time.monotonic() < self._refused.get(path.name, 0.0):
            return False
        start = time.monotonic()
        try:
            opened = self.opened(path)
            before = self.live.built.name
            self.live.swap(opened)
        except Exception as error:  # whatever is wrong with it, the old one is better
            return self._refuse(path.name, error)
        self._refused = {}
        self._report(opened, before)
        self.meter.swaps.labels("swapped").inc()
        say("snapshot swapped", snapshot=opened.name, before=before, seconds=round(time.monotonic() - start, 3))
        return True

    def _refuse(self, name: str, error: Exception) -> bool:
        if time.monotonic() >= self._refused.get(name, 0.0):
            known = isinstance(error, PalateError)
            why = {"what": error.what, "where": error.where, "got": str(error.got)} if known else {"what": repr(error)}  # type: ignore[attr-defined]
            say("snapshot refused", logging.ERROR, snapshot=name, serving=self.live.built.name, **why)
            self.meter.swaps.labels("refused").inc()
        self._refused = {name: time.monotonic() + _AGAIN}
        self.meter.stale.set(1)
        return False

    def _report(self, snapshot: Snapshot, before: str | None = None) -> None:
        created = datetime.fromisoformat(snapshot.manifest["created"]).timestamp()
        self.meter.serves(snapshot.name, created, before)
        snapshot.index.main.restricts.told = partial(self.meter.cached, "restrict")
        self.meter.stale.set(0)

    def _watch(self) -> None:
        while not self._stop.is_set():
            self._told.wait(self.every)
            self._told.clear()
            if not self._stop.is_set():
                self.look()
                self.also()
