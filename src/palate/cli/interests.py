"""`palate interests`: the tree and its transitions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from palate.cli.options import JsonOption, ProjectOption, open_run, say
from palate.project.interest_files import export_next, import_next, next_requests
from palate.project.model_steps import tree_of

group = typer.Typer(no_args_is_help=True, help="The interest tree, its names and its transitions.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, name="interests")


@group.command()
def build(project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Cluster the items into a tree balanced by traffic and name every node.

    Example: `palate interests build --project palate-demo`
    """
    with open_run(project, as_json) as run:
        made = run.interests
    if as_json:
        say({"tree": str(made.folder / "tree.json"), **made.detail}, as_json)
        return
    tree = tree_of(made)
    shown = {0: Tree("everything")}
    for node in tree.nodes[1:]:
        branch = shown[node.parent or 0]
        shown[node.node] = branch.add(f"{node.node} {escape(node.title)} [dim]({node.stop - node.start} items)[/dim]")
    Console().print(shown[0])
    said = made.detail["vectors"]
    Console().print(f"Vectors of {', '.join(said['parts'])}; nearest neighbours kept: {said['neighbours kept']:.0%}")
    for part, why in said["left out"].items():
        Console().print(f"Not used: {escape(part)} ({escape(why)})")
    if "moved" in made.detail:
        Console().print("Since the tree before:")
        say(made.detail["moved"], as_json)


@group.command()
def name(project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Ask the LLM for a title of every interest, and judge titles and keywords by held-out items.

    An item goes to the sibling whose name is nearest to its text. Half of the held-out items choose, the others report.

    Example: `palate interests name --project palate-demo`
    """
    with open_run(project, as_json) as run:
        made = run.names
    found = json.loads((made.folder / "names.json").read_text())
    if as_json:
        say({"tree": str(made.folder / "tree.json"), **made.detail, **found}, as_json)
        return
    table = Table("names", "level", "to the right sibling", "chance", "against keywords", box=None)
    for each in found["judged"]:
        told, gain = each["told"], each["gain"]
        against = "" if gain is None else f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
        right = "{mean:.3f} [{low:.3f}, {high:.3f}]".format(**told["right"])
        table.add_row(told["names"], str(told["level"]), escape(right), f"{told['chance']:.3f}", escape(against))
    Console().print(table)
    for kind, outcomes in found["outcomes"].items():
        Console().print(f"{kind}: " + ", ".join(f"{count} {what}" for what, count in outcomes.items()))
    Console().print(f"Chosen: {made.detail['chosen']}. The tree with these names: {escape(str(made.folder))}/tree.json")


@group.command()
def transitions(project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Ask the LLM for the next new interest after every pair of interests of one level.

    Example: `palate interests transitions --project palate-demo`
    """
    with open_run(project, as_json) as run:
        made = run.transitions
    path = made.folder / "transitions.parquet"
    say({"table": str(path), "rows": pl.read_parquet(path).height, **made.detail}, as_json)


ModelName = Annotated[str, typer.Option("--model", help="Model of the batch service.")]
Ordered = Annotated[bool, typer.Option("--ordered", help="Ask about a, b and b, a alike, and about single interests.")]
Candidates = Annotated[int, typer.Option("--candidates", min=1, help="Next interests wanted of each answer.")]


@group.command()
def export(
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the files.")],
    model: ModelName,
    ordered: Ordered = False,
    candidates: Candidates = 5,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write a question about every pair of interests as files for a provider's batch service.

    Example: `palate interests export --model my-tuned-model -o batch`
    """
    with open_run(project, as_json) as run:
        tree = tree_of(run.tree)
        asked = next_requests(run.project, tree, model, ordered=ordered, candidates=candidates)
        done = export_next(run.project, asked, out)
    say({"requests": done.requests, "not_to_be_asked": done.spared, "files": [str(f) for f in done.files]}, as_json)


@group.command("import")
def import_answers(
    results: Annotated[list[Path], typer.Argument(help="Result and error files of the service, in any order.")],
    model: ModelName,
    ordered: Ordered = False,
    candidates: Candidates = 5,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Keep a batch service's answers and make the exploration table of them, with the options of the export.

    The step `transitions` then takes the table instead of asking. Exit code 1 if answers failed or are missing, 2 if
    there were bad lines.

    Example: `palate interests import results.jsonl --model my-tuned-model`
    """
    with open_run(project, as_json) as run:
        tree = tree_of(run.tree)
        asked = next_requests(run.project, tree, model, ordered=ordered, candidates=candidates)
        kept, read, path = import_next(run.project, asked, results)
    facts = {"kept": kept.kept, "known": kept.known, "failed": kept.failed, "missing": kept.missing}
    facts["unknown"] = kept.unknown
    say({"table": str(path), **facts, "match_rate": read.match_rate, "no_names": read.strange}, as_json)
    for line in kept.bad:
        typer.echo(line, err=True)
    raise typer.Exit(2 if kept.bad else 1 if kept.failed or kept.missing else 0)
