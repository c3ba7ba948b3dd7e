"""The main job: every step in order, then the snapshot and the report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from palate.errors import InputError, PalateError
from palate.knowledge.as_of import newest
from palate.knowledge.matrix import filled, label_matrix
from palate.knowledge.store import KnowledgeStore
from palate.knowledge.tables import Knowledge
from palate.llm.asking import LedgeredLLM
from palate.llm.plan import Plan
from palate.project.knowledge_steps import KnowledgeSteps, read_kind
from palate.project.lock import alone
from palate.project.model_steps import ModelSteps, tree_of
from palate.project.progress import Bars
from palate.project.project import Project
from palate.project.ranker_step import train_ranker
from palate.project.steps import Artefact, Detail, Steps
from palate.project.visits import Visits
from palate.serving.load import load_snapshot
from palate.serving.snapshot import FORMAT, SnapshotParts, build_snapshot
from palate.serving.versions import use

STEPS = (
    "recorded",
    "vectors",
    "annotate",
    "distil",
    "golden",
    "interests",
    "transitions",
    "models",
    "ranker",
    "controls",
    "snapshot",
)
_SERVED = ("vectors", "recorded", "annotate", "distil", "tree", "transitions", "models", "ranker", "controls")


class Run:
    """The steps of a project, each a property that makes what it reads first. What has not changed is kept."""

    def __init__(self, project: Project, bars: Bars) -> None:
        self.project, self.bars = project, bars
        self.steps = Steps(project.state / "steps", bars.step)
        self._asking = KnowledgeSteps(project, self.steps, bars)
        self._using = ModelSteps(self._asking)

    def all(self) -> Run:
        """Make every step, and remove what older settings left.

        Raises:
            PalateError: Another process does so now; retryable.
        """
        with alone(self.project.state / "run.lock", "A run of this project"):  # or one sweeps away the other's work
            self.some(STEPS)
            self.steps.sweep()
        return self

    def some(self, steps: Sequence[str]) -> list[Artefact]:
        """Make these steps and what they read.

        Raises:
            InputError: An unknown step.
        """
        unknown = sorted(set(steps) - set(STEPS))
        if unknown:
            raise InputError("There is no such step.", got=", ".join(unknown), allowed=", ".join(STEPS))
        return [made for made in (getattr(self, step) for step in steps) if made is not None]

    def asking(self, what: str) -> LedgeredLLM:
        """The project's LLM with a bar called `what`."""
        return self._asking.llm(what)

    @property
    def sampled(self) -> list[str]:
        """Items that annotation asks about by itself."""
        return self._asking.sample(self.recorded).item_ids

    def plan(self) -> Plan:
        """What annotation would ask; nothing is asked."""
        return self._asking.plan(self.recorded)

    @cached_property
    def recorded(self) -> Artefact | None:
        return self._asking.recorded()

    @cached_property
    def vectors(self) -> Artefact:
        return self._asking.vectors()

    @cached_property
    def annotate(self) -> Artefact:
        return self._asking.annotate(self.recorded)

    @cached_property
    def distil(self) -> Artefact:
        return self._asking.distil(self.vectors, self.teachers)

    @cached_property
    def golden(self) -> Artefact:
        return self._asking.golden(self.vectors, self._label_sources())

    @cached_property
    def interests(self) -> Artefact:
        return self._using.interests(self.vectors, self.recorded)

    @cached_property
    def names(self) -> Artefact:
        return self._using.names(self.interests, self.vectors, self.recorded)

    @cached_property
    def transitions(self) -> Artefact:
        return self._using.transitions(self.tree)

    @property
    def tree(self) -> Artefact:
        """Whose `tree.json` is served: that with the titles that `interests.titles` asks for."""
        return self.names if self.project.config.interests.titles == "judged" else self.interests

    @cached_property
    def models(self) -> Artefact:
        return self._using.compare()

    @cached_property
    def ranker(self) -> Artefact | None:
        """`ranker.onnx`, where `palate.yaml` asks for one."""
        params = self.project.config.ranker
        if params is None:
            return None
        (attributes, _), tree, models = self._attributes(), tree_of(self.tree), self.models.folder
        made = [self.models.key, self.tree.key, *(each.key for each in self.teachers), self.distil.key]
        return self.steps.run(
            "ranker",
            {"made": made, "params": params},
            lambda folder: train_ranker(self.project, models, tree, attributes, params, folder),
        )

    @cached_property
    def controls(self) -> Artefact:
        return self._using.worth(self.vectors, *self._kinds())

    @cached_property
    def snapshot(self) -> Artefact:
        folder = self.project.state / "snapshots"
        inputs: dict[str, Any] = {
            "made": [made and made.key for made in (getattr(self, step) for step in _SERVED)],
            "verb": self.project.config.verb,
            "format": FORMAT,
        }
        if profiles := Visits(self.project).profiles_key:
            inputs["profiles"] = profiles
        artefact = self.steps.run("snapshot", inputs, self._make_snapshot)
        try:
            use(folder, artefact.detail["name"], load_snapshot)
        except PalateError:
            if artefact.state == "made":
                raise
            # Kept, but pruned or damaged since: it is made again.
            shutil.rmtree(folder / artefact.detail["name"], ignore_errors=True)
            shutil.rmtree(artefact.folder)
            artefact = self.steps.run("snapshot", inputs, self._make_snapshot)
            use(folder, artefact.detail["name"], load_snapshot)
        return artefact

    @property
    def teachers(self) -> list[Artefact]:
        """Who labelled items, the strongest first."""
        return [self.annotate] if self.recorded is None else [self.recorded, self.annotate]

    def _label_sources(self) -> dict[str, Path]:
        """Label files in the order of the report: each teacher and its student."""
        sources = {}
        for teacher in self.teachers:
            name = self._teacher(teacher)
            sources[name] = teacher.folder / "label.parquet"
            sources[f"student of {name}"] = self.distil.folder / f"{teacher.name}.parquet"
        return sources

    def _teacher(self, artefact: Artefact) -> str:
        if artefact.name == "recorded":
            return f"{artefact.detail['model']}, recorded"
        return f"{self.project.engine.model}, asked here"

    def _kinds(self) -> tuple[dict[str, list[Path]], dict[str, int | None]]:
        """Label files of each teacher with its student behind it, and the tokens they cost (None: unknown)."""
        kinds, tokens = {}, {}
        for teacher in self.teachers:
            name = f"labels of {self._teacher(teacher)}"
            kinds[name] = [teacher.folder / "label.parquet", self.distil.folder / f"{teacher.name}.parquet"]
            tokens[name] = self.tokens("annotate") if teacher.name == "annotate" else None
        return kinds, tokens

    def tokens(self, purpose: str) -> int:
        totals = [row for row in self.project.ledger.totals() if row["purpose"] == purpose]
        return sum(row["tokens_in"] + row["tokens_out"] for row in totals)

    def _make_snapshot(self, step: Path) -> Detail:
        project, dataset, models = self.project, self.project.dataset, self.models.folder
        attributes, labelled_by = self._attributes()
        parts = SnapshotParts(
            items=dataset.items,
            item_vectors=np.load(models / "item_vectors.npy"),
            tree=tree_of(self.tree),
            popularity=dataset.item_counts,
            histories=dataset.histories,
            user_ids=dataset.user_ids,
            attributes=attributes,
            thresholds={name: _threshold(values) for name, values in attributes.items()},
            attribute_models=dict.fromkeys(attributes, labelled_by),
            transitions=pl.read_parquet(self.transitions.folder / "transitions.parquet"),
            explore_level=project.config.interests.level,
            knowledge=self._knowledge(),
            encoder=models / "encoder.onnx",
            text_vectors=np.load(self.vectors.folder / "vectors.npy"),
            text_encoder=project.encoder.name,
            ranker=None if self.ranker is None else self.ranker.folder / "ranker.onnx",
            max_length=json.loads((models / "length.json").read_text()),
            models={"sequence": "sasrec", "transitions": project.engine.model, "attributes": labelled_by},
            verb=project.config.verb,
            run=self._run_facts(),
        )
        path = build_snapshot(project.state / "snapshots", parts)
        (step / "name").write_text(path.name)
        return {"name": path.name, "megabytes": sum(f.stat().st_size for f in path.iterdir()) / 1e6}

    def _knowledge(self) -> Knowledge:
        """Everything that was answered, put into the store and read back; of a user's profiles the newest."""
        store = KnowledgeStore(self.project.state / "knowledge")
        for kind in ("label", "tag", "fact", "profile"):
            for artefact in (self.recorded, self.annotate):
                rows = read_kind(artefact, kind)
                if rows.height:
                    store.add(kind, rows)
        for student in sorted(self.distil.folder.glob("*.parquet")):
            store.add("label", pl.read_parquet(student))
        known = store.load()
        profiles = newest(pl.concat([known.table("profile"), Visits(self.project).profiles]))
        return Knowledge({**known.tables, "profile": profiles})

    def _attributes(self) -> tuple[dict[str, Any], str]:
        """Of the strongest teacher, its student where it was not asked."""
        teacher = self.teachers[0]
        ids, names = self.project.dataset.item_ids, [attribute.name for attribute in self.project.attributes]
        tables = [teacher.folder / "label.parquet", self.distil.folder / f"{teacher.name}.parquet"]
        matrix = filled(*[label_matrix(pl.read_parquet(path), ids, names) for path in tables])
        labelled_by = f"{self._teacher(teacher)}; its student where it was not asked"
        known = {name: matrix[:, k] for k, name in enumerate(names) if not np.isnan(matrix[:, k]).any()}
        return known, labelled_by

    def _run_facts(self) -> dict[str, Any]:
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
            "report": {"comparison": json.loads((self.models.folder / "comparison.json").read_text())},
        }


def _threshold(values: Any) -> float:
    """As many items have the attribute as the mean of their probabilities says: a student's are rarely above 0.5."""
    return float(np.quantile(values, 1 - float(np.mean(values))))
