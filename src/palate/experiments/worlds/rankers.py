"""Who ranks items in a world: the models of `palate.models`, learnt anew on the log every few days."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import numpy as np
import polars as pl

from palate.data.dataset import FloatArray, Histories
from palate.data.event_log import EventLog
from palate.experiments.worlds.log import WorldLog
from palate.experiments.worlds.policies import CHUNK, Flags, Silent, Slates, best, without
from palate.experiments.worlds.truth import Rng
from palate.experiments.worlds.world import Asked, Catalogue
from palate.interests.counts import NearestInterest
from palate.knowledge.tables import Knowledge

NEWEST = 60_000  # latest events that are learnt from
STEPS = 150  # of a training, roughly: few events are read more often than many
BATCH = 512


class Ranker(Protocol):
    """Scores every item for everybody who asks."""

    name: str

    def fit(self, log: WorldLog, catalogue: Catalogue, seed: int) -> None: ...

    def scores(self, asked: Asked, size: int) -> FloatArray:
        """[n, size]: the items that are there."""
        ...


class SequenceRanker:
    """SASRec, small and quick: one block over the latest 20 items, which go by a row and their visible vector.

    Args:
        novel: Learn only what is a person's first of its cluster: novelty-boosted (Wang et al. 2024).
        steps: Of a training, roughly.
        newest: Latest events that are learnt from.
    """

    def __init__(self, novel: bool = False, steps: int = STEPS, newest: int = NEWEST) -> None:
        self.novel, self.steps, self.newest = novel, steps, newest
        self.name = "novelty-boosted SASRec" if novel else "SASRec"
        self._model: Any = None

    def fit(self, log: WorldLog, catalogue: Catalogue, seed: int) -> None:
        from palate.models.item_side import ItemVectors
        from palate.models.sasrec import SasRec, SasRecConfig

        whole = log.histories()
        flags = first_of_cluster(whole, catalogue) if self.novel else None
        late, kept = _latest(whole, self.newest)
        config = SasRecConfig(
            blocks=1, heads=1, length=20, batch_targets=BATCH, **_shape(len(late.histories.items), self.steps, seed)
        )
        side = partial(ItemVectors, sides="both", vectors=catalogue.vectors, counts=late.item_counts)
        self._model = SasRec(config, labels=None if flags is None else flags[kept], items=side).fit(late)

    def scores(self, asked: Asked, size: int) -> FloatArray:
        found: FloatArray = self._model.encode(asked.queries()) @ self._model.item_vectors[:size].T
        return found


class TowerRanker:
    """Two towers of 32 dimensions, over the latest 20 items, which go by a row and their visible vector.

    Args:
        steps: Of a training, roughly.
        newest: Latest events that are learnt from.
    """

    name = "two-tower"

    def __init__(self, steps: int = STEPS, newest: int = NEWEST) -> None:
        self.steps, self.newest = steps, newest
        self._model: Any = None

    def fit(self, log: WorldLog, catalogue: Catalogue, seed: int) -> None:
        from palate.models.two_tower import TwoTower, TwoTowerConfig

        data = log.dataset(self.newest)
        shape = _shape(data.events.height, self.steps, seed)
        config = TwoTowerConfig(recent=20, batch=BATCH, sides="both", **shape)
        seen = pl.DataFrame({"entity": data.item_ids, "vector": list(catalogue.vectors)})
        self._model = TwoTower(config).fit(data, Knowledge({"vector": seen}))
        self._vectors = self._model.item_vectors

    def scores(self, asked: Asked, size: int) -> FloatArray:
        found: FloatArray = self._model.encode(asked.queries()) @ self._vectors[:size].T
        return found


class ContentRanker:
    """Nearness of an item's visible vector to the clusters of what a person took lately: learns nothing, at no cost.

    An item x scores Σ over clusters of (weight of what was taken there) · exp((cos(centre, x) - 1) · sharpness), and a
    little more where it is popular.

    Args:
        half_life: Items taken after which one weighs half.
    """

    name = "content"

    def __init__(self, sharpness: float = 12.0, half_life: float = 20.0) -> None:
        self.sharpness, self.half_life = sharpness, half_life

    def fit(self, log: WorldLog, catalogue: Catalogue, seed: int) -> None:
        centres = NearestInterest.of(catalogue.vectors, catalogue.cluster_of, catalogue.n_clusters).centres
        near = np.exp((centres @ catalogue.vectors.T - 1) * np.float32(self.sharpness))
        counts = np.bincount(log.taken(NEWEST).item, minlength=log.n_items)
        self._near = np.asarray(near * (1 + 0.1 * np.log1p(counts)), dtype=np.float32)
        self._clusters = catalogue.cluster_of

    def scores(self, asked: Asked, size: int) -> FloatArray:
        n, length = asked.histories.shape
        row, place = np.nonzero(asked.histories >= 0)
        weights = np.zeros((n, len(self._near)), dtype=np.float32)
        faded = np.float32(0.5) ** ((length - 1 - place) / np.float32(self.half_life))
        np.add.at(weights, (row, self._clusters[asked.histories[row, place]]), faded)
        return weights @ self._near[:, :size]


class Ranked(Silent):
    """Exploitation alone: the best items by a ranker, less what the person took lately.

    Args:
        every: Days after which the ranker is fitted anew.
    """

    def __init__(self, ranker: Ranker, every: int = 10) -> None:
        self.ranker, self.every = ranker, every
        self.name = ranker.name

    def learn(self, log: WorldLog, day: int) -> None:
        if day % self.every == 0:
            self.ranker.fit(log, self.catalogue, self.seed)

    def slates(self, asked: Asked, n: int, rng: Rng) -> Slates:
        size = int(self.catalogue.sizes[asked.day])
        parts = [asked.part(slice(at, at + CHUNK)) for at in range(0, len(asked.people), CHUNK)]
        found = [best(without(self.ranker.scores(part, size), part.histories), n) for part in parts]
        return Slates(np.concatenate([*found, np.zeros((0, n), np.int32)]))


def _shape(events: int, steps: int, seed: int) -> dict[str, Any]:
    """Of a network of 32 dimensions that is trained for about so many steps."""
    epochs = max(1, min(40, round(steps * BATCH / max(1, events))))
    fixed = {"dimensions": 32, "learning_rate": 5e-3, "warmup": 20, "average": 0.98, "dropout": 0.1}
    return {**fixed, "epochs": epochs, "seed": seed}


def first_of_cluster(log: EventLog, catalogue: Catalogue) -> Flags:
    """Whether each place of the packed histories is the person's first of its cluster."""
    packed = log.histories
    owner = np.repeat(np.arange(len(packed.offsets) - 1), np.diff(packed.offsets))
    keys = owner * catalogue.n_clusters + catalogue.cluster_of[packed.items]
    flags = np.zeros(len(keys), dtype=bool)
    flags[np.unique(keys, return_index=True)[1]] = True
    return flags


def _latest(log: EventLog, newest: int) -> tuple[EventLog, Flags]:
    """The `newest` events of all people, and which those are."""
    packed = log.histories
    if len(packed.times) <= newest:
        return log, np.ones(len(packed.times), dtype=bool)
    kept = np.zeros(len(packed.times), dtype=bool)
    kept[np.argsort(packed.times, kind="stable")[-newest:]] = True
    owner = np.repeat(np.arange(len(packed.offsets) - 1), np.diff(packed.offsets))
    counts = np.bincount(owner[kept], minlength=len(packed.offsets) - 1)
    offsets = np.concatenate([[0], counts.cumsum()]).astype(np.int64)
    return EventLog(Histories(offsets, packed.items[kept], packed.times[kept]), log.n_items), kept
