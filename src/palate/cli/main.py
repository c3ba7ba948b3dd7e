"""The command `palate`. Results on stdout, progress on stderr; exit 0 good, 1 failed, 2 bad input."""

from __future__ import annotations

from typing import Annotated

import typer

from palate import __version__
from palate.cli import (
    annotate,
    bench,
    data,
    demo,
    distill,
    experiment,
    golden,
    interests,
    keys,
    knowledge,
    llm,
    media,
    models,
    recipes,
    refresh,
    remote,
    route,
    serving,
    tags,
    train,
)
from palate.cli.entry import SETTINGS, shown

app = typer.Typer(**SETTINGS)
for group in (
    demo,
    data,
    media,
    annotate,
    golden,
    distill,
    route,
    tags,
    knowledge,
    interests,
    train,
    models,
    recipes,
    refresh,
    experiment,
    serving,
    remote,
    keys,
    llm,
    bench,
):
    group.add_to(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"palate {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say it.")] = False,
) -> None:
    """Puts what a large language model knows into a recommender, and proves what it was worth.

    Start with `palate demo`: it runs the whole path on MovieLens and writes a report.
    """


def run() -> None:
    """All commands, with their errors shown."""
    shown(app)
