"""Policies that give a share of each slate to an interest that is new to the person, and who names that interest.

The serving rule of LLMs for User Interest Exploration (Wang et al. 2024, arXiv 2405.16363; `palate.interests.explore`),
for many people at once: two interests are drawn from what a person took lately, the later ones the likelier; whoever
chooses names one that the person has not met; the ranker fills it with its best items there. All explorers here differ
in nothing but who chooses.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray, IntArray
from palate.experiments.worlds.log import WorldLog
from palate.experiments.worlds.policies import CHUNK, Flags, Silent, Slates, best, without
from palate.experiments.worlds.rankers import Ranker
from palate.experiments.worlds.truth import Rng
from palate.experiments.worlds.world import Asked, Catalogue
from palate.interests.bandit import TreeBandit
from palate.interests.counts import CountTable, NearestInterest
from palate.interests.meetings import Meetings, first_meetings
from palate.interests.table import InterestTable

HALF_LIFE = 10.0  # items taken after which one weighs half: as `ExploreConfig`
AMONG = 3  # a chooser's best that are drawn from, or a person who does not bite would see one interest for ever
_TRIES = 4


class Chooser(Protocol):
    """Names the next interest. Clusters are numbered as in `Catalogue.cluster_of`."""

    name: str

    def learn(self, log: WorldLog, catalogue: Catalogue, day: int) -> None: ...

    def choose(self, pairs: IntArray, known: Flags, rng: Rng) -> IntArray:
        """A cluster that is not `known` [n, clusters] for each of `pairs` [n, 2]; -1 for none."""
        ...

    def hear(self, pairs: IntArray, clusters: IntArray, rewards: FloatArray) -> None:
        """Whether anything of the cluster satisfied (1) or not (0); clusters of -1 are not told."""
        ...


class AnyInterest:
    """Random exploration."""

    name = "random exploration"

    def learn(self, log: WorldLog, catalogue: Catalogue, day: int) -> None:
        pass

    def choose(self, pairs: IntArray, known: Flags, rng: Rng) -> IntArray:
        return _picked(rng.random(known.shape, dtype=np.float32), known, 1, rng)

    def hear(self, pairs: IntArray, clusters: IntArray, rewards: FloatArray) -> None:
        pass


class Counted(AnyInterest):
    """The count table with back-off (`palate.interests.counts`), over the log so far.

    Args:
        every: Days after which it counts anew.
    """

    name = "count table"

    def __init__(self, every: int = 10) -> None:
        self.every = every

    def learn(self, log: WorldLog, catalogue: Catalogue, day: int) -> None:
        if day % self.every == 0:
            self._table = CountTable(_meetings(log, catalogue), catalogue.n_clusters, 30.0, 30.0)

    def choose(self, pairs: IntArray, known: Flags, rng: Rng) -> IntArray:
        return _picked(self._table.scores(pairs), known, AMONG, rng)


class Looked(AnyInterest):
    """A table of what comes after each pair, answered offline: LLM exploration. See `tables` for where it is from."""

    name = "LLM exploration"

    def __init__(self, table: InterestTable, name: str = "LLM exploration") -> None:
        self.table, self.name = table, name

    def choose(self, pairs: IntArray, known: Flags, rng: Rng) -> IntArray:
        found = self.table.look_up(pairs)[0]
        new = (found >= 0) & ~np.take_along_axis(known, np.maximum(found, 0).astype(np.int64), axis=1)
        rank = np.where(new, new.cumsum(axis=1), AMONG + 1)
        keys = np.where(rank <= AMONG, rng.random(found.shape), -1.0)
        place = keys.argmax(axis=1)
        chosen = np.take_along_axis(found, place[:, None], axis=1)[:, 0]
        return np.where(keys.max(axis=1) < 0, -1, chosen).astype(np.int32)


class Banded(AnyInterest):
    """The hierarchical bandit (`palate.interests.bandit`): taught by the log at first, then by its own rewards.

    Args:
        alpha: Width of the upper bound: how much it explores.
    """

    name = "hierarchical bandit"

    def __init__(self, alpha: float = 0.3) -> None:
        self.alpha = alpha
        self._bandit: TreeBandit | None = None

    def learn(self, log: WorldLog, catalogue: Catalogue, day: int) -> None:
        if self._bandit is None:
            contexts = NearestInterest.of(catalogue.vectors, catalogue.cluster_of, catalogue.n_clusters).centres
            self._bandit = TreeBandit(catalogue.tree, catalogue.level, contexts, self.alpha)
            meetings = _meetings(log, catalogue)
            self._bandit.replay(meetings, _known_before(meetings, catalogue.n_clusters))

    def choose(self, pairs: IntArray, known: Flags, rng: Rng) -> IntArray:
        assert self._bandit is not None
        return self._bandit.walk(pairs, known)

    def hear(self, pairs: IntArray, clusters: IntArray, rewards: FloatArray) -> None:
        assert self._bandit is not None
        told = clusters >= 0
        self._bandit.reward(pairs[told], clusters[told], rewards[told])


class Explorer(Silent):
    """A ranker's slates with a share of places in an interest that is new to the person.

    Args:
        share: Of the places; spread evenly over the slate.
        every: Days after which the ranker is fitted anew.
        patience: Slates in which a new interest is shown in vain before a person is not led to it again.
    """

    def __init__(
        self, ranker: Ranker, chooser: Chooser, share: float = 0.3, every: int = 10, patience: int = 2
    ) -> None:
        self.ranker, self.chooser, self.share, self.every = ranker, chooser, share, every
        self.patience = patience
        self.name = chooser.name

    def begin(self, catalogue: Catalogue, n_people: int, seed: int) -> None:
        super().begin(catalogue, n_people, seed)
        self._met = np.zeros((n_people, catalogue.n_clusters), dtype=bool)
        self._vain = np.zeros((n_people, catalogue.n_clusters), dtype=np.int8)
        self._items_of = items_by_cluster(catalogue)

    def learn(self, log: WorldLog, day: int) -> None:
        self._met[log.before.person, self.catalogue.cluster_of[log.before.item]] = True
        if day % self.every == 0:
            self.ranker.fit(log, self.catalogue, self.seed)
        self.chooser.learn(log, self.catalogue, day)

    def slates(self, asked: Asked, n: int, rng: Rng) -> Slates:
        self._pairs, self._chosen = self._choose(asked, rng)
        parts = [slice(at, at + CHUNK) for at in range(0, len(asked.people), CHUNK)]
        filled = [self._fill(asked.part(rows), self._chosen[rows], n) for rows in parts]
        return Slates(np.concatenate([*filled, np.zeros((0, n), np.int32)]))

    def hear(self, asked: Asked, slates: Slates, taken: Flags, satisfied: Flags) -> None:
        clusters = self.catalogue.cluster_of[np.maximum(slates.items, 0)]
        inside = (clusters == self._chosen[:, None]) & (slates.items >= 0)
        shown = np.where(inside.any(axis=1), self._chosen, -1)
        self.chooser.hear(self._pairs, shown, (satisfied & inside).any(axis=1).astype(np.float32))
        led = shown >= 0
        self._vain[asked.people[led], shown[led]] += 1
        row, place = np.nonzero(taken)
        self._met[asked.people[row], clusters[row, place]] = True

    def _choose(self, asked: Asked, rng: Rng) -> tuple[IntArray, IntArray]:
        known = self._met[asked.people] | (self._vain[asked.people] >= self.patience)
        size = self.catalogue.sizes[asked.day]
        known |= ~((self._items_of >= 0) & (self._items_of < size)).any(axis=1)  # nothing to show yet
        chosen = np.full(len(known), -1, dtype=np.int32)
        kept = np.zeros((len(known), 2), dtype=np.int32)
        open_ = np.flatnonzero((asked.histories >= 0).any(axis=1))  # of others nobody knows anything yet
        for _ in range(_TRIES):
            if not len(open_):
                break
            kept[open_] = drawn_pairs(asked.histories[open_], self.catalogue.cluster_of, rng)
            chosen[open_] = self.chooser.choose(kept[open_], known[open_], rng)
            open_ = open_[chosen[open_] < 0]
        return kept, chosen

    def _fill(self, asked: Asked, chosen: IntArray, n: int) -> IntArray:
        size = int(self.catalogue.sizes[asked.day])
        scores = without(self.ranker.scores(asked, size), asked.histories)
        places = explored_places(n, self.share)
        items = np.where(chosen[:, None] >= 0, self._items_of[chosen], -1)
        there = (items >= 0) & (items < size)
        inside = np.where(there, np.take_along_axis(scores, np.where(there, items, 0), axis=1), -np.inf)
        top = best(inside, int(places.sum()))
        new = np.where(top >= 0, np.take_along_axis(items, np.maximum(top, 0), axis=1), -1)
        return woven(best(without(scores, new), n), new, places)


def items_by_cluster(catalogue: Catalogue) -> IntArray:
    """The items of each cluster in order, [n_clusters, most], -1 behind them."""
    order = np.argsort(catalogue.cluster_of, kind="stable").astype(np.int32)
    sizes = np.bincount(catalogue.cluster_of, minlength=catalogue.n_clusters)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    found = np.full((len(sizes), int(sizes.max())), -1, dtype=np.int32)
    found[rows, np.arange(len(order)) - np.repeat(sizes.cumsum() - sizes, sizes)] = order
    return found


def drawn_pairs(histories: IntArray, cluster_of: IntArray, rng: Rng) -> IntArray:
    """Two distinct clusters of each history [n, 2], drawn by recency; the same twice where there is but one.

    The largest of log weight + Gumbel noise are a draw without replacement (Kool et al. 2019, arXiv 1903.06059).
    """
    age = np.arange(histories.shape[1])[::-1]
    keys = np.log(0.5) * age / HALF_LIFE + rng.gumbel(size=histories.shape)
    keys[histories < 0] = -np.inf
    clusters = cluster_of[np.maximum(histories, 0)]
    rows = np.arange(len(histories))
    first = clusters[rows, keys.argmax(axis=1)]
    keys[clusters == first[:, None]] = -np.inf
    second = np.where(np.isneginf(keys.max(axis=1)), first, clusters[rows, keys.argmax(axis=1)])
    return np.sort(np.column_stack([first, second]), axis=1).astype(np.int32)


def explored_places(n: int, share: float) -> Flags:
    """Which of `n` places are explored: `share` of them, evenly spread."""
    edges = np.floor(np.arange(n + 1) * share + 1e-9)
    return np.asarray(edges[1:] > edges[:-1])


def woven(base: IntArray, new: IntArray, places: Flags) -> IntArray:
    """`new` [rows, m] at the `places` [n], `base` [rows, n] in order everywhere else and where `new` has none (-1)."""
    wide = np.full(base.shape, -1, dtype=np.int32)
    wide[:, places] = new
    explored = wide >= 0
    rank = np.maximum((~explored).cumsum(axis=1) - 1, 0)
    return np.where(explored, wide, np.take_along_axis(base, rank, axis=1)).astype(np.int32)


def _picked(scores: FloatArray, known: Flags, among: int, rng: Rng) -> IntArray:
    """One of the `among` best that are not known; -1 where all are."""
    top = best(np.where(known, -np.inf, scores).astype(np.float32), among)
    place = (rng.random(len(top)) * np.maximum((top >= 0).sum(axis=1), 1)).astype(np.int64)
    return np.asarray(top[np.arange(len(top)), place])


def _meetings(log: WorldLog, catalogue: Catalogue) -> Meetings:
    return first_meetings(log.dataset(), catalogue.cluster_of)


def _known_before(meetings: Meetings, n: int) -> npt.NDArray[np.bool_]:
    """What each meeting's person had met by then, as far as meetings say: earlier labels, and the pair."""
    known = np.zeros((len(meetings), n), dtype=bool)
    met: dict[int, list[int]] = {}
    for row, (user, label) in enumerate(zip(meetings.user.tolist(), meetings.label.tolist(), strict=True)):
        earlier = met.setdefault(user, [])
        known[row, earlier] = True
        earlier.append(label)
    np.put_along_axis(known, meetings.pair.astype(np.int64), True, axis=1)
    np.put_along_axis(known, meetings.label[:, None].astype(np.int64), False, axis=1)
    return known
