"""`palate refresh`: what came since the last time, once, on a schedule or by events."""

from __future__ import annotations

import re
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from palate.cli.llm_options import MaxCallsOption, MaxMoneyOption, MaxTokensOption, PlanOption
from palate.cli.options import JsonOption, ProjectOption, say
from palate.cli.serving import StateOption
from palate.errors import InputError, PalateError
from palate.project.progress import Bars
from palate.project.refresh import Limits, refreshed
from palate.project.watching import Watch
from palate.serving.state import State, open_state

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_to(app: typer.Typer) -> None:
    app.command()(refresh)


def refresh(
    project: ProjectOption = Path(),
    max_calls: MaxCallsOption = None,
    max_tokens: MaxTokensOption = None,
    max_money: MaxMoneyOption = None,
    plan: PlanOption = False,
    every: Annotated[
        str | None, typer.Option(help="Again and again, this long after the last began: 30m, 1h, 1d.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Again as soon as items were put or deleted.")] = False,
    events: Annotated[int, typer.Option(min=1, help="With --watch: again after so many events, too.")] = 10_000,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask about new items and about people whose taste has moved, within a budget; build, check and use the snapshot.

    New are items that servers took (PUT /v1/items) or that the files have now; only they are asked about, those with
    most events first. People are asked about where palate.yaml names factors (section refresh). Steps whose inputs
    changed are made, old snapshots removed. A running server takes the new one by itself.

    Example: `palate refresh --project my-feed --max-calls 500 --every 1h`
    """
    seconds = None if every is None else seconds_of(every)
    limits = Limits(max_calls, max_tokens, max_money)
    with closing(kept) if (kept := _state(project, state)) is not None else nullcontext():
        if seconds is None and not watch:
            say(_once(project, limits, kept, plan, as_json), as_json)
            return
        watched = Watch(project / ".palate" / "landing", kept, seconds, events if watch else None)
        while True:
            watched.begin()
            try:
                say(_once(project, limits, kept, plan, as_json), as_json)
            except PalateError as error:  # the next one may go well
                typer.echo(str(error), err=True)
            watched.wait()


def _once(project: Path, limits: Limits, state: State | None, plan: bool, as_json: bool) -> dict[str, Any]:
    bars = Bars(as_json)
    with bars.shown():
        return refreshed(project, bars, limits, state, plan)


def _state(project: Path, address: str | None) -> State | None:
    """That of the server; None where there is none, or none is wished."""
    if address is None:
        file = project / ".palate" / "state.sqlite"
        return open_state(f"sqlite:{file}") if file.exists() else None
    return None if address == "none" else open_state(address)


def seconds_of(text: str) -> float:
    """Of "90s", "30m", "1h", "1d".

    Raises:
        InputError: Anything else, and nothing at all.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None or float(found[1]) == 0:
        raise InputError("This is no length of time.", where="--every", got=text, allowed="90s, 30m, 1h, 1d")
    return float(found[1]) * _SECONDS[found[2]]
