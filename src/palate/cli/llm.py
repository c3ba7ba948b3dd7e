"""`palate llm`: batch files through the ledger, and the ledger's books."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from palate.cli import ledger as ledger_commands
from palate.cli import llm_options as o
from palate.cli.llm_files import export, import_files
from palate.cli.llm_run import run
from palate.cli.options import JsonOption
from palate.errors import InputError, printable
from palate.llm.ledger import Ledger

group = typer.Typer(no_args_is_help=True, help="Asking language models: batch files, the ledger of answers, its books.")


group.command()(run)
group.command()(export)
group.command("import")(import_files)
group.add_typer(ledger_commands.group, name="ledger")


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, name="llm")
    app.add_typer(ledger_commands.group, name="ledger", hidden=True)


@group.command()
def cost(
    ledger: o.LedgerOption = None,
    project: o.FolderOption = Path(),
    by_day: Annotated[bool, typer.Option("--by-day", help="A row for each day, UTC.")] = False,
    as_json: JsonOption = False,
) -> None:
    """What was asked, of whom, for how much, by model and purpose.

    Example: `palate llm cost --project palate-demo --by-day`
    """
    path = o.ledger_path(ledger, project)
    if not path.is_file():
        raise InputError("There is no ledger here.", where=str(path), hint="The first run that asks a model makes it.")
    with Ledger(path) as kept:
        totals = kept.totals(by_day)
    if as_json:
        typer.echo(json.dumps(totals))
        return
    columns = ["day"] if by_day else []
    columns += [
        "model",
        "engine",
        "purpose",
        "calls",
        "failed",
        "tokens_in",
        "tokens_cached",
        "tokens_out",
        "seconds",
        "cost",
    ]
    table = Table(*columns, box=None)
    for row in totals:
        table.add_row(*(_shown(row[column]) for column in columns))
    Console().print(table, markup=False)


def _shown(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else printable(value)
