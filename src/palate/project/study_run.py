"""Opens a folder of data as a `Study` for a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from palate.data.folder import read_folder, read_labels
from palate.errors import InputError
from palate.experiments.study import Progress, Study
from palate.knowledge.attributes import load_attributes
from palate.knowledge.recorded import read_recorded, read_rows
from palate.knowledge.tables import Knowledge
from palate.llm.asking import LedgeredLLM
from palate.llm.budget import Budget
from palate.llm.encoders import CachedEncoder, MiniLMEncoder
from palate.llm.ledger import Ledger
from palate.llm.request import Engine


@dataclass(frozen=True)
class Sources:
    """What is read beside the data; `recorded` is a folder of answers or a .jsonl file, answered by `model`."""

    data: Path
    attributes: Path | None = None
    recorded: Path | None = None
    model: str = "recorded"


def open_study(
    sources: Sources,
    workspace: Path,
    engine: Engine,
    ledger: Ledger,
    budget: Budget,
    *,
    seeds: int = 3,
    settings: Mapping[str, str] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Study:
    """Everything a recipe reads.

    Raises:
        InputError: A file that is missing or does not fit, named.
    """
    if not sources.data.is_dir():
        raise InputError("There is no such folder of data.", where=str(sources.data))
    workspace.mkdir(parents=True, exist_ok=True)
    dataset = read_folder(sources.data)
    known = {*dataset.item_ids, *dataset.user_ids}
    recorded = sources.recorded
    if recorded is None and (sources.data / "answers").is_dir():
        recorded = sources.data / "answers"
    tables = {}
    if recorded is not None:
        tables = read_rows(recorded, known) if recorded.is_file() else read_recorded(recorded, sources.model)
    return Study(
        dataset=dataset,
        llm=LedgeredLLM(engine, ledger, budget, lambda done, total: progress("language model", done, total)),
        encoder=CachedEncoder(MiniLMEncoder(), ledger, lambda done, total: progress("vectors", done, total)),
        workspace=workspace,
        labels=read_labels(sources.data),
        attributes=tuple(load_attributes(sources.attributes)) if sources.attributes else (),
        recorded=Knowledge(tables),
        seeds=seeds,
        settings=dict(settings or {}),
        progress=progress,
    )
