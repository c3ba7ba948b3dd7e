"""`palate route`: who may answer what, at which error, for how much."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.options import JsonOption, ProjectOption, open_run
from palate.errors import InputError, printable
from palate.knowledge.golden_queue import extend_queue
from palate.project.routing import Routing

AlphaOption = Annotated[float | None, typer.Option(help="The promised error; by default route.alpha.")]
DeltaOption = Annotated[float | None, typer.Option(help="The chance of a broken promise; by default route.delta.")]
ErrorOption = Annotated[
    Literal["class", "answer"] | None,
    typer.Option(help="Promise errors among true yes and true no, or among answers yes and no."),
]
QueueOption = Annotated[int, typer.Option(min=0, help="The most rows added to golden/queue.jsonl.")]
CheckOption = Annotated[int, typer.Option(min=0, help="Check the promise on so many random splits of dev.")]
CostOption = Annotated[bool, typer.Option("--cost", help="Also what a million items cost by each route.")]


def add_to(app: typer.Typer) -> None:
    app.command()(route)


def route(
    project: ProjectOption = Path(),
    alpha: AlphaOption = None,
    delta: DeltaOption = None,
    error: ErrorOption = None,
    queue: QueueOption = 200,
    check: CheckOption = 0,
    cost: CostOption = False,
    as_json: JsonOption = False,
) -> None:
    """Pass every label from the student to the LLMs to people: the first that may be trusted answers.

    Thresholds keep a promised error on people's dev labels (held-out ones are not read); a judge that cannot keep it
    answers nothing. What only people may answer goes to golden/queue.jsonl, the answers to .palate/routed.parquet.

    Example: `palate route --project palate-demo --alpha 0.2 --check 200 --cost`
    """
    with open_run(project, as_json) as run:
        given = {
            name: value for name, value in (("alpha", alpha), ("delta", delta), ("error", error)) if value is not None
        }
        for name, share in (("alpha", alpha), ("delta", delta)):
            if share is not None and not 0 < share < 1:
                raise InputError("A share must lie between 0 and 1.", where=f"--{name}", got=share)
        routing = Routing(run, run.project.config.route.model_copy(update=given))
        golden = run.project.path(run.project.config.golden)
        answer: dict[str, Any] = {
            "promise": routing.config.model_dump(),
            "skipped": [str(skip) for skip in run.project.golden.skipped],
            "silent": [vars(silence) for silence in routing.silences],
            "stages": routing.stages(),
            "answers": str(routing.keep()),
            "queued": extend_queue(golden, routing.queue(queue)) if queue else 0,
            "curve": routing.curve(),
            "check": routing.check(check) if check else [],
            "costs": routing.costs() if cost else [],
        }
    if as_json:
        typer.echo(json.dumps(_finite(answer)))
    else:
        _show(answer, Console())


def _show(answer: Mapping[str, Any], out: Console) -> None:
    promise = answer["promise"]
    of = {"class": "of true yes, and of true no, is answered wrongly", "answer": "of answers yes, and of no, is wrong"}
    out.print(
        f"At most {promise['alpha']:.0%} {of[promise['error']]}; for each attribute with a chance of "
        f"{1 - promise['delta']:.0%} or more. Errors below are those on dev."
    )
    stages = [row for row in answer["stages"] if row["attribute"] == "all"]
    _table(out, stages, ("stage", "reached", "answered", "share", "waiting", "error", "missed", "false_yes", "money"))
    for skip in answer["skipped"]:
        out.print(printable(skip))
    for silence in answer["silent"]:
        out.print(printable(f"{silence['attribute']}: {silence['why']}"), soft_wrap=True)
    if answer["check"]:
        out.print("\nThe promise on random splits of dev:")
        _table(out, answer["check"], ("attribute", "splits", "broken", "limit", "kept", "answered", "worst"))
    if answer["costs"]:
        out.print("\nA million items:")
        _table(
            out, answer["costs"], ("route", "items_per_second", "hours", "tokens_in", "tokens_out", "money", "basis")
        )
    out.print(f"\nqueued for people: {answer['queued']} · answers: {printable(answer['answers'])}", soft_wrap=True)


def _table(out: Console, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    table = Table(*(column.replace("_", " ") for column in columns), box=None)
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    out.print(table)


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return printable(value)


def _finite(value: Any) -> Any:
    """JSON knows no NaN."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
