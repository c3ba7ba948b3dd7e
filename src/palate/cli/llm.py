"""`palate llm`: the ledger's books."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.options import JsonOption, ProjectOption
from palate.errors import printable
from palate.project.project import Project

group = typer.Typer(no_args_is_help=True, help="What was asked of language models.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, name="llm")


@group.command()
def cost(project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """What was asked, of whom, for how much, by model and purpose.

    Example: `palate llm cost --project palate-demo`
    """
    totals = Project(project).ledger.totals()
    if as_json:
        typer.echo(json.dumps(totals))
        return
    columns = ("model", "purpose", "calls", "tokens_in", "tokens_cached", "tokens_out", "seconds", "cost")
    table = Table(*columns, box=None)
    for row in totals:
        table.add_row(*(f"{row[c]:,.0f}" if c == "seconds" else printable(row[c]) for c in columns))
    Console().print(table)
