"""`palate media`: the pictures and films that the catalogue names, before any of them is asked about."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.options import JsonOption, ProjectOption
from palate.errors import InputError, printable
from palate.knowledge.media import media_report
from palate.project.progress import Bars
from palate.project.project import Project


def add_to(app: typer.Typer) -> None:
    app.command()(media)


def media(project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Decode every picture and film that items name: what a model would be shown of them, and what cannot be read.

    Nothing is asked or sent. Exit code 1 if a file was skipped. Example: `palate media --project my-feed`
    """
    bars = Bars(as_json)
    with closing(Project(project)) as opened, bars.shown():
        if "media" not in opened.dataset.items.columns:
            raise InputError(
                "The catalogue names no media.",
                where="items",
                got=", ".join(opened.dataset.items.columns),
                allowed="a column media with paths relative to the data's folder (or image, path, ...)",
            )
        found = opened.media.read_items(
            opened.dataset, range(opened.dataset.n_items), on_progress=bars.bar("media", "items")
        )
    report = media_report(found)
    if as_json:
        typer.echo(json.dumps(report))
    else:
        table = Table("item and file", "what is wrong", "found", box=None)
        for error in (error for item in found.values() for error in item.errors):
            table.add_row(*(printable(cell or "", 80) for cell in (error.where, error.what, error.got)))
        Console().print(table if table.row_count else "Every file can be read.")
        for note in report.pop("notes"):
            typer.echo(note)
        typer.echo(
            ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in report.items() if name != "skipped")
        )
    if any(item.errors for item in found.values()):
        raise typer.Exit(1)
