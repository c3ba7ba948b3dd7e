"""Options that several commands share, and the two ways to answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.errors import InputError

if TYPE_CHECKING:
    from palate.project.run import Run

ProjectOption = Annotated[Path, typer.Option("--project", "-p", help="Folder with palate.yaml.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer for machines: JSON on stdout, no progress.")]


@contextmanager
def open_run(folder: Path, quiet: bool = False) -> Iterator[Run]:
    """The run of a project, with its bars shown; engine and ledger are closed at the end."""
    from palate.project.progress import Bars
    from palate.project.project import Project
    from palate.project.run import Run

    bars = Bars(quiet)
    with closing(Project(folder)) as project, bars.shown():
        yield Run(project, bars)


def say(answer: dict[str, Any], as_json: bool) -> None:
    """One fact a line, or JSON."""
    if as_json:
        typer.echo(json.dumps(answer, default=str))
        return
    for name, value in answer.items():
        shown = f"{value:,.4g}" if isinstance(value, float) else value
        typer.echo(f"{name.replace('_', ' ')}: {shown}")


def settings_of(given: list[str] | None) -> dict[str, str]:
    """What `--set NAME=VALUE` said, again and again.

    Raises:
        InputError: One is not written like that.
    """
    found = {}
    for each in given or []:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise InputError("A setting is written NAME=VALUE.", where="--set", got=each)
        found[name] = value
    return found
