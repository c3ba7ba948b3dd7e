"""The User Interest Handbook: for each category the dimensions that people's clicks tell apart, as YAML to edit.

The idea is TagLLM's (Chen et al. 2026, arXiv 2603.21481); how their handbook is made is not published. Here terms of
texts and tags are merged to values and grouped to dimensions by their sentence vectors. A dimension is kept where it
carries information about clicks: people click items that share a value with what they liked more often than matched
random items do (`palate.knowledge.information`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from palate.data.dataset import Dataset
from palate.data.whole_file import replace_file
from palate.errors import InputError
from palate.evaluation.discovery import false_discovery_q
from palate.knowledge.attributes import read_yaml, validation_error
from palate.knowledge.canonical import canonical_tags
from palate.knowledge.clicks import ClickPairs, training_pairs
from palate.knowledge.information import Information, information
from palate.knowledge.terms import Document, Terms, merged, mine_terms, occurrences
from palate.llm.encoders import Encoder

ALL = "all"  # the section of every item
Progress = Callable[[int, int], None]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Dimension(_Part):
    """What people of a category tell apart. Only `name` and `values` are needed of who writes one by hand."""

    name: str = Field(min_length=1, max_length=60)
    values: tuple[str, ...] = Field(min_length=1)
    """Canonical tags, the most frequent first."""
    granularity: Literal["coarse", "medium", "fine"] = "medium"
    """A value is had by over 10%, over 2% or fewer of the items, at the median."""
    examples: tuple[str, ...] = ()
    """Titles of items that have it."""
    information: float | None = None
    """Bits that "shares a liked value" tells of "was clicked", rather than its matched item."""
    lift: float | None = None
    """Share of clicked items that share a liked value, minus that of their matched items."""
    q: float | None = None
    """False discovery rate at which it is kept."""
    n: int | None = None
    """Pairs of a click and its matched item in the test."""


class Section(_Part):
    category: str
    items: int = 0
    pairs: int = 0
    tested: int = 0
    """Dimensions that were tested; what is not listed carried no information."""
    dimensions: tuple[Dimension, ...] = ()


class Handbook(_Part):
    sections: tuple[Section, ...] = ()
    notes: tuple[str, ...] = ()
    """What could not be done, in words."""

    def of(self, categories: Sequence[str], most: int = 8) -> list[Dimension]:
        """The dimensions for an item: those of its categories' sections, then those of all, the strongest first."""
        own = [d for section in self.sections if section.category in categories for d in section.dimensions]
        shared = [d for section in self.sections if section.category == ALL for d in section.dimensions]
        found: dict[str, Dimension] = {}
        for dimension in [*sorted(own, key=_strength), *sorted(shared, key=_strength)]:
            found.setdefault(dimension.name, dimension)
        return list(found.values())[:most]

    @property
    def version(self) -> str:
        """8 hex digits of names and values, all that an LLM is shown. Tags keep the version they came from."""
        shown = [[s.category, *([d.name, *d.values] for d in s.dimensions)] for s in self.sections]
        return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:8]

    @property
    def values(self) -> list[str]:
        """All values of all sections, each once."""
        return list(dict.fromkeys(v for section in self.sections for d in section.dimensions for v in d.values))


class HandbookConfig(_Part):
    min_items: int = Field(default=5, ge=1)
    """A term is had by at least so many items,"""
    max_share: float = Field(default=0.25, gt=0, le=1)
    """and by at most this share of them."""
    max_terms: int = Field(default=1200, ge=10)
    near: float = Field(default=0.8, gt=0, le=1)
    """Cosine from which two terms are one value."""
    values_each: int = Field(default=6, ge=2)
    """Values of a dimension, on average; twice as many at most are listed."""
    max_sections: int = Field(default=8, ge=0)
    """Categories with a section of their own: those with the most clicks."""
    min_pairs: int = Field(default=200, ge=10)
    """Fewer clicks say nothing: no section."""
    max_pairs: int = Field(default=3000, ge=10)
    permutations: int = Field(default=999, ge=19)
    """At most; what chance beats often is given up early."""
    q: float = Field(default=0.1, gt=0, lt=1)
    """Share of the dimensions kept in a section that may be kept by chance."""
    seed: int = 0


def mine_handbook(
    dataset: Dataset,
    documents: Sequence[Document],
    encoder: Encoder,
    config: HandbookConfig | None = None,
    proposals: Sequence[Dimension] = (),
    on_progress: Progress | None = None,
) -> Handbook:
    """The handbook of a log.

    Args:
        dataset: Training events only: what is measured later must not be in it.
        documents: What is said of each item (`palate.knowledge.terms.item_documents`), [n_items].
        proposals: Further dimensions (of a person, or an LLM), tested like the mined ones; values by their words.
    """
    config = config or HandbookConfig()
    terms = mine_terms(documents, config.min_items, config.max_share, config.max_terms)
    uses = dict(zip(terms.names, np.asarray(terms.incidence.sum(axis=0)).ravel().astype(int).tolist(), strict=True))
    values = merged(terms, canonical_tags(uses, encoder, config.near))
    groups = _groups(values.names, encoder, config.values_each)
    asked = occurrences(documents, [value for proposal in proposals for value in proposal.values])
    table, members, names = _stacked(values, groups, asked, proposals)
    pairs = training_pairs(dataset, seed=config.seed)
    sections = [ALL, *_largest(dataset, pairs, config)]
    tested: list[tuple[str, ClickPairs, Information]] = []
    for done, category in enumerate(sections, start=1):
        own = _sampled(dataset, pairs, category, config)
        if len(own) >= config.min_pairs:
            found = information(dataset, own, table.incidence, members, config.permutations, config.seed)
            tested.append((category, own, found))
        if on_progress is not None:
            on_progress(done, len(sections))
    return _written(dataset, table, members, names, tested, config)


def write_handbook(handbook: Handbook, path: Path) -> None:
    """Write atomically, as YAML that a person may edit."""
    facts = handbook.model_dump(mode="json", exclude_none=True)
    text = "# What people's clicks tell apart. Edit freely: names and values are what the LLM is shown.\n"
    text += yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=110)
    replace_file(path, text, "The handbook")


def read_handbook(path: Path) -> Handbook:
    """Raises:
    InputError: naming file and field.
    """
    if not path.is_file():
        raise InputError("There is no handbook.", where=str(path), hint="palate tags handbook makes one.")
    found = read_yaml(path)
    if not isinstance(found, dict):
        raise InputError("A handbook is a mapping with sections.", where=str(path), got=type(found).__name__)
    try:
        return Handbook.model_validate(found)
    except ValidationError as error:
        fields = [*Handbook.model_fields, *Section.model_fields, *Dimension.model_fields]
        raise validation_error(error, str(path), fields) from error


def _strength(dimension: Dimension) -> float:
    return -(dimension.information if dimension.information is not None else float("inf"))


def _groups(names: Sequence[str], encoder: Encoder, each: int) -> list[int]:
    """The dimension of each value: Ward's clusters of their vectors."""
    from sklearn.cluster import AgglomerativeClustering

    if len(names) <= each:
        return [0] * len(names)
    clusters = AgglomerativeClustering(n_clusters=-(-len(names) // each), linkage="ward")
    return [int(label) for label in clusters.fit_predict(encoder.encode(list(names)))]


def _stacked(
    values: Terms, groups: Sequence[int], asked: Terms, proposals: Sequence[Dimension]
) -> tuple[Terms, Any, list[str]]:
    """Mined values and proposed ones side by side: incidence, membership [n_values, n_dimensions] and given names."""
    from scipy.sparse import csr_matrix, hstack

    mined = max(groups, default=-1) + 1
    owners = [*groups, *(mined + k for k, proposal in enumerate(proposals) for _ in proposal.values)]
    names = [*values.names, *asked.names]
    shape = (len(names), mined + len(proposals))
    members = csr_matrix((np.ones(len(owners), np.float32), (range(len(owners)), owners)), shape)
    incidence = hstack([values.incidence, asked.incidence]).tocsr()
    return Terms(names, incidence), members, [""] * mined + [proposal.name for proposal in proposals]


def _largest(dataset: Dataset, pairs: ClickPairs, config: HandbookConfig) -> list[str]:
    categories = dataset.items["categories"].to_list()
    clicks = Counter(category for item in pairs.clicked.tolist() for category in categories[item] or [])
    kept = [(category, n) for category, n in clicks.items() if n >= config.min_pairs and category != ALL]
    return [category for category, _ in sorted(kept, key=lambda pair: (-pair[1], pair[0]))[: config.max_sections]]


def _sampled(dataset: Dataset, pairs: ClickPairs, category: str, config: HandbookConfig) -> ClickPairs:
    """Pairs of which both items are of the category: that the clicked one is says nothing then."""
    categories = dataset.items["categories"].to_list()
    sides = zip(pairs.clicked.tolist(), pairs.matched.tolist(), strict=True)
    own = [i for i, pair in enumerate(sides) if all(category in (ALL, *(categories[item] or [])) for item in pair)]
    drawn = np.random.default_rng(config.seed).permutation(np.array(own, dtype=np.int64))[: config.max_pairs]
    return pairs.part(np.sort(drawn))


def _written(
    dataset: Dataset,
    table: Terms,
    members: Any,
    names: Sequence[str],
    tested: Sequence[tuple[str, ClickPairs, Information]],
    config: HandbookConfig,
) -> Handbook:
    if not tested:
        note = f"Fewer than {config.min_pairs} clicks have a history and a matched item: nothing could be tested."
        return Handbook(notes=(note,))
    writer = _Writer(dataset, table, members, names, config)
    sections = []
    for category, pairs, found in tested:
        seen = np.flatnonzero(found.seen)
        q_values = dict(zip(seen.tolist(), false_discovery_q(found.p[seen]).tolist(), strict=True))
        kept = [writer.dimension(category, d, found, q, len(pairs)) for d, q in q_values.items() if q <= config.q]
        dimensions = tuple(sorted(kept, key=_strength))
        counts = {"items": len(writer.inside(category)), "pairs": len(pairs), "tested": len(seen)}
        sections.append(Section(category=category, dimensions=dimensions, **counts))
    nothing = [section.category for section in sections if not section.dimensions]
    notes = [f"No dimension carries information about clicks in: {', '.join(nothing)}."] if nothing else []
    return Handbook(sections=tuple(sections), notes=tuple(notes))


class _Writer:
    """Puts dimensions into words: their values and examples within a category."""

    def __init__(
        self, dataset: Dataset, table: Terms, members: Any, names: Sequence[str], config: HandbookConfig
    ) -> None:
        self.dataset, self.table, self.members, self.names, self.config = dataset, table, members.tocsc(), names, config
        self.categories = dataset.items["categories"].to_list()
        self.titles = dataset.items["title"].to_list()

    def inside(self, category: str) -> list[int]:
        return [i for i, own in enumerate(self.categories) if category in (ALL, *(own or []))]

    def dimension(self, category: str, number: int, found: Information, q: float, n: int) -> Dimension:
        inside = self.inside(category)
        columns = self.members[:, number].indices
        own = self.table.incidence[inside][:, columns]
        uses = np.asarray(own.sum(axis=0)).ravel()
        ranked = [i for i in np.argsort(-uses, kind="stable")[: 2 * self.config.values_each] if uses[i] > 0]
        values = tuple(self.table.names[columns[i]] for i in ranked)
        share = float(np.median(uses[ranked])) / len(inside)
        telling = np.asarray(own.sum(axis=1)).ravel() + 1e-6 * np.log1p(self.dataset.item_counts[inside])
        best = [inside[i] for i in np.argsort(-telling, kind="stable")[:3]]
        return Dimension(
            name=self.names[number] or " / ".join(values[:2])[:60],
            values=values,
            granularity="coarse" if share > 0.1 else "medium" if share > 0.02 else "fine",
            examples=tuple(str(self.titles[i]) for i in best),
            information=round(float(found.bits[number]), 6),
            lift=round(float(found.lift[number]), 4),
            q=round(q, 4),
            n=n,
        )
