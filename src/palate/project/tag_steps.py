"""Steps that make tags: the handbook, extraction by the LLM, a student for every item, a tuned local model."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from palate.errors import InputError
from palate.experiments.study import Study
from palate.knowledge.annotate import sample_items
from palate.knowledge.canonical import canonical_rows, canonical_tags, tag_counts
from palate.knowledge.clicks import clicks_only
from palate.knowledge.handbook import Dimension, Handbook, HandbookConfig, mine_handbook, read_handbook, write_handbook
from palate.knowledge.handbook_llm import name_dimensions, propose_dimensions
from palate.knowledge.store import KnowledgeStore, write_parquet
from palate.knowledge.tables import Knowledge
from palate.knowledge.tag_distil import taught
from palate.knowledge.tag_sources import student_tags
from palate.knowledge.tags import Route, extract
from palate.knowledge.terms import item_documents
from palate.llm.encoders import CachedEncoder
from palate.project.knowledge_steps import read_kind
from palate.project.run import Run
from palate.project.steps import Artefact, Detail

HANDBOOK = "handbook.yaml"


class TagSteps:
    """Work on tags within a project's run; what is long is a step and kept."""

    def __init__(self, run: Run) -> None:
        self.run, self.project, self.bars = run, run.project, run.bars

    @property
    def path(self) -> Path:
        return self.project.folder / HANDBOOK

    def encoder(self, what: str) -> CachedEncoder:
        return CachedEncoder(self.project.encoder, self.project.ledger, self.bars.bar(what, "texts"))

    def mine(self, replace: bool = False, people: bool = False, ask: bool = False) -> Handbook:
        """Write `handbook.yaml`, which is people's to edit from then on.

        Args:
            people: Mine people's free tags too. Not where tags are to be measured against them.
            ask: Let the LLM propose further dimensions, and name those that clicks bear out.

        Raises:
            InputError: There is one and it is not to be replaced.
        """
        if self.path.exists() and not replace:
            raise InputError(
                "There is a handbook already, perhaps edited.", where=str(self.path), hint="Say --replace, or move it."
            )
        tags = [read_kind(self.run.recorded, "tag")]
        if people and self.project.tags is not None:
            tags.append(self.project.tags.rename({"item_id": "entity", "tag": "text"}))
        llm, proposals, problem = self.run.asking("handbook"), list[Dimension](), ""
        if ask:
            sample = sample_items(self.project.dataset, min(30, self.project.dataset.n_items)).tolist()
            proposals, problem = propose_dimensions(self.project.dataset.items["title"][sample].to_list(), llm)
        found = mine_handbook(
            clicks_only(self.project.split.train),
            item_documents(self.project.dataset, tags),
            self.encoder("handbook words"),
            HandbookConfig(),
            proposals,
            self.bars.bar("handbook", "categories"),
        )
        if ask:
            found = name_dimensions(found, llm)
            found = found.model_copy(update={"notes": (*found.notes, problem)}) if problem else found
        write_handbook(found, self.path)
        return found

    def extract(self, items: int, route: Route, n: int) -> Artefact:
        """`tag.parquet`: the LLM's tags of a budgeted sample, canonical; they join the project's knowledge too."""
        project = self.project
        handbook = None if route == "plain" else read_handbook(self.path)

        def make(folder: Path) -> Detail:
            llm = self.run.asking("tags")
            chosen = sample_items(project.dataset, min(items, project.dataset.n_items))
            found = extract(project.dataset, chosen, llm, route, n, handbook, self.encoder("tags"))
            mapping = canonical_tags(tag_counts(found.rows["text"]), self.encoder("canonical tags"))
            rows = canonical_rows(found.rows, mapping)
            write_parquet(rows, folder / "tag.parquet")
            pl.DataFrame({"said": list(mapping), "canonical": list(mapping.values())}).write_csv(folder / "mapping.csv")
            counts = {k: v for k, v in vars(found).items() if k not in ("rows", "without_text")}
            return {"items": len(chosen), "tags": rows.height, "different": rows["text"].n_unique(), **counts} | {
                "items_without_text": len(found.without_text),
                "first_without_text": ", ".join(found.without_text[:5]),
            }

        inputs = {"data": project.data_key, "model": project.engine.model, "items": items, "route": route, "n": n}
        made = self.run.steps.run("tags", inputs | {"handbook": handbook and handbook.version}, make)
        KnowledgeStore(project.state / "knowledge").add("tag", read_kind(made, "tag"))
        return made

    def student(self, teacher: pl.DataFrame, n: int) -> Artefact:
        """`tag.parquet`: tags of every item, by a student of `teacher`'s rows on sentence vectors."""
        project, vectors = self.project, self.run.vectors

        def make(folder: Path) -> Detail:
            matrix = np.load(vectors.folder / "vectors.npy")
            rows = student_tags(teacher, matrix, project.dataset.item_ids, self.encoder("canonical tags"), n)
            write_parquet(rows, folder / "tag.parquet")
            return {"tags": rows.height, "different": rows["text"].n_unique(), "teacher": teacher["model"][0]}

        inputs = {"vectors": vectors.key, "teacher": _digest(teacher), "n": n}
        return self.run.steps.run("tag-student", inputs, make)

    def tune(self, teacher: pl.DataFrame, n: int, minutes: float) -> Artefact:
        """`adapter/`: LoRA weights of the local model, tuned on `teacher`'s rows. Killed, it goes on where it was."""
        from palate.llm.engines.torch_lm import TorchEngine
        from palate.models.finetune import Example, FinetuneConfig, finetune

        project = self.project
        model = project.config.llm.model if project.config.llm.engine != "openai" else None
        path = None if model is None else project.path(Path(model))

        def make(folder: Path) -> Detail:
            known = sorted({project.dataset.item_nums[e] for e in teacher["entity"] if e in project.dataset.item_nums})
            order = np.random.default_rng(0).permutation(known).tolist()
            examples = [Example(t.request, t.answer) for t in taught(project.dataset, teacher, order, n)]
            held = max(1, len(examples) // 10)
            bar = self.bars.bar("fine-tuning", "steps")
            found = finetune(
                TorchEngine(path),
                examples[held:],
                examples[:held],
                project.state / "checkpoints" / "tags",
                FinetuneConfig(minutes=minutes),
                lambda name, done, total, figures: bar(done, total),
            )
            shutil.copytree(found.folder, folder / "adapter")
            best = min(found.looks, key=lambda look: look.loss)
            figures = {"loss": best.loss, "loss_untuned": found.looks[0].loss, "tokens_right": best.tokens}
            facts = {"model": found.name, "step": found.best, "examples": found.examples, "too_long": found.too_long}
            return facts | figures | {"seconds": found.seconds, "stopped": found.stopped}

        inputs = {"data": project.data_key, "teacher": _digest(teacher), "n": n, "minutes": minutes, "model": str(path)}
        return self.run.steps.run("tag-adapter", inputs, make)

    def teacher(self, wanted: str | None) -> pl.DataFrame:
        """Tag rows of one model: `wanted`, else the recorded model's, else the newest kept.

        Raises:
            InputError: There are none.
        """
        kept = KnowledgeStore(self.project.state / "knowledge").load().table("tag")
        recorded = read_kind(self.run.recorded, "tag")
        rows = pl.concat([recorded, kept.filter(pl.col("source") != "student")])
        names: Sequence[str] = rows["model"].unique(maintain_order=True).to_list()
        name = wanted or (recorded["model"][0] if recorded.height else names[-1] if names else None)
        if name is None or name not in names:
            raise InputError(
                "There are no tags of such a teacher.",
                got=name,
                allowed=", ".join(names) or None,
                hint="palate tags extract asks for some; recorded answers are named in palate.yaml, section recorded.",
            )
        return rows.filter(pl.col("model") == name)

    def study(self, settings: dict[str, str]) -> Study:
        """The project as a recipe reads it."""
        project, tags = self.project, self.project.tags
        labels = None
        if tags is not None:
            empty = pl.lit(None, pl.String)
            labels = tags.rename({"tag": "label"}).with_columns(source=pl.lit("user_tag"), user_id=empty)
            labels = labels.with_columns(pl.col("label").str.to_lowercase().str.strip_chars())
        recorded = read_kind(self.run.recorded, "tag")
        bars: dict[str, object] = {}

        def progress(what: str, done: int, total: int) -> None:
            bar = bars.setdefault(what, self.bars.bar(what, "done"))
            assert callable(bar)
            bar(done, total)

        return Study(
            project.dataset,
            self.run.asking("tags"),
            self.encoder("texts"),
            project.state / "checkpoints",
            labels,
            recorded=Knowledge({"tag": recorded}),
            settings=settings,
            progress=progress,
        )


def _digest(rows: pl.DataFrame) -> int:
    return int(rows.select("entity", "text").hash_rows(seed=0).sum())
