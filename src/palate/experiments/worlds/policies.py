"""`Policy`: what fills slates in a world; and the policies that learn nothing of a person."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray, IntArray
from palate.errors import InputError
from palate.experiments.worlds.log import WorldLog
from palate.experiments.worlds.truth import Rng
from palate.experiments.worlds.world import Asked, Catalogue

Flags = npt.NDArray[np.bool_]
CHUNK = 1024  # people whose scores of all items are held at a time


@dataclass(frozen=True)
class Slates:
    """Item_nums [n, k], -1 for an empty place.

    `propensity` [n, k]: the chance that the policy, with what it drew before (its base slate), puts that item at that
    place; None where it says none.
    """

    items: IntArray
    propensity: FloatArray | None = None


class Policy(Protocol):
    """Sees the catalogue, the log, and what it is asked with. Nothing of the truth."""

    @property
    def name(self) -> str: ...

    def begin(self, catalogue: Catalogue, n_people: int, seed: int) -> None:
        """Called once, before the first day. A policy is begun anew for each run."""
        ...

    def learn(self, log: WorldLog, day: int) -> None:
        """Called each morning; a policy decides for itself when it learns anew."""
        ...

    def slates(self, asked: Asked, n: int, rng: Rng) -> Slates:
        """Fill `n` places for everybody who asks."""
        ...

    def hear(self, asked: Asked, slates: Slates, taken: Flags, satisfied: Flags) -> None:
        """What became of the slates just given."""
        ...


class Silent:
    """Base of policies: begins, learns and hears nothing."""

    catalogue: Catalogue
    seed: int

    def begin(self, catalogue: Catalogue, n_people: int, seed: int) -> None:
        self.catalogue, self.seed = catalogue, seed

    def learn(self, log: WorldLog, day: int) -> None:
        pass

    def hear(self, asked: Asked, slates: Slates, taken: Flags, satisfied: Flags) -> None:
        pass


class RandomItems(Silent):
    """Every item that is there has the same chance at every place; the floor that all must pass."""

    name = "random"

    def slates(self, asked: Asked, n: int, rng: Rng) -> Slates:
        size = int(self.catalogue.sizes[asked.day])
        items = rng.integers(0, size, (len(asked.people), n), dtype=np.int32)
        return Slates(items, np.full(items.shape, 1 / size, np.float32))


class PopularItems(Silent):
    """What was taken most in the last `days`, less what the person took lately.

    Args:
        days: That are counted.
    """

    name = "popularity"

    def __init__(self, days: int = 7) -> None:
        self.days = days
        self._order: IntArray = np.zeros(0, np.int32)

    def learn(self, log: WorldLog, day: int) -> None:
        found = log.taken()
        late = found.time >= (found.time.max(initial=0) - self.days * 86_400_000_000)
        rest = np.bincount(found.item, minlength=log.n_items) / max(1, len(found.item))
        counts = np.bincount(found.item[late], minlength=log.n_items) + rest  # of equals what was popular earlier
        self._order = np.argsort(-counts[: self.catalogue.sizes[day]], kind="stable").astype(np.int32)

    def slates(self, asked: Asked, n: int, rng: Rng) -> Slates:
        first = self._order[: n + asked.histories.shape[1]]
        known = (asked.histories[:, None, :] == first[:, None]).any(axis=2)
        rest = np.argsort(known, axis=1, kind="stable")[:, :n]
        return Slates(padded(first[rest], n))


class Explored(Silent):
    """Another policy whose places are replaced at random, each with chance `epsilon`, by any item that is there.

    What it shows has a known chance: (1 - epsilon) · [the base slate's item] + epsilon / items. An item may so come
    twice in a slate; the propensities stay exact.
    """

    def __init__(self, base: Policy, epsilon: float) -> None:
        if not 0 < epsilon <= 1:
            raise InputError("A share of random places is out of range", got=epsilon, allowed="above 0, at most 1")
        self.base, self.epsilon = base, epsilon
        self.name = f"{base.name}, {epsilon:.0%} random"

    def begin(self, catalogue: Catalogue, n_people: int, seed: int) -> None:
        super().begin(catalogue, n_people, seed)
        self.base.begin(catalogue, n_people, seed)

    def learn(self, log: WorldLog, day: int) -> None:
        self.base.learn(log, day)

    def slates(self, asked: Asked, n: int, rng: Rng) -> Slates:
        base = self.base.slates(asked, n, rng).items
        size = int(self.catalogue.sizes[asked.day])
        drawn = rng.integers(0, size, base.shape, dtype=np.int32)
        items = np.where(rng.random(base.shape) < self.epsilon, drawn, base)
        return Slates(items, self.chance(base, items, asked.day))

    def chance(self, base: IntArray, items: IntArray, day: int) -> FloatArray:
        """The chance of `items` at their places, given the base slates: what off-policy estimates need of a target."""
        even = self.epsilon / int(self.catalogue.sizes[day])
        return np.asarray((1 - self.epsilon) * (items == base) + even, dtype=np.float32)

    def hear(self, asked: Asked, slates: Slates, taken: Flags, satisfied: Flags) -> None:
        self.base.hear(asked, replace(slates, propensity=None), taken, satisfied)


def best(scores: FloatArray, n: int) -> IntArray:
    """The `n` best items of each row, best first; -1 where the rest is at minus infinity."""
    n_best = min(n, scores.shape[1])
    places = np.argpartition(-scores, n_best - 1, axis=1)[:, :n_best]
    values = np.take_along_axis(scores, places, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    found = np.take_along_axis(places, order, axis=1)
    found = np.where(np.isneginf(np.take_along_axis(values, order, axis=1)), -1, found)
    return padded(found.astype(np.int32), n)


def padded(items: IntArray, n: int) -> IntArray:
    """[rows, n]: empty places behind what there is."""
    return np.pad(items, ((0, 0), (0, max(0, n - items.shape[1]))), constant_values=-1).astype(np.int32)


def without(scores: FloatArray, items: IntArray) -> FloatArray:
    """`scores` [n, items] with those of `items` [n, k] (-1 is none) at minus infinity, in place."""
    row, place = np.nonzero((items >= 0) & (items < scores.shape[1]))
    scores[row, items[row, place]] = -np.inf
    return scores
