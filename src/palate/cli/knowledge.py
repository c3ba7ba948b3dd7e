"""`palate annotate`, `distill`, `golden` and `import`: knowledge about items."""

from __future__ import annotations

import json
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.options import JsonOption, ProjectOption, open_run, say
from palate.errors import printable
from palate.knowledge.lint import definition, lint
from palate.knowledge.recorded import read_rows
from palate.knowledge.store import KnowledgeStore
from palate.project.project import Project

annotate_group = typer.Typer(invoke_without_command=True)


def add_to(app: typer.Typer) -> None:
    app.add_typer(annotate_group, name="annotate")
    app.command()(distill)
    app.command()(golden)
    app.command("import")(import_knowledge)


@annotate_group.callback()
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


@annotate_group.command("lint")
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


def distill(project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Teach one student a teacher on sentence vectors, and label every item.

    Example: `palate distill --project my-feed`
    """
    with open_run(project, as_json) as run:
        made = run.distil
    say({"folder": str(made.folder), **made.detail}, as_json)


def golden(project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Measure every source of labels against people's (golden/*.csv): AUC, F1, kappa with 95% intervals.

    Example: `palate golden --project palate-demo`
    """
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


def import_knowledge(
    file: Annotated[Path, typer.Argument(help="JSONL: kind, entity, name, value or text, model, ...")],
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Add knowledge that was answered elsewhere, each row with its provenance. All rows or none.

    Example: `palate import answers.jsonl --project my-feed`
    """
    opened = Project(project)
    known = {*opened.dataset.item_ids, *opened.dataset.user_ids}
    store = KnowledgeStore(opened.state / "knowledge")
    tables = read_rows(file, known)
    parts = {kind: str(store.add(kind, table)) for kind, table in tables.items()}
    say({"rows": sum(table.height for table in tables.values()), **parts}, as_json)
