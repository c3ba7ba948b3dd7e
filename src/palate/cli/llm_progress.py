"""Progress of asking on stderr: done, failed, cached, rates, spent, time left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from palate.llm.runner import Standing

_DRAW = 0.1  # seconds between two drawings of the bar
_SAY = 10.0  # seconds between two lines of a log


class AskingBar:
    """A bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        columns = (SpinnerColumn(finished_text="✓"), BarColumn(bar_width=24), MofNCompleteColumn())
        self._bar = Progress(*columns, TextColumn("{task.description}"), TimeElapsedColumn(), console=self._console)
        self._live = self._console.is_terminal
        self._next = time.monotonic() + (0 if self._live else _SAY)

    @contextmanager
    def shown(self) -> Iterator[None]:
        if not self._live:
            yield
            return
        with self._bar:
            self._task = self._bar.add_task("", total=None)
            yield

    def __call__(self, standing: Standing) -> None:
        now = time.monotonic()
        if now < self._next and standing.done != standing.total:
            return
        self._next = now + (_DRAW if self._live else _SAY)
        if self._live:
            self._bar.update(self._task, description=told(standing), completed=standing.done, total=standing.total)
        else:
            of = "" if standing.total is None else f" of {standing.total:,}"
            self._console.print(f"  {standing.done:,}{of} done, {told(standing)}", soft_wrap=True)


def told(standing: Standing) -> str:
    """All of it but how many are done."""
    facts = [f"{standing.failed:,} failed", f"{standing.cached:,} cached"]
    if standing.requests_per_second:
        facts.append(f"{standing.requests_per_second:,.1f} requests/s, {standing.tokens_per_second:,.0f} tokens/s")
    if standing.cost:
        facts.append(f"{standing.cost:,.4f} spent")
    if standing.seconds_left is not None:
        facts.append(f"{timedelta(seconds=round(standing.seconds_left))} left")
    return ", ".join(facts)


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C calls `stop`, the second ends at once."""

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Not through the console: the signal may have come while it holds its lock.
        os.write(2, b"\nFinishing what is in flight. Ctrl-C again ends at once.\n")
        stop()

    before = signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
