"""A project's exploration table by a provider's batch service: files out, answers in, one table beside the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from palate.errors import InputError
from palate.interests.next_batch import NextRequests, Read, table_of
from palate.interests.table import InterestTable, open_table, save_table
from palate.interests.tree import InterestTree
from palate.llm.provider_files import Exported, export_requests
from palate.llm.provider_results import Imported, import_results
from palate.project.project import Project

_FILE = "exploration.table"


def next_requests(project: Project, tree: InterestTree, model: str, *, ordered: bool, candidates: int) -> NextRequests:
    """A request for every pair of interests of the project's level.

    Raises:
        InputError: The tree has no such level, or names that no model can answer with.
    """
    nodes = tree.at_level(project.config.interests.level)
    if len(nodes) < 2:
        where, level = "palate.yaml, field interests.level", project.config.interests.level
        raise InputError("The tree has no such level.", where=where, got=level, allowed=f"1 to {tree.depth}")
    return NextRequests([node.title for node in nodes], model, ordered=ordered, candidates=candidates)


def export_next(project: Project, asked: NextRequests, folder: Path) -> Exported:
    """Files for the service: pairs that the ledger lacks."""
    return export_requests(asked.requests(), folder, project.ledger, asked.model)


def import_next(project: Project, asked: NextRequests, files: Sequence[Path]) -> tuple[Imported, Read, Path]:
    """Results into the ledger, and the table of all that the ledger has; the step `transitions` takes it from there.

    Raises:
        InputError: A file that cannot be read, or no answer at all.
        StorageError: The table cannot be written.
    """
    kept = import_results(files, asked, project.ledger)
    table, read = table_of(asked, project.ledger)
    path = project.state / _FILE
    save_table(table, path)
    return kept, read, path


def imported_table(project: Project) -> InterestTable | None:
    """What was imported last, if anything was.

    Raises:
        StorageError: It is damaged.
    """
    path = project.state / _FILE
    return open_table(path) if path.exists() else None
