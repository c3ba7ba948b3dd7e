"""Stages of a slate that may take only so long, and what is noted where one is late or fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar

from palate.errors import InputError

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Stage(NamedTuple):
    """Work, and the milliseconds that it may take; None: however long it takes."""

    milliseconds: float | None
    work: Callable[[], None]


PAUSE = Stage(None, lambda: None)  # for others to come as far

Steps = Generator[Stage, bool, T]
"""A computation that yields its stages to be done by whoever runs it, and is told of each whether it was in time.

It waits where it yields, so that others can come as far, and another thread can go on with it while a late stage
still runs in the first.
"""


@dataclass(frozen=True)
class Fallback:
    """A source or the ranker that a slate had to go without."""

    part: str  # "sequence", …, "rank"
    why: Literal["late", "failed"]

    def __str__(self) -> str:
        return f"{self.part} {self.why}"


@dataclass
class Stages:
    """Of one slate: how long each stage took by itself, and what it went without."""

    seconds: dict[str, float] = field(default_factory=dict)
    fallbacks: list[Fallback] = field(default_factory=list)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

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


def inline(steps: Steps[T]) -> T:
    """To the end, in this thread, however long a stage takes."""
    try:
        stage = next(steps)
        while True:
            try:
                stage.work()
            except Exception as error:
                stage = steps.throw(error)
            else:
                stage = steps.send(True)
    except StopIteration as end:
        answer: T = end.value
        return answer
