"""`palate golden`: what people say about items, and who agrees with them."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.options import JsonOption, ProjectOption, open_run
from palate.errors import printable

group = typer.Typer(invoke_without_command=True)


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, name="golden")


@group.callback()
def golden(context: typer.Context, project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Measure every source of labels against people's (golden/*.csv): AUC, F1, kappa with 95% intervals.

    Example: `palate golden --project palate-demo`
    """
    if context.invoked_subcommand is not None:
        return
    with open_run(project, as_json) as run:
        made = run.golden
    rows = json.loads((made.folder / "golden.json").read_text())
    if as_json:
        typer.echo(json.dumps(rows))
        return
    columns = ("auc", "precision", "recall", "f1", "kappa")
    table = Table("attribute", "source", "n", "yes", *columns, box=None)
    for row in rows:
        figures = [f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]" for name in columns]
        table.add_row(
            printable(row["attribute"]), printable(row["source"]), str(row["n"]), str(row["positives"]), *figures
        )
    Console().print(table)
