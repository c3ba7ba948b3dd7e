"""`palate distill`: students of what was answered."""

from __future__ import annotations

from pathlib import Path

import typer

from palate.cli.options import JsonOption, ProjectOption, open_run, say


def add_to(app: typer.Typer) -> None:
    app.command()(distill)


def distill(project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Teach one student a teacher on sentence vectors, and label every item.

    Example: `palate distill --project my-feed`
    """
    with open_run(project, as_json) as run:
        made = run.distil
    say({"folder": str(made.folder), **made.detail}, as_json)
