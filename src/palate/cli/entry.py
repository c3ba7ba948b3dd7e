"""How the command `palate` begins and ends. A server loads its own commands alone: that is a third of its start."""

from __future__ import annotations

import sys
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from palate.errors import PalateError

SETTINGS: dict[str, Any] = {
    "name": "palate",
    "no_args_is_help": True,
    "add_completion": False,
    "rich_markup_mode": "markdown",
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}


def run() -> None:
    """Entry point."""
    if sys.argv[1:2] == ["serve"]:
        from palate.cli import serving

        app = typer.Typer(**SETTINGS)
        serving.add_to(app)
    else:
        from palate.cli.main import app
    shown(app)


def shown(app: typer.Typer) -> None:
    """Run it: errors a person can act on are shown on one screen, without a traceback."""
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
