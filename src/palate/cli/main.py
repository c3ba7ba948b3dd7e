"""The command `palate`. Results on stdout, progress on stderr; exit 0 good, 1 failed, 2 bad input."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

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
    route,
    serving,
    tags,
    train,
)
from palate.errors import PalateError

app = typer.Typer(
    name="palate",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
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
    experiment,
    serving,
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
    """Entry point: errors a person can act on are shown on one screen, without a traceback."""
    try:
        app()
    except PalateError as error:
        first, *rest = str(error).split("\n")
        console = Console(stderr=True, highlight=False)
        console.print(f"[bold red]error[/bold red] {escape(first)}", soft_wrap=True)
        for line in rest:
            console.print(escape(line), soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        Console(stderr=True).print("Stopped. Everything finished is kept: the same command goes on from here.")
        sys.exit(130)
