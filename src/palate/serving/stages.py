"""Stages of a slate that may take only so long, and what is noted where one is late or fails."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from queue import SimpleQueue
from typing import Literal

from palate.errors import InputError

_log = logging.getLogger(__name__)
_LATE = 8  # stages that may be late at once; while so many are, no other is begun


@dataclass(frozen=True)
class Fallback:
    """A source or the ranker that a slate had to go without."""

    part: str  # "sequence", …, "rank"
    why: Literal["late", "failed"]

    def __str__(self) -> str:
        return f"{self.part} {self.why}"


@dataclass
class Stages:
    """Of one slate: how long each stage took, and what it went without."""

    seconds: dict[str, float] = field(default_factory=dict)
    fallbacks: list[Fallback] = field(default_factory=list)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = time.perf_counter() - start

    def within(self, milliseconds: float | None, work: Callable[[], None]) -> bool:
        """Whether the work was done in time. Python cannot stop it: what is late ends by itself, unheard."""
        if milliseconds is None:
            work()
            return True
        return _abandoning().run(milliseconds / 1000, work)

    def went_without(self, part: str, why: Literal["late", "failed"]) -> None:
        self.fallbacks.append(Fallback(part, why))

    def failed(self, part: str, error: Exception) -> None:
        """What the person who asked did wrong is theirs to know; all else must not cost them the slate.

        Raises:
            InputError: if `error` is one.
        """
        if isinstance(error, InputError):
            raise error
        _log.warning("%s failed: %s", part, type(error).__name__, exc_info=error)
        self.went_without(part, "failed")


class _Abandoning:
    """Threads whose work is waited for only so long. Daemons: work that never ends does not hold up the exit."""

    def __init__(self, most: int) -> None:
        self.most, self.late, self._idle = most, 0, 0
        self._tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._counting = threading.Lock()

    def run(self, seconds: float, work: Callable[[], None]) -> bool:
        """Whether it ended in time; what it raised is raised here. While `most` are late nothing is begun."""
        raised, done, abandoned = list[BaseException](), threading.Lock(), False

        def task() -> None:
            try:
                work()
            except BaseException as error:
                raised.append(error)
            with self._counting:
                done.release()
                self._idle += 1
                self.late -= abandoned

        with self._counting:
            if self.late >= self.most:
                return False
            self._idle -= 1
            if self._idle < 0:
                self._idle += 1
                threading.Thread(target=self._serve, name="stage", daemon=True).start()
        done.acquire()  # released by the thread that works
        self._tasks.put(task)
        if not done.acquire(timeout=seconds):
            with self._counting:
                abandoned = done.locked()  # or it ended just now
                self.late += abandoned
            if abandoned:
                return False
        if raised:
            raise raised[0]
        return True

    def _serve(self) -> None:
        while True:
            self._tasks.get()()


@cache
def _abandoning() -> _Abandoning:
    return _Abandoning(_LATE)
