"""`palate annotate`: what a language model says about items."""

from __future__ import annotations

import json
from dataclasses import asdict, astuple
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.options import JsonOption, ProjectOption, open_run, say
from palate.errors import printable
from palate.knowledge.lint import definition, lint
from palate.project.project import Project

group = typer.Typer(invoke_without_command=True)


def add_to(app: typer.Typer) -> None:
    from palate.cli import fresh, refine  # noqa: F401  (their commands join the group)

    app.add_typer(group, name="annotate")


@group.callback()
def annotate(context: typer.Context, project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Ask the LLM about a budgeted sample of items (annotate.items in palate.yaml).

    Answers are kept in the ledger as they come: a run that was stopped goes on where it was.

    Example: `PALATE__ANNOTATE__ITEMS=200 palate annotate`
    """
    if context.invoked_subcommand is not None:
        return
    with open_run(project, as_json) as run:
        made = run.annotate
    say({"labels": str(made.folder / "label.parquet"), **made.detail}, as_json)


@group.command("lint")
def lint_attributes(project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Find vague, double, negated, unexplained or overlapping definitions in attributes/*.yaml, by rule.

    Exit code 1 if there are any. Example: `palate annotate lint --project palate-demo`
    """
    opened = Project(project)
    attributes = opened.attributes
    remarks = lint(attributes, opened.encoder.encode([definition(attribute) for attribute in attributes]))
    if as_json:
        typer.echo(json.dumps([asdict(remark) for remark in remarks]))
    else:
        table = Table("attribute", "rule", "what", "hint", box=None)
        for remark in remarks:
            table.add_row(*(printable(cell) for cell in astuple(remark)))
        Console().print(table if remarks else f"{len(attributes)} definitions, nothing to mend.")
    if remarks:
        raise typer.Exit(1)
