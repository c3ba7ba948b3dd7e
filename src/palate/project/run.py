"""The main job: every step in order, then the snapshot and the report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from palate.knowledge.matrix import filled, label_matrix
from palate.knowledge.store import KnowledgeStore
from palate.knowledge.tables import Knowledge
from palate.project.knowledge_steps import KnowledgeSteps, read_kind
from palate.project.model_steps import ModelSteps, tree_of
from palate.project.progress import Bars
from palate.project.project import Project
from palate.project.steps import Artefact, Detail, Steps
from palate.serving.snapshot import SnapshotParts, build_snapshot, use


@dataclass(frozen=True)
class Made:
    """The artefacts of a whole run."""

    vectors: Artefact
    recorded: Artefact | None
    annotate: Artefact
    distil: Artefact
    golden: Artefact
    interests: Artefact
    transitions: Artefact
    models: Artefact
    controls: Artefact
    snapshot: Artefact


class Run:
    """All steps of a project. What has not changed since the last run is kept."""

    def __init__(self, project: Project, bars: Bars) -> None:
        self.project = project
        self.steps = Steps(project.state / "steps", bars.step)
        self.asking = KnowledgeSteps(project, self.steps, bars)
        self.using = ModelSteps(self.asking)

    def all(self) -> Made:
        recorded = self.asking.recorded()
        vectors = self.asking.vectors()
        annotated = self.asking.annotate(recorded)
        teachers = [annotated] if recorded is None else [recorded, annotated]
        distilled = self.asking.distil(vectors, teachers)
        golden = self.asking.golden(vectors, self.label_sources(recorded, annotated, distilled))
        interests = self.using.interests(vectors, recorded)
        transitions = self.using.transitions(interests)
        models = self.using.compare()
        controls = self.using.worth(vectors, *self._kinds(teachers, distilled))
        parts = (vectors, recorded, annotated, distilled, golden, interests, transitions, models, controls)
        snapshot = self._snapshot(*parts)
        self.steps.sweep()
        return Made(*parts, snapshot)

    def label_sources(self, recorded: Artefact | None, annotated: Artefact, distilled: Artefact) -> dict[str, Path]:
        """Who labelled, in the order of the report: each teacher and its student."""
        sources = {}
        for teacher in (recorded, annotated):
            if teacher is not None:
                name = self._teacher(teacher)
                sources[name] = teacher.folder / "label.parquet"
                sources[f"student of {name}"] = distilled.folder / f"{teacher.name}.parquet"
        return sources

    def _teacher(self, artefact: Artefact) -> str:
        if artefact.name == "recorded":
            return f"{artefact.detail['model']}, recorded"
        return f"{self.project.engine.model}, asked here"

    def _kinds(
        self, teachers: list[Artefact], distilled: Artefact
    ) -> tuple[dict[str, list[Path]], dict[str, int | None]]:
        """Label files of each teacher with its student behind it, and the tokens they cost (None: unknown)."""
        kinds, tokens = {}, {}
        for teacher in teachers:
            name = f"labels of {self._teacher(teacher)}"
            kinds[name] = [teacher.folder / "label.parquet", distilled.folder / f"{teacher.name}.parquet"]
            tokens[name] = self.tokens("annotate") if teacher.name == "annotate" else None
        return kinds, tokens

    def tokens(self, purpose: str) -> int:
        totals = [row for row in self.project.ledger.totals() if row["purpose"] == purpose]
        return sum(row["tokens_in"] + row["tokens_out"] for row in totals)

    def _snapshot(
        self,
        vectors: Artefact,
        recorded: Artefact | None,
        annotated: Artefact,
        distilled: Artefact,
        golden: Artefact,
        interests: Artefact,
        transitions: Artefact,
        models: Artefact,
        controls: Artefact,
    ) -> Artefact:
        folder = self.project.state / "snapshots"
        best = recorded or annotated

        def make(step: Path) -> Detail:
            knowledge = self._knowledge(recorded, annotated, distilled)
            attributes, labelled_by = self._attributes(best, distilled)
            project, dataset = self.project, self.project.dataset
            path = build_snapshot(
                folder,
                SnapshotParts(
                    items=dataset.items,
                    item_vectors=np.load(models.folder / "item_vectors.npy"),
                    tree=tree_of(interests),
                    popularity=dataset.item_counts,
                    histories=dataset.histories,
                    user_ids=dataset.user_ids,
                    attributes=attributes,
                    thresholds={name: _threshold(values) for name, values in attributes.items()},
                    attribute_models=dict.fromkeys(attributes, labelled_by),
                    transitions=pl.read_parquet(transitions.folder / "transitions.parquet"),
                    explore_level=project.config.interests.level,
                    knowledge=knowledge,
                    encoder=models.folder / "encoder.onnx",
                    max_length=json.loads((models.folder / "length.json").read_text()),
                    models={"sequence": "sasrec", "transitions": project.engine.model, "attributes": labelled_by},
                    verb=project.config.verb,
                    run=self.run_facts(models),
                ),
            )
            use(folder, path.name)
            (step / "name").write_text(path.name)
            return {"name": path.name, "megabytes": sum(f.stat().st_size for f in path.iterdir()) / 1e6}

        used = [vectors, recorded, annotated, distilled, interests, transitions, models, controls]
        inputs = {"made": [artefact and artefact.key for artefact in used], "verb": self.project.config.verb}
        artefact = self.steps.run("snapshot", inputs, make)
        use(folder, artefact.detail["name"])
        return artefact

    def _knowledge(self, recorded: Artefact | None, annotated: Artefact, distilled: Artefact) -> Knowledge:
        """Everything that was answered, put into the store and read back."""
        store = KnowledgeStore(self.project.state / "knowledge")
        for kind in ("label", "tag", "fact", "profile"):
            for artefact in (recorded, annotated):
                rows = read_kind(artefact, kind)
                if rows.height:
                    store.add(kind, rows)
        for student in sorted(distilled.folder.glob("*.parquet")):
            store.add("label", pl.read_parquet(student))
        return store.load()

    def _attributes(self, teacher: Artefact, distilled: Artefact) -> tuple[dict[str, Any], str]:
        ids, names = self.project.dataset.item_ids, [attribute.name for attribute in self.project.attributes]
        tables = [teacher.folder / "label.parquet", distilled.folder / f"{teacher.name}.parquet"]
        matrix = filled(*[label_matrix(pl.read_parquet(path), ids, names) for path in tables])
        labelled_by = f"{self._teacher(teacher)}; its student where it was not asked"
        known = {name: matrix[:, k] for k, name in enumerate(names) if not np.isnan(matrix[:, k]).any()}
        return known, labelled_by

    def run_facts(self, models: Artefact) -> dict[str, Any]:
        """What the console's overview shows."""
        totals = self.project.ledger.totals()
        steps = [{"name": a.name, "seconds": a.seconds, "state": a.state, "detail": a.detail} for a in self.steps.made]
        return {
            "steps": steps,
            "calls": sum(row["calls"] for row in totals),
            "tokens_in": sum(row["tokens_in"] for row in totals),
            "tokens_out": sum(row["tokens_out"] for row in totals),
            "cost": sum(row["cost"] for row in totals),
            "models": sorted({row["model"] for row in totals}),
            "report": {"comparison": json.loads((models.folder / "comparison.json").read_text())},
        }


def _threshold(values: Any) -> float:
    """As many items have the attribute as the mean of their probabilities says: a student's are rarely above 0.5."""
    return float(np.quantile(values, 1 - float(np.mean(values))))
