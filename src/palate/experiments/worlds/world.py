"""`World`: a planted truth, the people in it, and the little of it that a recommender may see."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray, IntArray
from palate.data.query import Query
from palate.experiments.worlds.config import WorldConfig
from palate.experiments.worlds.crowd import Crowd
from palate.experiments.worlds.log import DAY, EPOCH, Flags, Taken, WorldLog
from palate.experiments.worlds.truth import Rng, Truth, plant, stream, unit
from palate.interests.tree import InterestTree, TreeConfig, build_tree

Numbers = npt.NDArray[np.int64]
_TRIES = 6  # draws of something not taken before
_EARLIER = 60  # days before they come in which people took what they bring along
_STEP = 2_000_000  # microseconds between what is taken in one sitting


@dataclass(frozen=True)
class Catalogue:
    """What a recommender sees of the items: noisy vectors [n_items, d] of unit length, and clusters cut out of them.

    Items are numbered in the order in which they appear; `sizes[day]` of them are there on a day. Those of later days
    have vectors and clusters from the beginning, which no policy may serve before their day.
    """

    vectors: FloatArray
    tree: InterestTree
    level: int
    sizes: IntArray

    @cached_property
    def cluster_of(self) -> IntArray:
        """The cluster of each item, 0..n_clusters - 1."""
        return (self.tree.node_of_items(self.level) - self.first).astype(np.int32)

    @cached_property
    def first(self) -> int:
        """The tree's number of cluster 0."""
        return self.tree.at_level(self.level)[0].node

    @property
    def n_clusters(self) -> int:
        return len(self.tree.at_level(self.level))


@dataclass(frozen=True)
class Asked:
    """What a recommender is asked with: people, what they took lately (oldest first, -1 before the first), the day."""

    people: IntArray
    histories: IntArray  # [n, history]
    day: int

    def queries(self) -> list[Query]:
        """One `Query` a person."""
        moment = EPOCH + self.day * DAY
        filled = (self.histories < 0).sum(axis=1).tolist()
        rows = zip(self.people.tolist(), self.histories, filled, strict=True)
        return [Query(f"u{person}", row[empty:], moment) for person, row, empty in rows]

    def part(self, rows: slice) -> Asked:
        return Asked(self.people[rows], self.histories[rows], self.day)


class World:
    """One truth with its catalogue; `crowd()` is a fresh population, the same for every policy.

    Args:
        days: As long as it can be lived in.
        clusters: Parts of a node at each level of the tree that policies see; None: about as many as interests.
    """

    def __init__(
        self,
        config: WorldConfig,
        truth: Truth,
        seed: int,
        days: int,
        clusters: tuple[int, ...] | None = None,
    ) -> None:
        self.config, self.truth, self.seed, self.days = config, truth, seed, days
        root = max(2, round(np.sqrt(config.interests)))
        self._branching = clusters or (root, max(2, round(config.interests / root)))

    @cached_property
    def catalogue(self) -> Catalogue:
        items, config = self.truth.items, self.config
        noise = stream(self.seed, "view").standard_normal(items.vectors.shape) / np.sqrt(config.dimensions)
        vectors = unit(items.vectors + config.view_noise * noise).astype(np.float32)
        traffic = np.bincount(self.before.item, minlength=len(vectors))
        tree = build_tree(vectors, traffic, TreeConfig(branching=self._branching, iterations=8, seed=self.seed))
        sizes = np.searchsorted(items.born, np.arange(self.days), side="right").astype(np.int32)
        return Catalogue(vectors, tree, len(self._branching), sizes)

    @cached_property
    def before(self) -> Taken:
        """What people took before they came: of what they know already, by popularity, hardly ever twice."""
        rng, people = stream(self.seed, "before"), self.truth.people
        who = np.repeat(np.arange(len(people.before), dtype=np.int32), people.before)
        items = _organic(self.truth, who, self.config.repeat, rng)
        sitting = self.begins.cumsum()
        first = np.searchsorted(who, who)
        nth = sitting - sitting[first]  # sitting of the person
        last = sitting[np.searchsorted(who, who, side="right") - 1] - sitting[first] + 1
        within = np.arange(len(who)) - np.maximum.accumulate(np.where(self.begins, np.arange(len(who)), 0))
        moment = (people.arrives[who] - _EARLIER * (1 - nth / last)) * DAY + within * _STEP
        kept = items >= 0
        return Taken(who[kept], items[kept], EPOCH + moment[kept].astype(np.int64))

    @cached_property
    def begins(self) -> Flags:
        """Whether what was taken before began a sitting, for each of it; the first of a person does."""
        return np.ones(int(self.truth.people.before.sum()), dtype=bool)

    def crowd(self) -> Crowd:
        """People as they are on the first day."""
        crowd = Crowd(self.config, self.truth, self.seed)
        crowd.remember(self.before.person, self.before.item)
        return crowd

    def log(self, policy: str = "", day: int = 0) -> WorldLog:
        """A log that holds what was taken before by who is there on `day`."""
        there = self.truth.people.arrives[self.before.person] <= day
        before = Taken(self.before.person[there], self.before.item[there], self.before.time[there])
        return WorldLog(before, len(self.truth.items.born), len(self.truth.people.arrives), policy)


class SyntheticWorld(World):
    """A world whose truth is drawn from its configuration alone: of any size, the same for the same seed."""

    def __init__(
        self, config: WorldConfig | None = None, seed: int = 0, days: int = 60, clusters: tuple[int, ...] | None = None
    ) -> None:
        config = config or WorldConfig()
        super().__init__(config, plant(config, seed, days), seed, days, clusters)


def _organic(truth: Truth, who: IntArray, repeat: float, rng: Rng) -> IntArray:
    """What each of `who` (ascending) took: something of an interest that they know; -1 where that was all taken."""
    there = np.flatnonzero(truth.items.born == 0)
    main = truth.items.nearest[there, 0]
    order = np.argsort(main, kind="stable")
    edges = np.concatenate([[0.0], truth.items.popular[there][order].cumsum()])
    stops = np.searchsorted(main[order], np.arange(truth.people.known.shape[1] + 1))
    stocked = np.diff(stops) > 0
    likes = np.where(truth.people.known & stocked, truth.people.affinity, 0).astype(np.float64).cumsum(axis=1)
    items = np.full(len(who), -1, dtype=np.int64)
    again = (rng.random(len(who)) < repeat) & (np.searchsorted(who, who) < np.arange(len(who)))
    open_ = np.flatnonzero(~again & (likes[who, -1] > 0))
    for _ in range(_TRIES):
        wanted = rng.random(len(open_)) * likes[who[open_], -1]
        interest = np.minimum((likes[who[open_]] <= wanted[:, None]).sum(axis=1), likes.shape[1] - 1)
        low, high = edges[stops[interest]], edges[stops[interest + 1]]
        place = np.searchsorted(edges, low + rng.random(len(open_)) * (high - low), side="right") - 1
        place = np.clip(place, stops[interest], stops[interest + 1] - 1)
        items[open_] = there[order[place]]
        open_ = np.flatnonzero(_seen_before(who, items))
        items[open_] = -1
        if not len(open_):
            break
    return _repeated(who, items, again, rng).astype(np.int32)


def _seen_before(who: IntArray, items: Numbers) -> Flags:
    """Whether the person has the item in an earlier row."""
    keys = who.astype(np.int64) * (int(items.max(initial=0)) + 2) + items + 1
    first = np.unique(keys, return_index=True)[1]
    found = np.ones(len(who), dtype=bool)
    found[first] = False
    return np.asarray(found & (items >= 0))


def _repeated(who: IntArray, items: Numbers, again: Flags, rng: Rng) -> Numbers:
    """Rows of `again` (never a person's first) take what an earlier row of the person took anew."""
    anew = np.flatnonzero(~again)
    before = np.searchsorted(anew, np.arange(len(who)))  # rows taken anew, of everybody, before each row
    first = np.searchsorted(anew, np.searchsorted(who, who))
    drawn = first + (rng.random(len(who)) * (before - first)).astype(np.int64)
    return np.asarray(np.where(again, items[anew[np.minimum(drawn, len(anew) - 1)]], items)) if len(anew) else items
