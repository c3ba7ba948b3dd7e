"""`palate golden`: what people say about items, and who agrees with them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from palate.cli.golden_people import add_commands
from palate.cli.options import JsonOption, ProjectOption, open_run
from palate.console.words import interval, plain
from palate.errors import printable

group = typer.Typer(invoke_without_command=True)
add_commands(group)
_FIGURES = ("auc", "precision", "recall", "f1", "kappa")


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, name="golden")


@group.callback()
def golden(context: typer.Context, project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Is the LLM as good as a person, for which attribute, how sure: every source of labels against golden/*.csv.

    AUC, precision, recall, F1 and kappa on the held-out half; where several people rated: Krippendorff's alpha, the
    agreement of people as the ceiling, the alternative-annotator test; how many items truly have each attribute.

    Example: `palate golden --project palate-demo`
    """
    if context.invoked_subcommand is not None:
        return
    with open_run(project, as_json) as run:
        made = run.golden
    report = json.loads((made.folder / "agreement.json").read_text())
    report["left_out"] = made.detail["skipped"]
    if as_json:
        typer.echo(json.dumps(plain(report)))
        return
    console = Console()
    console.print(_line(report["verdict"], "bold"))
    for part in report["attributes"]:
        console.print(_line(part["verdict"]))
    for table in (_sources(report["rows"]), _people(report["attributes"]), _prevalence(report["attributes"])):
        if table.row_count:
            console.print(table)
    for words in _left_out(report):
        console.print(_line(words, "dim"))


def _line(words: str, style: str = "") -> Text:
    return Text(printable(words, 2000), style=style)


def _cells(*cells: object) -> list[Text]:
    return [Text(printable(cell)) for cell in cells]


def _spread(found: Mapping[str, Any] | None) -> str:
    return "–" if found is None else interval(found["mean"], found["low"], found["high"], 2)


def _sources(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("attribute", "source", "n", "yes", *_FIGURES, box=None, title="Sources against people, held out")
    for row in rows:
        figures = [interval(row[name], row[f"{name}_low"], row[f"{name}_high"], 2) for name in _FIGURES]
        table.add_row(*_cells(row["attribute"], row["source"], row["n"], row["positives"], *figures))
    return table


def _people(parts: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("alpha of people", "with source", "people's F1", "source's F1", "raters won", "p of each", "advantage")
    table = Table("attribute", "source", *columns, box=None, title="Sources in a person's place, held out")
    for part in parts:
        for name, source in part["sources"].items():
            if "ceiling" not in source:
                continue
            ceiling, test = source["ceiling"], source.get("test")
            won = p_values = advantage = "–"
            if test is not None:
                won = f"{test['winning_rate']:.0%}{', passed' if test['passed'] else ''}"
                p_values = ", ".join(f"{rater} {p:.3f}" for rater, p in test["p_values"].items())
                advantage = f"{test['advantage_probability']:.2f}"
            alphas = (_spread(source["alpha_people"]), _spread(source["alpha_with"]))
            f1 = (_spread(ceiling["people_f1"]), _spread(ceiling["model_f1"]))
            table.add_row(*_cells(part["attribute"], name, *alphas, *f1, won, p_values, advantage))
    return table


def _prevalence(parts: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("items judged", "by people alone", "source", "the source's own share", "corrected by people")
    drawn = all(part["prevalence"]["drawn_at_random"] for part in parts)
    sure = "" if drawn else ", if the judged items are a random sample (palate golden sample draws one)"
    table = Table("attribute", *columns, box=None, title=f"Share of all items that have it{sure}")
    for part in parts:
        found = part["prevalence"]
        for name, source in found["sources"].items():
            shares = (f"{source['naive']:.2f}", _spread(source["corrected"]))
            table.add_row(*_cells(part["attribute"], found["n"], _spread(found["people"]), name, *shares))
    return table


def _left_out(report: Mapping[str, Any]) -> list[str]:
    """What was skipped, and why; what is said of several attributes is said once."""
    said: dict[str, list[str]] = {}
    for part in report["attributes"]:
        own = [*part["skipped"], *(f"prevalence: {why}" for why in part["prevalence"]["skipped"])]
        own += [f"{name}: {why}" for name, source in part["sources"].items() for why in source["skipped"]]
        for why in own:
            said.setdefault(why, []).append(part["attribute"])
    return [*report["left_out"], *(f"not measured: {why} ({', '.join(names)})" for why, names in said.items())]
