"""`palate interests`: the tree and its transitions."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import typer
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from palate.cli.options import JsonOption, ProjectOption, open_run, say
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


@group.command()
def transitions(project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Ask the LLM for the next new interest after every pair of interests of one level.

    Example: `palate interests transitions --project palate-demo`
    """
    with open_run(project, as_json) as run:
        made = run.transitions
    path = made.folder / "transitions.parquet"
    say({"table": str(path), "rows": pl.read_parquet(path).height, **made.detail}, as_json)
