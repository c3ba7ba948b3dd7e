"""`palate import`: knowledge that was answered elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palate.cli.options import JsonOption, ProjectOption, say
from palate.knowledge.recorded import read_rows
from palate.knowledge.store import KnowledgeStore
from palate.project.project import Project


def add_to(app: typer.Typer) -> None:
    app.command("import")(import_knowledge)


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
