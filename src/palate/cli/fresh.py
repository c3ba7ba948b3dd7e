"""`palate annotate fresh`: new and changed items, drift, and creators whose rates jumped."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.annotate import group
from palate.cli.options import JsonOption, ProjectOption
from palate.errors import InputError, printable
from palate.knowledge.fresh import Drift, Jump, creator_jumps, drift
from palate.llm.asking import LedgeredLLM
from palate.project.progress import Bars
from palate.project.project import Project
from palate.project.visits import Visits


@group.command()
def fresh(
    project: ProjectOption = Path(),
    plan: Annotated[bool, typer.Option("--plan", help="Say what is due; ask nothing, change nothing.")] = False,
    trickle: Annotated[int, typer.Option(min=0, help="Items asked anew, to compare with the student.")] = 0,
    by: Annotated[str | None, typer.Option(help="Column of items: whose rates jumped? director, brand, ...")] = None,
    since: Annotated[str | None, typer.Option(help="Recent: first seen after this date; else after the first.")] = None,
    fdr: Annotated[float, typer.Option(min=0.001, max=0.5, help="The share of false alarms among --by's.")] = 0.1,
    run_length: Annotated[int, typer.Option(min=10, help="Trickled items to a false alarm, on average.")] = 2000,
    as_json: JsonOption = False,
) -> None:
    """Ask about new and changed items and reworded attributes, and no more; watch for drift.

    The first visit takes stock of the catalogue. Later ones ask about items that were not in it, and again where the
    text or the question is another than at the newest label. Exit code 1: an alarm.

    Example: `palate annotate fresh --trickle 20 --by director`
    """
    bars, first_day = Bars(as_json), _date(since)
    with closing(Project(project)) as opened, bars.shown():
        visits = Visits(opened)
        if by is not None:
            visits.check_column(by)
        what = visits.due()
        told: dict[str, Any] = {"first_visit": visits.catalogue is None, "due": _reasons(what)}
        drifts: list[Drift] = []
        jumped: list[Jump] = []
        if not plan:
            llm = LedgeredLLM(opened.engine, opened.ledger, opened.budget, bars.bar("fresh", "questions"))
            told |= {"labels": visits.refresh(what, llm).height, **vars(llm.spent)}
        if not plan and trickle:
            visits.ask_trickle(trickle, bars)
            drifts = drift(visits.history, visits.trickle, run_length)
        if not plan and by is not None:
            jumped, told["creators"] = creator_jumps(visits.hits(by, first_day), fdr)
        last = int(visits.trickle["batch"].max() or 0) if trickle and visits.trickle.height else 0  # type: ignore[arg-type]
        told["drift"] = [_drift_row(one, visits, last) for one in drifts]
    told["jumps"] = [vars(jump) for jump in jumped]
    told["alarms"] = sum(bool(row["alarms"]) for row in told["drift"]) + len(jumped)
    if as_json:
        typer.echo(json.dumps(told, default=str))
    else:
        _show(told, plan)
    if told["alarms"]:
        raise typer.Exit(1)


def _reasons(what: Any) -> dict[str, int]:
    return dict(what.group_by("why").len().sort("why").iter_rows())


def _drift_row(one: Drift, visits: Visits, batch: int) -> dict[str, Any]:
    """The alarms are those of this batch; earlier ones were told then."""
    rows = visits.trickle.filter(visits.trickle["name"] == one.name)
    start = int((rows["batch"] < batch).sum())
    row = {"attribute": one.name, "usual_at_most": one.usual, "before": one.before, "trickled": one.trickled}
    return row | {"alarms": [number for number in one.chart.alarms if number >= start]}


def _date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError as error:
        raise InputError("This is no date.", where="--since", got=text, allowed="2026-01-31, say") from error


def _show(told: dict[str, Any], plan: bool) -> None:
    console = Console(highlight=False)
    if told["first_visit"]:
        console.print("The first visit: what the catalogue holds now is not new.")
    listed = ", ".join(f"{count} {why}" for why, count in told["due"].items())
    console.print(f"due: {listed or 'nothing'}" + ("" if plan else f"; {told['labels']} labels, {told['calls']} calls"))
    if told["drift"]:
        table = Table("attribute", "apart before", "apart now", "usual at most", "alarm", box=None)
        for row in told["drift"]:
            shares = [f"{wrong} of {n}" for wrong, n in (row["before"], row["trickled"])]
            table.add_row(printable(row["attribute"]), *shares, f"{row['usual_at_most']:.2f}", _mark(row["alarms"]))
        console.print(table)
    if "creators" in told:
        console.print(", ".join(f"{name}: {count}" for name, count in told["creators"].items()))
        table = Table("creator", "attribute", "before", "now", "p", box=None)
        for row in told["jumps"]:
            shares = [f"{hits} of {n}" for hits, n in (row["before"], row["now"])]
            table.add_row(printable(row["group"]), printable(row["name"]), *shares, f"{row['p_value']:.2g}")
        console.print(table if told["jumps"] else "No creator's rate jumped.")


def _mark(alarms: list[int]) -> str:
    return f"at answer {alarms[0] + 1}" if alarms else ""
