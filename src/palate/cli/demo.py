"""`palate demo`, `palate init` and `palate run`: the whole path."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from palate.cli.options import JsonOption, ProjectOption, open_run, say
from palate.cli.serving import HostOption, PortOption, check_address, start_server
from palate.data.readers import read_dataset
from palate.errors import InputError
from palate.interests.tree import shape_for
from palate.project.report import summary, write_report
from palate.project.report_data import report_of
from palate.project.run import Run
from palate.project.sample import make_sample


def add_to(app: typer.Typer) -> None:
    app.command()(demo)
    app.command()(init)
    app.command()(run)


def demo(
    folder: Annotated[Path, typer.Argument(help="Where the sample project is made.")] = Path("palate-demo"),
    serve: Annotated[bool, typer.Option("--serve", help="Then start the API and the console.")] = False,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    as_json: JsonOption = False,
) -> None:
    """Run the whole path on the bundled sample, MovieLens ml-latest-small.

    An embedded language model is asked about a budgeted sample of films, its answers are kept and carried to the
    whole catalogue, set beside a large model's recorded answers and people's tags, and used in recommendations.
    Run again, it repeats only what changed and asks nothing twice.

    Example: `palate demo my-demo --serve`
    """
    if serve:
        check_address(host, port)
    make_sample(folder)
    _run_all(folder, as_json)
    if serve:
        start_server(folder / ".palate" / "snapshots", host, port)


def init(
    folder: Annotated[Path, typer.Argument(help="The project's folder; made if it does not exist.")],
    items: Annotated[Path, typer.Option(help="The catalogue: Parquet, CSV, JSONL or RecBole .item.")],
    events: Annotated[Path, typer.Option(help="The log: Parquet, CSV, JSONL or RecBole .inter.")],
    users: Annotated[Path | None, typer.Option(help="Optional table of users.")] = None,
) -> None:
    """Make a project from your own files, once they pass the checks.

    Example: `palate init my-feed --items items.parquet --events events.parquet`
    """
    config = folder / "palate.yaml"
    if config.exists():
        raise InputError("There is a project already.", where=str(config), hint="Edit it, or choose another folder.")
    dataset = read_dataset(items, events, users)
    named = {"items": items, "events": events, "users": users}
    data = {name: str(path.resolve()) for name, path in named.items() if path is not None}
    (folder / "attributes").mkdir(parents=True, exist_ok=True)
    (folder / "golden").mkdir(exist_ok=True)
    example = [{"name": "calm", "question": "Is this calm?", "description": "something calm", "options": ["Yes", "No"]}]
    (folder / "attributes" / "example.yaml").write_text(yaml.safe_dump(example, sort_keys=False))
    config.write_text(yaml.safe_dump({"data": data, "annotate": {"items": 60}}, sort_keys=False))
    typer.echo(f"{config}: {dataset.n_items} items, {dataset.n_users} users, {dataset.events.height} events.")
    typer.echo(f"Next: write your questions into {folder / 'attributes'}, then palate run --project {folder}")


def run(
    steps: Annotated[
        list[str] | None, typer.Argument(help="Only these steps and what they read; all by default.")
    ] = None,
    project: ProjectOption = Path(),
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would be asked, and what it would cost.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run every step of a project; what has not changed is kept. Writes report.html and report.json.

    Example: `palate run annotate golden --project my-feed`
    """
    if plan:
        with open_run(project, quiet=True) as work:
            found = _plan(work)
        say(found, as_json)
        return
    if not steps:
        _run_all(project, as_json)
        return
    with open_run(project, quiet=as_json) as work:
        made = work.some(steps)
    say({artefact.name: f"{artefact.state}, {artefact.folder}" for artefact in made}, as_json)


def _plan(work: Run) -> dict[str, Any]:
    """What the steps would ask. Transitions depend on a tree that may not stand yet: their number is a bound."""
    opened, plan = work.project, work.plan()
    config, shape = opened.config, shape_for(opened.dataset.n_items, opened.config.interests)
    nodes = shape[min(config.interests.level, len(shape)) - 1]
    return {
        "items": opened.dataset.n_items,
        "events": opened.dataset.events.height,
        "model": opened.engine.model,
        "annotation_questions": plan.requests,
        "annotation_calls": plan.calls,
        "annotation_tokens_in": plan.tokens_in,
        "annotation_tokens_out_at_most": plan.tokens_out,
        "annotation_cost_at_most": plan.money,
        "annotation_seconds": "unknown: the ledger has no call of this model" if plan.seconds is None else plan.seconds,
        "transition_calls_at_most": nodes * (nodes - 1) // 2,
        "answers_in_the_ledger": opened.ledger.count(),
        "budget_of_calls": config.llm.max_calls,
    }


def _run_all(folder: Path, as_json: bool) -> None:
    with open_run(folder, quiet=as_json) as work:
        report = report_of(work.all())
    write_report(folder, report)
    if as_json:
        say({"report": str(folder / "report.json"), "snapshot": work.snapshot.detail["name"]}, as_json)
        return
    console = Console() if sys.stdout.isatty() else Console(width=110)
    console.print(summary(report))
    console.print(f"\nreport   {folder / 'report.html'}", highlight=False, soft_wrap=True)
    console.print(f"serve    palate serve --project {folder}", highlight=False, soft_wrap=True)
