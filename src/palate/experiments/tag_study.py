"""The tags of every source on the same items, so that they can be compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field

from palate.data.dataset import Dataset, IntArray
from palate.data.splits import Split, has_clock, split_in_time
from palate.errors import InputError
from palate.experiments.settings import Settings
from palate.experiments.study import Study
from palate.experiments.tag_measures import TagSet
from palate.knowledge.annotate import item_text, sample_items
from palate.knowledge.clicks import clicks_only
from palate.knowledge.handbook import Handbook, HandbookConfig, mine_handbook
from palate.knowledge.tag_distil import taught
from palate.knowledge.tag_sources import category_tags, near_tags, student_tags, tfidf_tags
from palate.knowledge.tags import Extraction, Route, extract
from palate.knowledge.terms import item_documents
from palate.llm.request import LLM

if TYPE_CHECKING:
    from palate.models.finetune import Look

_PEOPLE = "user_tag"  # sources of labels that are people's tags have it in their names


class TagSettings(Settings):
    """Of the recipe `tagllm`; on the command line `--set items=200`."""

    items: int = Field(default=400, ge=20)
    """Items that every source tags and that are measured."""
    teach: int = Field(default=700, ge=0)
    """Further items whose teacher's tags teach the student and the tuned model."""
    n: int = Field(default=5, ge=1, le=10)
    route: Route = "choose"
    """How the handbook guides the LLM (`palate.knowledge.tags.extract`)."""
    pairs: int = Field(default=4000, ge=50)
    cold: float = Field(default=0.5, gt=0, lt=1)
    """Share of the items that are cold."""
    minutes: float = Field(default=15.0, ge=0)
    """Most time to fine-tune the local model; 0: it is left out."""
    epochs: int = Field(default=2, ge=1)
    local: str | None = None
    """The model to tune, a GGUF file or a folder; the packaged one by default."""


@dataclass
class TagStudy:
    """Which items, which teacher, which tags. Everything is made once, at first use, from `study` and a seed."""

    study: Study
    settings: TagSettings
    spent: dict[str, int] = field(default_factory=dict)
    """Tokens that each source took here; a kept answer counts what it once took."""
    notes: list[str] = field(default_factory=list)
    looks: tuple[Look, ...] = ()
    """The fine-tuning's validation by step."""

    @cached_property
    def dataset(self) -> Dataset:
        found = clicks_only(self.study.dataset)
        left_out = self.study.dataset.events.height - found.events.height
        if left_out:
            self.notes.append(f"{left_out} events are no clicks and were left out.")
        return found

    @cached_property
    def split(self) -> Split:
        """The best that the data allow; the notes say which it was."""
        split = split_in_time(self.dataset, max_queries=20 * self.settings.pairs)
        if not has_clock(self.dataset):
            self.notes.append(f"The data have no clock: split {split.name}.")
        return split

    @cached_property
    def recorded(self) -> pl.DataFrame | None:
        rows = self.study.recorded.table("tag").filter(pl.col("entity").is_in(self.dataset.item_ids))
        return rows if rows.height else None

    @cached_property
    def items(self) -> IntArray:
        """The measured items, in order: of those a recorded model tagged, if there are any, else by traffic."""
        if self.recorded is None:
            return np.sort(sample_items(self.dataset, min(self.settings.items, self.dataset.n_items)))
        known = np.array(sorted({self.dataset.item_nums[e] for e in self.recorded["entity"]}), dtype=np.int32)
        return np.sort(np.random.default_rng(0).permutation(known)[: self.settings.items])

    @cached_property
    def cold(self) -> npt.NDArray[np.bool_]:
        """Which of `items` are cold, [n_items]."""
        return np.random.default_rng(1).random(len(self.items)) < self.settings.cold

    @cached_property
    def train(self) -> Dataset:
        """What may be learnt from: training events without those of cold items."""
        events = self.split.train.events
        return self.dataset.with_events(events.filter(~pl.col("item_num").is_in(self.items[self.cold].tolist())))

    @cached_property
    def teaching(self) -> list[int]:
        """Items whose teacher's tags teach: none of the measured ones."""
        if self.recorded is None:
            others = np.setdiff1d(sample_items(self.dataset, self.dataset.n_items), self.items)
            return [int(i) for i in np.random.default_rng(2).permutation(others)[: self.settings.teach // 4]]
        known = {self.dataset.item_nums[e] for e in self.recorded["entity"]} - set(self.items.tolist())
        return [int(i) for i in np.random.default_rng(2).permutation(sorted(known))[: self.settings.teach]]

    @cached_property
    def handbook(self) -> Handbook:
        """Of training events, texts, categories and the teaching items' recorded tags; people's tags are left out."""
        teaching = {self.dataset.item_ids[i] for i in self.teaching}
        tags = [] if self.recorded is None else [self.recorded.filter(pl.col("entity").is_in(list(teaching)))]
        documents = item_documents(self.dataset, tags)
        report = self.study.progress
        return mine_handbook(
            self.train,
            documents,
            self.study.encoder,
            HandbookConfig(),
            on_progress=lambda done, total: report("handbook", done, total),
        )

    @cached_property
    def gold(self) -> dict[int, list[str]]:
        """People's tags of the measured items, never shown to a model."""
        labels = self.study.labels
        if labels is None:
            return {}
        people = labels.filter(pl.col("source").str.contains(_PEOPLE))
        known = {self.dataset.item_ids[i]: int(i) for i in self.items}
        rows = people.filter(pl.col("item_id").is_in(list(known)))
        grouped = rows.unique(["item_id", "label"], maintain_order=True).group_by("item_id", maintain_order=True)
        return {known[item]: tags for item, tags in grouped.agg("label").iter_rows()}

    def sample(self, n: int) -> npt.NDArray[np.int64]:
        """At most `settings.pairs` of `n` pairs, in order."""
        return np.sort(np.random.default_rng(3).permutation(n)[: self.settings.pairs])

    def sources(self) -> dict[str, TagSet]:
        """Every source that these data allow; the notes say what is left out and why."""
        n, items, encoder = self.settings.n, self.items, self.study.encoder
        made: dict[str, Callable[[], pl.DataFrame | None]] = {
            "categories": lambda: category_tags(self.dataset, items, n),
            "tf-idf terms": lambda: tfidf_tags(self.dataset, items, n),
            "near handbook values": lambda: near_tags(self.dataset, items, self.handbook, encoder, n),
            "unguided LLM": lambda: self._asked("unguided LLM", "plain"),
            "guided LLM": lambda: self._asked("guided LLM", self.settings.route),
            "recorded model": lambda: self.recorded,
            "student": self._student,
            "tuned LLM": self._tuned,
        }
        found = {}
        for name, make in made.items():
            try:
                rows = make()
            except InputError as error:
                self.notes.append(f"No {name}: {error.what} ({error.got})")
                continue
            if rows is not None and rows.height:
                found[name] = TagSet(name, rows, self.dataset, items, encoder, n)
            elif not any(note.startswith(f"No {name}") for note in self.notes):
                self.notes.append(f"No {name}: there are none for these items.")
        return found

    def _asked(self, name: str, route: Route, items: IntArray | None = None) -> pl.DataFrame:
        found = self._extract(name, self.study.llm, route, self.items if items is None else items)
        return found.rows

    def _extract(self, name: str, llm: LLM, route: Route, items: IntArray) -> Extraction:
        self.study.progress(name, 0, len(items))
        found = extract(self.dataset, items, llm, route, self.settings.n, self.handbook, self.study.encoder)
        self.spent[name] = found.tokens
        what = [
            f"{found.asked} questions",
            f"{found.unread} without a readable answer",
            f"{found.unverified} tags without evidence dropped",
            f"{found.repeated} repetitions dropped",
        ]
        if found.without_text:
            what.append(f"{len(found.without_text)} items without text ({', '.join(found.without_text[:3])} ...)")
        self.notes.append(f"{name}: {', '.join(what)}.")
        return found

    @cached_property
    def teacher(self) -> pl.DataFrame:
        """The recorded model's tags of the teaching items; without one, the guided extraction's."""
        if self.recorded is None:
            items = np.array(sorted(self.teaching), dtype=np.int32)
            return self._asked("guided LLM as teacher", self.settings.route if self.handbook.values else "plain", items)
        ids = [self.dataset.item_ids[i] for i in self.teaching]
        return self.recorded.filter(pl.col("entity").is_in(ids))

    def _student(self) -> pl.DataFrame:
        vectors = self.study.encoder.encode([item_text(self.dataset, i) for i in range(self.dataset.n_items)])
        return student_tags(self.teacher, vectors, self.dataset.item_ids, self.study.encoder, self.settings.n)

    def _tuned(self) -> pl.DataFrame | None:
        if not self.settings.minutes:
            self.notes.append("No tuned LLM: the settings give it no time (minutes=0).")
            return None
        try:
            from palate.llm.engines.torch_lm import TorchEngine
            from palate.models.finetune import Example, FinetuneConfig, finetune
        except ModuleNotFoundError as error:
            self.notes.append(f"No tuned LLM: {error} (pip install 'palate[torch-lm]').")
            return None
        examples = [Example(t.request, t.answer) for t in taught(self.dataset, self.teacher, self.teaching)]
        n_validation = max(1, len(examples) // 12)
        config = FinetuneConfig(minutes=self.settings.minutes, epochs=self.settings.epochs)
        report = self.study.progress
        tuned = finetune(
            TorchEngine(self.settings.local),
            examples[n_validation:],
            examples[:n_validation],
            self.study.workspace / "tagllm",
            config,
            lambda name, done, total, _: report(name, done, total),
        )
        self.looks = tuned.looks
        self.notes.append(
            f"Tuned on {tuned.examples} examples ({tuned.too_long} too long) in {tuned.seconds / 60:.1f} minutes, "
            f"{tuned.stopped}; step {tuned.best} has the lowest validation loss; {tuned.name}."
        )
        engine = TorchEngine(self.settings.local, adapter=tuned.folder)
        try:
            return self._extract("tuned LLM", self.study.llm.asking(engine), "plain", self.items).rows
        finally:
            engine.close()
