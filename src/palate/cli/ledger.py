"""`palate llm ledger`: care for the file of kept answers."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from palate.cli import llm_options as o
from palate.cli.options import JsonOption, say
from palate.errors import InputError, printable
from palate.llm import ledger_tools

group = typer.Typer(no_args_is_help=True, help="The file in which every answer is kept: check, copy, prune.")


@group.command()
def verify(ledger: o.LedgerOption = None, project: o.FolderOption = Path(), as_json: JsonOption = False) -> None:
    """Check the file and every row of it: damage, orphans, answers that do not fit their schema.

    Exit code 1 if anything but notes is found. Example: `palate llm ledger verify --project palate-demo`
    """
    path = o.ledger_path(ledger, project)
    found = ledger_tools.verify(path)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in found]))
    elif found:
        table = Table("kind", "what", "count", "example", "hint", box=None)
        for f in found:
            table.add_row(*(printable(text) for text in (f.kind, f.what, f"{f.count:,}", f.example, f.hint)))
        Console().print(table, markup=False)
    else:
        typer.echo(f"{path}: all is well")
    raise typer.Exit(1 if any(finding.kind != "note" for finding in found) else 0)


@group.command()
def export(
    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet file to write.")],
    ledger: o.LedgerOption = None,
    project: o.FolderOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write all answers with their requests to a Parquet file.

    Example: `palate llm ledger export -o answers.parquet`
    """
    say({"answers": ledger_tools.export(o.ledger_path(ledger, project), out), "output": str(out)}, as_json)


@group.command()
def prune(
    ledger: o.LedgerOption = None,
    project: o.FolderOption = Path(),
    older_than: Annotated[float | None, typer.Option("--older-than", metavar="DAYS", min=0, help="Age.")] = None,
    model: Annotated[str | None, typer.Option(help="Only answers of this model.")] = None,
    purpose: Annotated[str | None, typer.Option(help="Only answers for this purpose.")] = None,
    failures: Annotated[bool, typer.Option("--failures", help="Failed asks instead of answers.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say how many there are.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Drop answers, or failed asks, to which every given condition applies. Their requests would be paid again.

    Example: `palate llm ledger prune --older-than 365 --model old-model --yes`
    """
    if older_than is None and model is None and purpose is None and not failures:
        hint = "Name --older-than, --model, --purpose or --failures."
        raise InputError("Nothing says which answers to drop.", where="palate llm ledger prune", hint=hint)
    before = None if older_than is None else datetime.now(UTC) - timedelta(days=older_than)
    path = o.ledger_path(ledger, project)
    n = ledger_tools.prune(path, before=before, model=model, purpose=purpose, failures=failures, dry_run=not yes)
    say({"dropped" if yes else "would_drop": n}, as_json)
