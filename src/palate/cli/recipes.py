"""`palate recipe`: the published systems, on one's own data."""

from __future__ import annotations

import inspect
import json
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from palate.cli.options import JsonOption, settings_of
from palate.console.words import plain
from palate.errors import InputError, printable
from palate.experiments.study import Report
from palate.llm.budget import Budget
from palate.llm.engines.llama import LlamaEngine
from palate.llm.engines.openai_http import OpenAIEngine
from palate.llm.ledger import Ledger
from palate.llm.request import Engine
from palate.project.progress import Bars
from palate.project.study_page import table_view, write_study
from palate.project.study_run import Sources, open_study
from palate.recipes.registry import load, names

group = typer.Typer(no_args_is_help=True, help="The published systems, each with its baselines and controls.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, name="recipe")


@group.command("list")
def list_recipes(as_json: JsonOption = False) -> None:
    """Name the recipes, a line each. Example: `palate recipe list`"""
    rows = {name: (inspect.getdoc(load(name)) or "").splitlines()[0] for name in sorted(names())}
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for name, line in rows.items():
        typer.echo(f"{name:<18} {line}")


@group.command()
def show(name: Annotated[str, typer.Argument(help="A recipe's name.")]) -> None:
    """Say what a recipe does: paper, claim, baselines, controls. Example: `palate recipe show annotators`"""
    recipe = load(name)
    typer.echo(inspect.getdoc(inspect.getmodule(recipe)) or "")
    typer.echo("\n" + (inspect.getdoc(recipe) or ""))


@group.command()
def run(
    name: Annotated[str, typer.Argument(help="A recipe's name.")],
    data: Annotated[Path, typer.Option("--data", "-d", help="Folder with items.*, events.* and perhaps labels.*.")],
    attributes: Annotated[Path | None, typer.Option(help="Folder of attribute YAML files.")] = None,
    recorded: Annotated[Path | None, typer.Option(help="Answers recorded elsewhere; default: DATA/answers.")] = None,
    recorded_model: Annotated[str, typer.Option(help="Who gave the recorded answers.")] = "recorded",
    workspace: Annotated[Path, typer.Option(help="Where ledger, reports and what is kept go.")] = Path(
        "palate-recipes"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions of what is random.")] = 3,
    setting: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE, see palate recipe show.")] = None,
    model: Annotated[str | None, typer.Option(help="GGUF file, or with --base-url the server's model.")] = None,
    base_url: Annotated[str | None, typer.Option(help="An OpenAI-compatible server; default: in process.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=0, help="Budget of tokens read and written.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a published system on a folder of data, beside its baselines and controls, and write a report.

    Example: `palate recipe run annotators --data ml-latest-small --set items=100`
    """
    recipe = load(name)
    bars, drawn = Bars(as_json), {}

    def progress(what: str, done: int, total: int) -> None:
        if what not in drawn:
            drawn[what] = bars.bar(what, "")
        drawn[what](done, total)

    folder = workspace / name / data.resolve().name
    sources = Sources(data, attributes, recorded, recorded_model)
    started, engine = time.perf_counter(), _engine(model, base_url)
    with closing(engine), Ledger(workspace / "ledger.sqlite") as ledger, bars.shown():
        budget = Budget(f"recipe {name} {started}", tokens=max_tokens)
        settings = settings_of(setting)
        study = open_study(sources, folder, engine, ledger, budget, seeds=seeds, settings=settings, progress=progress)
        report = recipe(study)
        spent = study.llm.spent
    facts = {
        "seconds": time.perf_counter() - started,
        "calls": spent.calls,
        "answers_from_the_ledger": spent.cached,
        "tokens": spent.tokens_in + spent.tokens_out,
        "cost": spent.cost,
        "model": engine.model,
    }
    dataset = study.dataset
    said = f"{data.name}: {dataset.n_items:,} items, {dataset.n_users:,} people, {dataset.events.height:,} events"
    options = " ".join(f"--set {printable(each)}" for each in setting or [])
    write_study(folder, report, said, f"palate recipe run {name} --data {data.name} {options}".strip(), facts)
    _tell(report, folder, facts, as_json)


def _engine(model: str | None, base_url: str | None) -> Engine:
    if base_url is None:
        return LlamaEngine(None if model is None else Path(model))
    if model is None:
        raise InputError("A server needs a model.", where="--model", hint="Name the model as the server knows it.")
    return OpenAIEngine(base_url, model)


def _tell(report: Report, folder: Path, facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        tables = {table.title: list(table.rows) for table in report.tables}
        whole = {"verdict": list(report.verdict), "tables": tables, "facts": facts, "report": str(folder)}
        typer.echo(json.dumps(plain(whole)))
        return
    console = Console()
    console.print(f"[bold]{escape(printable(report.title))}[/bold]")
    for line in report.verdict:
        console.print(escape(printable(line, 2000)))
    for table in map(table_view, report.tables):
        shown = Table(*map(escape, table["columns"]), title=escape(table["title"]), title_justify="left", box=None)
        for row in table["rows"]:
            shown.add_row(*(escape(printable(cell)) for cell in row))
        console.print(shown)
        if table["note"]:
            console.print(f"[dim]{escape(printable(table['note'], 2000))}[/dim]")
    console.print(
        f"{facts['tokens']:,} tokens, {facts['seconds']:.0f} s; report {folder / 'report.html'}", soft_wrap=True
    )
