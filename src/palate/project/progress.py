"""Progress on stderr: what, how far, rate, time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if not speed or not task.total else f"{speed:,.1f}/s", style="dim")


class Bars:
    """One bar for each step that runs; a line for each that is kept."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self._bars = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
        )

    @contextmanager
    def shown(self) -> Iterator[Bars]:
        with self._bars:
            yield self

    def step(self, name: str, runs: bool) -> None:
        if not runs:
            self._bars.console.print(f"[dim]✓ {name}: kept, nothing changed[/dim]")
        elif not self.console.is_terminal:
            self._bars.console.print(f"→ {name}")

    def bar(self, name: str, unit: str) -> Callable[[int, int], None]:
        """A callback (done, total) that draws the bar of one piece of work."""
        if not self.console.is_terminal:
            return self._lines(name, unit)
        task = self._bars.add_task(f"{name} ({unit})", total=None)

        def report(done: int, total: int) -> None:
            self._bars.update(task, completed=done, total=total)

        return report

    def _lines(self, name: str, unit: str) -> Callable[[int, int], None]:
        """For logs: a line at each quarter instead of a bar."""
        said = -1

        def report(done: int, total: int) -> None:
            nonlocal said
            quarter = 4 * done // total if total else 4
            if quarter != said:
                said = quarter
                self.console.print(f"  {name}: {done} of {total} {unit}")

        return report
