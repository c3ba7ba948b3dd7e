"""`palate tags`: what people care about, as tags of every item."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.options import JsonOption, ProjectOption, open_run, say
from palate.errors import InputError, printable
from palate.experiments.study import ReportTable
from palate.knowledge.tags import Route
from palate.project.tag_steps import TagSteps

group = typer.Typer(no_args_is_help=True, help="Tags of items: a handbook of interests, extraction, students.")
NOption = Annotated[int, typer.Option("--n", min=1, max=10, help="The most tags an item.")]


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, name="tags")


@group.command()
def handbook(
    project: ProjectOption = Path(),
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite an earlier handbook.")] = False,
    people: Annotated[
        bool, typer.Option("--people", help="Mine people's free tags too; not to measure on them.")
    ] = False,
    ask: Annotated[bool, typer.Option("--ask", help="Let the LLM propose dimensions and name those kept.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Mine the dimensions that people's clicks tell apart, by category, into handbook.yaml: read it and edit it.

    Training events only. What carries no information about clicks (permutation test, false discoveries held at 10%)
    is left out. Example: `palate tags handbook --project my-feed`
    """
    with open_run(project, as_json) as run:
        steps = TagSteps(run)
        found = steps.mine(replace, people, ask)
    facts: dict[str, Any] = {"handbook": str(steps.path)}
    facts |= {
        s.category: f"{len(s.dimensions)} of {s.tested} dimensions kept, {s.pairs} clicks" for s in found.sections
    }
    say(facts | ({"notes": " ".join(found.notes)} if found.notes else {}), as_json)


@group.command()
def extract(
    project: ProjectOption = Path(),
    items: Annotated[int, typer.Option(min=1, help="Items that the LLM reads.")] = 100,
    route: Annotated[
        Route,
        typer.Option(help="plain: no handbook. guided: it writes tags with evidence. pick, choose: closed questions."),
    ] = "choose",
    n: NOption = 5,
    as_json: JsonOption = False,
) -> None:
    """Ask the LLM for tags of a budgeted sample of items and keep them, canonical, as knowledge.

    A small model writes poorly: let it choose among the handbook's values. A large one may be guided.

    Example: `palate tags extract --items 200 --route guided`
    """
    with open_run(project, as_json) as run:
        made = TagSteps(run).extract(items, route, n)
    say({"file": str(made.folder / "tag.parquet"), **made.detail}, as_json)


@group.command()
def distil(
    project: ProjectOption = Path(),
    teacher: Annotated[str | None, typer.Option(help="Model whose tags teach; the recorded one by default.")] = None,
    minutes: Annotated[float, typer.Option(min=0, help="Tune the local model too, for at most so long; 0: no.")] = 0.0,
    n: NOption = 5,
    as_json: JsonOption = False,
) -> None:
    """Carry a teacher's tags to every item: a student on sentence vectors, and a local model tuned with LoRA.

    The tuned model is asked as `llm: {engine: torch, adapter: ...}` in palate.yaml.

    Example: `palate tags distil --minutes 15`
    """
    with open_run(project, as_json) as run:
        steps = TagSteps(run)
        rows = steps.teacher(teacher)
        made = steps.student(rows, n)
        facts: dict[str, Any] = {"file": str(made.folder / "tag.parquet"), **made.detail}
        if minutes:
            tuned = steps.tune(rows, n, minutes)
            facts |= {"adapter": str(tuned.folder / "adapter"), **tuned.detail}
    say(facts, as_json)


@group.command()
def measure(
    project: ProjectOption = Path(),
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A number of the recipe, as items=200 or minutes=0.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare tags of every source with each other and with controls: the recipe `tagllm` on this project.

    Example: `palate tags measure --set items=200 --set minutes=0`
    """
    from palate.recipes.registry import load

    parsed = _parsed(settings or [])
    with open_run(project, as_json) as run:
        report = load("tagllm")(TagSteps(run).study(parsed))
    if as_json:
        tables = [{"title": table.title, "rows": list(table.rows), "note": table.note} for table in report.tables]
        typer.echo(json.dumps({"verdict": list(report.verdict), "tables": tables, "notes": list(report.notes)}))
        return
    console = Console()
    for line in [*report.verdict, *report.notes]:
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
    for table in report.tables:
        console.print(_shown(table))


def _parsed(settings: Sequence[str]) -> dict[str, str]:
    for setting in settings:
        if "=" not in setting:
            raise InputError("A setting is name=value.", where="--set", got=setting)
    return dict(setting.split("=", 1) for setting in settings)


def _shown(table: ReportTable) -> Table:
    """A figure with its interval in one column."""
    columns = [name for name in table.rows[0] if not name.endswith(("_low", "_high"))]
    shown = Table(*columns, title=table.title, caption=table.note, box=None)
    for row in table.rows:
        shown.add_row(*(_cell(row, name) for name in columns))
    return shown


def _cell(row: Any, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, float):
        return "" if value is None else printable(value)
    interval = f" [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]" if f"{name}_low" in row else ""
    return f"{value:.3f}{interval}"
