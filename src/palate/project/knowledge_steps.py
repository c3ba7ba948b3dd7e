"""Steps that make knowledge: vectors, annotation, import, students, and how all agree with people."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from palate.data.dataset import Dataset, FloatArray, IntArray
from palate.knowledge.agreement_report import Golden, agreement_report
from palate.knowledge.annotate import (
    Tally,
    annotate,
    item_text,
    questions,
    reading_requests,
    requests_of,
    sample_items,
)
from palate.knowledge.blocks import item_blocks
from palate.knowledge.calibrated import calibrated_labels
from palate.knowledge.distil import distil
from palate.knowledge.golden_queue import random_part
from palate.knowledge.jury import empanel, jury
from palate.knowledge.matrix import label_matrix
from palate.knowledge.recorded import read_recorded, read_rows
from palate.knowledge.shots import Shots
from palate.knowledge.store import in_schema, write_parquet
from palate.knowledge.tables import SCHEMA
from palate.llm.asking import LedgeredLLM
from palate.llm.encoders import CachedEncoder
from palate.llm.plan import Plan, plan
from palate.llm.ray_asking import RayLLM
from palate.project.media import media_detail, media_key, media_of
from palate.project.progress import Bars
from palate.project.project import Project
from palate.project.steps import Artefact, Detail, Steps, file_digest
from palate.project.visits import Visits

ZERO_SHOT = "sentence vector, zero-shot"
SAMPLE = "sample.json"


@dataclass(frozen=True)
class Sample:
    """The items that the LLM reads for the project's students."""

    seed: int
    item_ids: list[str]

    @property
    def facts(self) -> dict[str, Any]:
        return vars(self)

    def nums(self, dataset: Dataset) -> IntArray:
        """Of those that are still there."""
        known = dataset.item_nums
        return np.array([known[item_id] for item_id in self.item_ids if item_id in known], dtype=np.int32)


class KnowledgeSteps:
    """Each method is one step; its inputs are what its result depends on."""

    def __init__(self, project: Project, steps: Steps, bars: Bars) -> None:
        self.project, self.steps, self.bars = project, steps, bars

    def llm(self, what: str) -> LedgeredLLM:
        bar, project = self.bars.bar(what, "questions"), self.project
        if project.workers is None:
            return LedgeredLLM(project.engine, project.ledger, project.budget, bar)
        return RayLLM(project.engine, project.ledger, project.budget, project.make_engine, project.workers, bar)

    def vectors(self) -> Artefact:
        """`vectors.npy` [n_items, d]: the items' texts, encoded."""

        def make(folder: Path) -> Detail:
            dataset = self.project.dataset
            encoder = CachedEncoder(self.project.encoder, self.project.ledger, self.bars.bar("vectors", "texts"))
            texts = [item_text(dataset, num) for num in range(dataset.n_items)]
            np.save(folder / "vectors.npy", encoder.encode(texts))
            return {"texts": len(texts), "encoded": encoder.encoded, "encoder": encoder.name}

        inputs = {"items": self.project.items_key, "encoder": self.project.encoder.name}
        return self.steps.run("vectors", inputs, make)

    def annotate(self, recorded: Artefact | None) -> Artefact:
        """The LLM's own answers about a budgeted sample of items, and what visits asked since.

        `label.parquet`; `jurors.parquet` if there is a jury; `calibration.json` if people labelled some items.
        """
        project, config, visits = self.project, self.project.config.annotate, Visits(self.project)

        def make(folder: Path) -> Detail:
            llm, tally = self.llm("annotate"), Tally()
            media = media_of(project, items, self.bars.bar("media", "items"))
            manner = {**self._manner(), "media": media, "tally": tally}
            ask = partial(annotate, project.dataset, items, project.attributes, llm, **manner)
            labels = ask()
            if config.jury > 1:
                jurors = empanel([labels, *(ask(juror=juror) for juror in range(1, config.jury))])
                write_parquet(in_schema("label", jurors), folder / "jurors.parquet")
                labels = jury(jurors)
            labels = pl.concat([in_schema("label", labels), visits.holding()])
            labels = labels.unique(["entity", "name"], keep="last", maintain_order=True)
            if project.has_golden and config.calibrate != "none":
                dev, ids = project.golden.dev, project.dataset.item_ids
                labels, reports = calibrated_labels(labels, dev, ids, project.attributes, config.calibrate)
                (folder / "calibration.json").write_text(json.dumps(reports))
            write_parquet(in_schema("label", labels), folder / "label.parquet")
            (folder / SAMPLE).write_text(json.dumps(sample.facts))
            facts = {**tally.facts(), **vars(llm.spent), **media_detail(project, media)}
            return {"items": len(items), "labels": labels.height, **facts}

        sample = self.sample(recorded)
        items = sample.nums(project.dataset)
        inputs = {
            "items": project.items_key,
            "sample": sample.facts,
            "attributes": project.attribute_facts,
            "model": project.engine.model,
            "config": config.model_dump(),
            "salt": hashlib.sha256(project.salt.encode()).hexdigest(),
            "golden": self._golden_key(),
            "recorded": recorded and recorded.key,
            "visits": visits.key,
            **media_key(project, items),
        }
        return self.steps.run("annotate", inputs, make)

    def plan(self, recorded: Artefact | None) -> Plan:
        """What `annotate` would ask that the ledger does not hold; questions as if the readings had found nothing."""
        project, config = self.project, self.project.config
        items = self.sample(recorded).nums(project.dataset)
        media = media_of(project, items)
        read = reading_requests(project.dataset, items, project.attributes, config.annotate, project.salt, media)
        asked = [*read.values()]
        for juror in range(config.annotate.jury):
            put = questions(project.dataset, items, project.attributes, **self._manner(), juror=juror, media=media)
            asked += requests_of(put)
        model = project.engine.model
        return plan(asked, project.ledger, model, project.prices(model), concurrency=config.llm.concurrency)

    def _manner(self) -> dict[str, Any]:
        """How `annotate` and `questions` put things."""
        config, salt = self.project.config.annotate, self.project.salt
        return {"config": config, "salt": salt, "shots": self._shots() if config.examples else None}

    def _shots(self) -> Shots | None:
        if not self.project.has_golden:
            return None
        dataset = self.project.dataset
        vectors = np.load(self.vectors().folder / "vectors.npy")
        return Shots(self.project.golden.dev, vectors, dataset.item_ids, partial(item_text, dataset))

    def recorded(self) -> Artefact | None:
        """`<kind>.parquet` for each kind of knowledge that was recorded elsewhere."""
        section = self.project.config.recorded
        if section is None:
            return None
        path = self.project.path(section.folder)

        def make(folder: Path) -> Detail:
            data = (self.project.own_data, self.project.dataset)  # answers about what is deleted stay answers
            known = {entity for one in data for entity in (*one.item_ids, *one.user_ids)}
            tables = read_rows(path, known) if path.is_file() else read_recorded(path, section.model)
            for kind, table in tables.items():
                write_parquet(table, folder / f"{kind}.parquet")
            return {kind: table.height for kind, table in tables.items()} | {"model": section.model}

        return self.steps.run("recorded", {"files": self._recorded_key(), "model": section.model}, make)

    def distil(self, vectors: Artefact, teachers: list[Artefact]) -> Artefact:
        """`<teacher>.parquet`: one student for each teacher, its labels on every item."""
        config = self.project.config.distil

        def make(folder: Path) -> Detail:
            rows = 0
            matrix, bar = np.load(vectors.folder / "vectors.npy"), self.bars.bar("distil", "students")
            blocks = item_blocks(self.project.split.train, config.blocks)
            for done, teacher in enumerate(teachers, start=1):
                labels = pl.read_parquet(teacher.folder / "label.parquet")
                student = distil(labels, matrix, self.project.dataset.item_ids, config, blocks)
                write_parquet(in_schema("label", student), folder / f"{teacher.name}.parquet")
                rows += student.height
                bar(done, len(teachers))
            return {"students": len(teachers), "labels": rows}

        keys = [teacher.key for teacher in teachers]
        inputs: dict[str, Any] = {"vectors": vectors.key, "teachers": keys, "config": config.model_dump()}
        if config.blocks:
            data = self.project.config.data
            inputs |= {"data": self.project.data_key, "split": [data.validation, data.test]}
        return self.steps.run("distil", inputs, make)

    def golden(self, vectors: Artefact, sources: dict[str, Path]) -> Artefact:
        """`golden.json`: every source of labels against people, and a zero-shot baseline beside them.

        `agreement.json`: the same with people's agreement among themselves, and what follows in words.
        """
        project = self.project
        drawn = random_part(project.path(project.config.golden))

        def make(folder: Path) -> Detail:
            ids, names = project.dataset.item_ids, [attribute.name for attribute in project.attributes]
            golden = project.golden
            scores = {name: label_matrix(pl.read_parquet(path), ids, names) for name, path in sources.items()}
            scores[ZERO_SHOT] = self._zero_shot(np.load(vectors.folder / "vectors.npy"))
            labels = Golden(golden.dev, golden.held_out("palate golden"), drawn)
            terms = project.config.agreement
            report = agreement_report(labels, scores, project.attributes, ids, terms, similarities=[ZERO_SHOT])
            (folder / "golden.json").write_text(json.dumps(report["rows"]))
            (folder / "agreement.json").write_text(json.dumps(report))
            skipped = [str(skip) for skip in golden.skipped]
            return {"judged_items": len(golden.judged), "sources": len(scores), "skipped": skipped}

        inputs: dict[str, Any] = {
            "golden": self._golden_key(),
            "sources": {name: path.parent.name for name, path in sources.items()},
            "vectors": vectors.key,
            "attributes": project.attribute_facts,
            "random": None if drawn is None else sorted(drawn),
            "terms": project.config.agreement.model_dump(),
            "similarities": [ZERO_SHOT],
        }
        return self.steps.run("golden", inputs, make)

    def _zero_shot(self, vectors: FloatArray) -> FloatArray:
        texts = [attribute.description or attribute.question for attribute in self.project.attributes]
        asked = CachedEncoder(self.project.encoder, self.project.ledger).encode(texts)
        return np.asarray(vectors @ asked.T, dtype=np.float32)

    def sample(self, recorded: Artefact | None) -> Sample:
        """Items to ask about. Three in four were judged by people, and by a recorded model: all can be compared.

        Those of the sample before stay as long as they are there and the seed is the same: what came since then changes
        nothing, or every event would have other items asked about.
        """
        project, config = self.project, self.project.config.annotate
        judged: list[str] = []
        if project.has_golden:
            among = set() if recorded is None else set(read_kind(recorded, "label")["entity"])
            judged = project.golden.worth_asking(among or set(project.dataset.item_ids), config.items * 3 // 4)
        dataset = project.dataset
        nums = sorted(dataset.item_nums[item_id] for item_id in judged)
        drawn = [dataset.item_ids[num] for num in sample_items(dataset, config.items, nums, config.seed).tolist()]
        before = self._sample_before(config.seed)
        if not before:
            return Sample(config.seed, drawn)
        there = [item_id for item_id in before if item_id in dataset.item_nums]
        stays = list(dict.fromkeys([*judged, *there, *drawn]))[: config.items]
        return Sample(config.seed, before if {*stays} == {*before} else stays)

    def _sample_before(self, seed: int) -> list[str]:
        made = self.steps.latest("annotate")
        if made is None or not (made.folder / SAMPLE).is_file():
            return []
        kept = Sample(**json.loads((made.folder / SAMPLE).read_text()))
        return kept.item_ids if kept.seed == seed else []

    def _golden_key(self) -> str:
        return self.project.golden.key if self.project.has_golden else ""

    def _recorded_key(self) -> str:
        section = self.project.config.recorded
        return "" if section is None else file_digest(self.project.path(section.folder))


def read_kind(artefact: Artefact | None, kind: str) -> pl.DataFrame:
    """A step's rows of one kind; an empty table where it has none."""
    path = None if artefact is None else artefact.folder / f"{kind}.parquet"
    return pl.read_parquet(path) if path is not None and path.exists() else pl.DataFrame(schema=SCHEMA)
