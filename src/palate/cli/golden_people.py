"""`palate golden sample`, `label`, `import`, `export`: how people's labels come about."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.options import JsonOption, ProjectOption
from palate.cli.serving import PortOption, check_port
from palate.data.whole_file import replace_file
from palate.errors import InputError, printable
from palate.knowledge.golden_files import FORMATS, import_labels, label_studio_config
from palate.knowledge.golden_queue import QUEUE
from palate.knowledge.golden_sample import MEANING, MIX, sample_table
from palate.project.golden_work import exported, golden_folder, queue_more, queue_to_label
from palate.project.project import Project

_HOST = "127.0.0.1"  # the page writes: it is for this machine only
_MIX = ",".join(f"{part}={share}" for part, share in MIX.items())


def add_commands(group: typer.Typer) -> None:
    for name, command in (("sample", sample), ("label", label), ("import", import_), ("export", export)):
        group.command(name)(command)


def sample(
    n: Annotated[int, typer.Option("--n", "-n", help="Items to queue.", min=1)] = 100,
    mix: Annotated[str, typer.Option(help="Parts and their shares.")] = _MIX,
    seed: Annotated[int, typer.Option(help="The same seed draws the same items.")] = 0,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Queue items worth labelling: a random part to estimate with, and what the sources are unsure or at odds about.

    Nothing is asked or made: the sources' newest labels are read. What people labelled already is never asked again.

    Example: `palate golden sample --n 60 --mix random=30,uncertain=20,tail=10`
    """
    with closing(Project(project)) as opened:
        sampled = queue_more(opened, n, _shares(mix), seed)
        path = golden_folder(opened) / QUEUE
    rows = sample_table(sampled.picks)
    if as_json:
        typer.echo(json.dumps({"queue": str(path), "parts": rows, "notes": sampled.notes}))
        return
    table = Table("part", "of", "probability", "items", "why", box=None)
    for row in rows:
        probability = "chosen" if row["probability"] is None else f"{row['probability']:.4f}"
        cells = (row["part"], row["of"] or "all items", probability, row["items"], MEANING[str(row["part"])])
        table.add_row(*(printable(cell) for cell in cells))
    Console().print(table)
    for note in sampled.notes:
        typer.echo(printable(note))
    typer.echo(f"{sum(pick.ask for pick in sampled.picks)} items queued in {path}; label them: palate golden label")


def label(project: ProjectOption = Path(), port: PortOption = 8001) -> None:
    """Serve the labelling page on this machine: keys 1 to 9, u unsure, c comment, z undo, arrows to go about.

    Each label is on the disk, in golden/RATER.csv, before the page says so.

    Example: `palate golden label --project my-feed --port 8001`
    """
    import uvicorn

    from palate.console.label_desk import Desk
    from palate.console.label_pages import create_label_app

    check_port(_HOST, port)
    with closing(Project(project)) as opened:
        picks = queue_to_label(opened)
        items = [pick.item_id for pick in picks]
        desk = Desk(opened.dataset, opened.attributes, items, golden_folder(opened), opened.folder)
        app = create_label_app(desk)
    server = uvicorn.Server(uvicorn.Config(app, host=_HOST, port=port, log_level="warning", access_log=False))
    typer.echo(f"{len(items)} items, {len(desk.attributes)} questions each", err=True)
    typer.echo(f"labelling  http://{_HOST}:{port}/console/label", err=True)
    typer.echo("Stop with Ctrl-C.", err=True)
    server.run()


def import_(
    file: Annotated[Path, typer.Argument(help="CSV, or a JSON export of Label Studio.")],
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Take labels of a CSV or of Label Studio into golden/, each rater's into their own file.

    Rows that fit no item, attribute or option are named and counted; the others are taken.

    Example: `palate golden import export.json --project my-feed`
    """
    with closing(Project(project)) as opened:
        done = import_labels(file, golden_folder(opened), opened.dataset.item_ids, opened.attributes)
    if as_json:
        typer.echo(json.dumps(asdict(done)))
        return
    typer.echo(f"{done.new} labels new, {done.changed} changed, {done.same} there already")
    for rater, path in done.raters.items():
        typer.echo(printable(f"{rater}: {path}"))
    for skip in done.skipped:
        typer.echo(printable(skip), err=True)


def export(
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    form: Annotated[str, typer.Option("--format", help="csv or label-studio.")] = "csv",
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write all golden labels to one file. Held-out labels are among them: the read is recorded.

    For Label Studio, a labelling interface is written beside it (.xml).

    Example: `palate golden export -o labels.json --format label-studio`
    """
    if form not in FORMATS:
        raise InputError("There is no such format.", where="--format", got=form, allowed=", ".join(FORMATS))
    with closing(Project(project)) as opened:
        text, n = exported(opened, form)
        skipped = [str(skip) for skip in opened.golden.skipped]
        replace_file(out, text.encode())
        if form == "label-studio":
            replace_file(out.with_suffix(".xml"), label_studio_config(opened.attributes).encode())
    if as_json:
        typer.echo(json.dumps({"file": str(out), "labels": n, "skipped": skipped}))
        return
    typer.echo(printable(f"{n} labels in {out}"))
    for skip in skipped:
        typer.echo(printable(skip), err=True)


def _shares(mix: str) -> dict[str, float]:
    try:
        return {part.strip(): float(share) for part, share in (each.split("=") for each in mix.split(","))}
    except ValueError as error:
        raise InputError("The mix cannot be read.", where="--mix", got=mix, allowed=_MIX) from error
