"""`palate import`: knowledge that was answered elsewhere. `palate factors`: what an LLM is to be asked about by."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palate.cli.options import JsonOption, ProjectOption, open_run, say
from palate.errors import InputError
from palate.knowledge.factors import propose_factors, save_factors
from palate.knowledge.recorded import read_rows
from palate.knowledge.store import KnowledgeStore
from palate.project.project import Project


def add_to(app: typer.Typer) -> None:
    app.command("import")(import_knowledge)
    app.command("factors")(factors)


def import_knowledge(
    file: Annotated[Path, typer.Argument(help="JSONL: kind, entity, name, value or text, model, ...")],
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Add knowledge that was answered elsewhere, each row with its provenance. All rows or none.

    Example: `palate import answers.jsonl --project my-feed`
    """
    opened = Project(project)
    known = {*opened.dataset.item_ids, *opened.dataset.user_ids}
    store = KnowledgeStore(opened.state / "knowledge")
    tables = read_rows(file, known)
    parts = {kind: str(store.add(kind, table)) for kind, table in tables.items()}
    say({"rows": sum(table.height for table in tables.values()), **parts}, as_json)


def factors(
    scenario: Annotated[str, typer.Argument(help='What is recommended, in the plural: "films".')],
    thing: Annotated[str, typer.Option(help='One of it: "film".')] = "item",
    out: Annotated[Path, typer.Option("--out", "-o", help="The YAML file to write.")] = Path("factors.yaml"),
    examples: Annotated[int, typer.Option(min=1, help="Titles shown, those met most.")] = 30,
    n: Annotated[int, typer.Option("--n", min=1, max=20, help="The most factors.")] = 6,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite an earlier file.")] = False,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Let the LLM propose the factors by which it will be asked about people and items; read the file and edit it.

    A small model proposes poorly: `films` and `goods` are packaged as patterns.
    Example: `palate factors films --thing film`, then `palate recipe run kar --set factors=factors.yaml`
    """
    if out.exists() and not replace:
        raise InputError("There are factors already.", where=str(out), hint="Edit them, or give --replace.")
    with open_run(project, as_json) as run:
        dataset = run.project.dataset
        most = (-dataset.item_counts).argsort(kind="stable")[:examples].tolist()
        titles = [str(title) for title in dataset.items["title"].gather(most).to_list() if title]
        found = propose_factors(run.asking("factors"), scenario, titles, thing, n)
    save_factors(found, out)
    say({"file": str(out), **{factor.name: factor.words for factor in found.factors}}, as_json)
