"""What an exploration study is made of: interests, meetings, pairs held back, and people to be shown a slate."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field

from palate.data.dataset import Dataset, FloatArray, IntArray
from palate.data.query import Query
from palate.data.splits import TEST, TRAIN, VALIDATION, Holdout, Split, has_clock, split_in_time
from palate.errors import InputError
from palate.experiments.settings import Settings
from palate.experiments.study import Study
from palate.interests.meetings import (
    Meetings,
    first_meetings,
    known_before,
    latest_pairs,
    pair_numbers,
    positives,
    queries_before,
)
from palate.interests.names import name_nodes
from palate.interests.naming import distinctive_items, title_nodes
from palate.interests.tree import InterestTree, TreeConfig, build_tree
from palate.interests.vectors import COLLABORATIVE, TEXT, collaborative, item_vectors, text_part
from palate.knowledge.keywords import english_stop_words, item_words

Flags = npt.NDArray[np.bool_]
LEVEL = 2  # interests are the nodes of this level; the first level is what the bandit walks through
SHAPES = {16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (8, 16), 256: (16, 16)}  # interests: branching
_MOST = 32  # by default: what a small model learns in minutes on a processor
_EVENTS, _ITEMS = 50, 20  # least training events and items of an interest, on average


class ExploreSettings(Settings):
    """Of the recipe `explore`; on the command line `--set minutes=30`."""

    interests: int | None = Field(default=None)
    """16, 32, 64, 128 or 256; by default the most, up to 32, of which each has 50 training events and 20 items."""
    least: float | None = None
    """The smallest value that is positive; by default the middle of the scale, where values are grades."""
    per_label: int = Field(default=10, ge=1)
    withhold: float = Field(default=0.2, ge=0, lt=1)
    """Share of all pairs that no method sees in training, so that there are pairs never seen to be judged on."""
    meetings: int = Field(default=600, ge=10)
    """Most meetings judged in the test, and a third of it in validation."""
    visits: int = Field(default=300, ge=10)
    """Most people who are shown a slate in the test, and a third of it in validation."""
    explored: int = Field(default=3, ge=1)
    """Interests that a slate explores at once."""
    minutes: float = Field(default=12.0, ge=0)
    """Most time to tune the local model, all tunings together, the curve's figures left out; 0: no tuning."""
    epochs: int = Field(default=3, ge=1)
    llm_seeds: int = Field(default=1, ge=1)
    """Tunings on balanced curation; the ablation and the control are tuned once."""
    titles: Literal["keywords", "llm"] = "keywords"
    """What interests are called: keywords, or titles that the language model of the run writes (a large one should)."""
    local: str | None = None
    """The model to tune, a GGUF file or a folder; the packaged one by default."""

    @classmethod
    def of(cls, study: Study) -> ExploreSettings:
        made = super().of(study)
        if made.interests not in (None, *SHAPES):
            allowed = ", ".join(map(str, SHAPES))
            raise InputError(
                "So many interests cannot be cut.", where="--set interests", got=made.interests, allowed=allowed
            )
        return made


@dataclass(frozen=True)
class Visits:
    """People at the beginning of a held-out part: what was known of them, and the new items they then took."""

    queries: list[Query]
    pairs: IntArray  # [q, 2], the latest two interests
    targets: list[IntArray]
    known: Flags  # [q, n_interests]
    users: list[str | None]

    def __len__(self) -> int:
        return len(self.queries)


@dataclass(frozen=True)
class Judged:
    """Held-out meetings with what was known before; `unseen` have a pair that no training meeting has."""

    meetings: Meetings
    queries: list[Query]
    known: Flags
    unseen: Flags
    users: list[str | None]


@dataclass
class ExploreStudy:
    """Everything is made once, at first use."""

    study: Study
    settings: ExploreSettings
    notes: list[str] = field(default_factory=list)
    spent: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Tokens and seconds of each use of a language model."""

    @cached_property
    def dataset(self) -> Dataset:
        found = positives(self.study.dataset, self.settings.least)
        left_out = self.study.dataset.events.height - found.events.height
        if left_out:
            self.notes.append(f"{left_out:,} events are no positives and were left out.")
        return found

    @cached_property
    def split(self) -> Split:
        split = split_in_time(self.dataset)
        if not has_clock(self.dataset):
            self.notes.append("The data have no clock: the order of rows or of each person's sequence is taken.")
        parts = ", ".join(f"{int((split.part == p).sum()):,}" for p in (TRAIN, VALIDATION, TEST))
        self.notes.append(f"Split {split.name}: {parts} positives in train, validation and test.")
        return split

    @cached_property
    def vectors(self) -> FloatArray:
        """Of the items' text; of who took what in training, where no item has any text."""
        text = text_part(self.dataset, self.study.encoder)
        together = collaborative(self.split.train) if text is None else None
        made = item_vectors({TEXT: text, COLLABORATIVE: together})
        if text is None:
            self.notes.append("No item has any text: interests are cut by who took what, and have no words for names.")
        return made.vectors

    @cached_property
    def n_interests(self) -> int:
        if self.settings.interests is not None:
            return self.settings.interests
        room = min(self.split.train.events.height / _EVENTS, self.dataset.n_items / _ITEMS, _MOST)
        fitting = [n for n in SHAPES if n <= room]
        if not fitting:
            got = f"{self.dataset.n_items} items, {self.split.train.events.height} training events"
            raise InputError("There is too little to tell interests apart.", got=got, allowed="320 items, 800 events")
        return max(fitting)

    @cached_property
    def tree(self) -> InterestTree:
        """Named by keywords; traffic is that of training."""
        traffic = self.split.train.item_counts.astype(np.float64)
        config = TreeConfig(branching=SHAPES[self.n_interests])
        documents = _documents(self.dataset, self.study.labels)
        common = {w for w, n in Counter(w for d in documents for w in set(d)).items() if n > len(documents) / 3}
        tree = name_nodes(build_tree(self.vectors, traffic, config), documents, english_stop_words() | common)
        if self.settings.titles == "keywords":
            return tree
        shown = distinctive_items(tree, self.vectors, self.split.train.item_counts > 0, 5)
        told = title_nodes(tree, shown, self.dataset.items["title"].fill_null("").to_list(), self.study.llm)
        self.notes.append(
            f"Titles by {self.study.llm.model}: {told.outcomes}; all but those taken keep their keywords."
        )
        return told.tree

    @cached_property
    def names(self) -> list[str]:
        """Of the interests 0..n-1."""
        return [node.title for node in self.tree.at_level(LEVEL)]

    @cached_property
    def interest_of(self) -> IntArray:
        """The interest of each item."""
        return (self.tree.node_of_items(LEVEL) - self.tree.at_level(LEVEL)[0].node).astype(np.int32)

    @cached_property
    def meetings(self) -> Meetings:
        found = first_meetings(self.dataset, self.interest_of)
        if not len(found):
            raise InputError(
                "Nobody went from two interests to a third.", got=f"{self.dataset.events.height} positives"
            )
        return found

    @cached_property
    def train(self) -> Meetings:
        """What all methods learn from: training meetings without the pairs held back."""
        whole = self.meetings.part(self.split.part[self.meetings.place] == TRAIN)
        held = np.random.default_rng(0).random(self.n_interests**2) < self.settings.withhold
        kept = whole.part(~held[pair_numbers(whole.pair, self.n_interests)])
        self.notes.append(
            f"{self.n_interests} interests, {len(whole):,} meetings in training, of which {len(whole) - len(kept):,} "
            f"have one of the pairs held back ({self.settings.withhold:.0%} of all pairs)."
        )
        return kept

    @cached_property
    def known_in_training(self) -> Flags:
        return known_before(queries_before(self.dataset, self.train), self.interest_of, self.n_interests)

    @cached_property
    def validation(self) -> Judged:
        return self._judged(VALIDATION, self.settings.meetings // 3)

    @cached_property
    def test(self) -> Judged:
        return self._judged(TEST, self.settings.meetings)

    def _judged(self, part: int, most: int) -> Judged:
        found = self.meetings.part(self.split.part[self.meetings.place] == part)
        if len(found) > most:
            found = found.part(np.sort(np.random.default_rng(1).permutation(len(found))[:most]))
        queries = queries_before(self.dataset, found)
        seen = np.isin(pair_numbers(found.pair, self.n_interests), pair_numbers(self.train.pair, self.n_interests))
        known = known_before(queries, self.interest_of, self.n_interests)
        return Judged(found, queries, known, ~seen, [query.user_id for query in queries])

    @cached_property
    def visits_in_validation(self) -> Visits:
        return self._visits(VALIDATION, self.settings.visits // 3)

    @cached_property
    def visits(self) -> Visits:
        return self._visits(TEST, self.settings.visits)

    def _visits(self, part: int, most: int) -> Visits:
        packed, names = self.dataset.histories, self.dataset.user_ids
        parts = self.split.part[np.argsort(self.dataset.events["user_num"].to_numpy(), kind="stable")]
        queries, targets = [], []
        for user in range(self.dataset.n_users):
            start, stop = int(packed.offsets[user]), int(packed.offsets[user + 1])
            later = np.flatnonzero(parts[start:stop] == part)
            if len(later) and later[0] > 0:
                history = packed.items[start : start + later[0]]
                new = np.setdiff1d(packed.items[start + later], history).astype(np.int32)
                queries.append(Query(names[user], history, int(packed.times[start + later[0]])))
                targets.append(new)
        pairs, enough = latest_pairs(queries, self.interest_of)
        chosen = np.flatnonzero(enough & np.array([len(new) > 0 for new in targets], dtype=bool))
        chosen = np.sort(np.random.default_rng(2).permutation(chosen)[:most])
        queries = [queries[i] for i in chosen]
        known = known_before(queries, self.interest_of, self.n_interests)
        return Visits(queries, pairs[chosen], [targets[i] for i in chosen], known, [q.user_id for q in queries])

    @cached_property
    def never_trained(self) -> float:
        """Share of what people took in the test that no model of items saw in training."""
        wanted = np.concatenate([*self.visits.targets, np.zeros(0, np.int32)])
        return float((self.split.train.item_counts[wanted] == 0).mean()) if len(wanted) else float("nan")

    @cached_property
    def pairs(self) -> IntArray:
        """Every pair that is asked about, each once, [n, 2]."""
        asked = (self.validation.meetings, self.test.meetings, self.visits_in_validation, self.visits)
        every = [one.pair if isinstance(one, Meetings) else one.pairs for one in asked]
        return np.unique(np.concatenate(every), axis=0)

    def rows(self, pairs: IntArray) -> npt.NDArray[np.int64]:
        """The row in `pairs` of each of these."""
        return np.searchsorted(pair_numbers(self.pairs, self.n_interests), pair_numbers(pairs, self.n_interests))

    @cached_property
    def novel_validation(self) -> Holdout:
        """Validation meetings as a model's queries and answers."""
        judged = self.validation
        return Holdout(judged.queries, [judged.meetings.item[i : i + 1] for i in range(len(judged.meetings))])


def _documents(dataset: Dataset, labels: pl.DataFrame | None) -> list[list[str]]:
    given = None if labels is None else labels.filter(pl.col("source").str.contains("user_tag"))
    return item_words(dataset.items, None if given is None else given.rename({"label": "tag"}))
