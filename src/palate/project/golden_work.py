"""What people's labelling needs of a project: what sources said lately, the queue, and labels in and out."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from palate.data.dataset import FloatArray
from palate.errors import InputError
from palate.knowledge.golden_files import to_csv, to_label_studio
from palate.knowledge.golden_queue import Pick, extend_queue, read_queue
from palate.knowledge.golden_sample import Sampled, sample_golden
from palate.knowledge.golden_set import COLUMNS, OPTIONAL
from palate.knowledge.matrix import label_matrix
from palate.knowledge.rater_labels import Label
from palate.project.project import Project
from palate.project.steps import Steps

_LABELLING = ("recorded", "annotate", "distil")  # steps whose results hold labels


def latest_scores(project: Project) -> dict[str, FloatArray]:
    """What each source (model and way) said in the newest results that stand: nothing is asked or made for it."""
    steps = Steps(project.state / "steps")
    found = [artefact for artefact in (steps.latest(name) for name in _LABELLING) if artefact is not None]
    files = [file for artefact in found for file in sorted(artefact.folder.glob("*.parquet"))]
    ids, names = project.dataset.item_ids, [attribute.name for attribute in project.attributes]
    scores = {}
    for file in files:
        if file.stem == "label" or file.parent.name.startswith("distil-"):
            for (model, source), rows in pl.read_parquet(file).group_by("model", "source", maintain_order=True):
                scores[f"{model} ({source})"] = label_matrix(rows, ids, names)
    return scores


def queue_more(project: Project, n: int, mix: dict[str, float] | None, seed: int) -> Sampled:
    """Draw `n` items more into the queue of the golden folder."""
    folder, names = golden_folder(project), [attribute.name for attribute in project.attributes]
    queued, done = read_queue(folder), done_items(project)
    sampled = sample_golden(project.dataset, latest_scores(project), names, n, mix, seed, done, queued)
    extend_queue(folder, sampled.picks)
    return sampled


def done_items(project: Project) -> set[str]:
    """Items that somebody labelled in every attribute."""
    if not project.has_golden:
        return set()
    golden = project.golden
    wanted = {attribute.name for attribute in project.attributes}
    said: dict[str, set[str]] = {}
    for item_id, attribute in golden.answered:
        said.setdefault(item_id, set()).add(attribute)
    return {item_id for item_id, names in said.items() if names >= wanted}


def queue_to_label(project: Project) -> list[Pick]:
    """The items that people are asked about, in order.

    Raises:
        InputError: Nothing was queued yet.
    """
    folder = golden_folder(project)
    known = set(project.dataset.item_ids)
    picks = [pick for pick in read_queue(folder) if pick.ask and pick.item_id in known]
    if not picks:
        hint = "palate golden sample draws items worth labelling."
        raise InputError("No item of the catalogue is queued for labelling.", where=str(folder), hint=hint)
    return picks


def exported(project: Project, form: str) -> tuple[str, int]:
    """All labels of the golden set as a text, and how many: held-out ones too, and that is recorded."""
    golden = project.golden
    rows = pl.concat([golden.dev, golden.held_out("palate golden export")])
    labels = [Label(**row) for row in rows.select(*COLUMNS, *OPTIONAL).iter_rows(named=True)]
    if form == "csv":
        return to_csv(labels), len(labels)
    items = project.dataset.items.select("item_id", "title", text=pl.col("text").fill_null(""))
    shown = {row["item_id"]: row for row in items.iter_rows(named=True)}
    return to_label_studio(labels, shown), len(labels)


def golden_folder(project: Project) -> Path:
    return project.path(project.config.golden)
