"""`palate bench`: the benchmarks of the repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from palate.errors import InputError

_FOLDER = Path(__file__).resolve().parents[3] / "benchmarks"


def add_to(app: typer.Typer) -> None:
    app.command()(bench)


def bench(name: Annotated[str | None, typer.Argument(help="Which one; none lists them.")] = None) -> None:
    """Run a benchmark of the repository in a process of its own.

    Example: `palate bench retrieval`
    """
    known = sorted(path.stem for path in _FOLDER.glob("*.py"))
    if name is None:
        typer.echo("\n".join(known))
        return
    if name not in known:
        raise InputError("There is no such benchmark.", got=name, allowed=", ".join(known) or "none: use a clone")
    raise typer.Exit(subprocess.call([sys.executable, str(_FOLDER / f"{name}.py")]))
