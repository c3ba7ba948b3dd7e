"""`palate compare`: models against each other on what came later."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.options import JsonOption, ProjectOption, open_run


def add_to(app: typer.Typer) -> None:
    app.command()(compare)


def compare(project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Train SASRec and its baselines, choose on validation, report NDCG@10 and recall@10 on test with intervals.

    Example: `palate compare --project palate-demo`
    """
    with open_run(project, as_json) as run:
        made = run.models
    found = json.loads((made.folder / "comparison.json").read_text())
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table(
        "model", "NDCG@10", "recall@10", "fit s", box=None, title=f"{found['split']}, {found['queries']} queries"
    )
    for result in sorted(found["results"], key=lambda row: -row["means"]["NDCG@10"]["mean"]):
        cells = [f"{m['mean']:.4f} [{m['low']:.4f}, {m['high']:.4f}]" for m in result["means"].values()]
        table.add_row(result["name"], *cells, f"{result['fit_seconds'] or 0:.1f}")
    Console().print(table)
