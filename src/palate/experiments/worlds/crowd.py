"""What people do: who comes, what they take, what they get used to and tired of, who stays away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray, IntArray
from palate.experiments.worlds.config import WorldConfig
from palate.experiments.worlds.truth import Floats, Truth, stream

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Shown:
    """Slates [n, k] of item_nums shown to `people` [n]; -1 is an empty place. `looked` [n, k]: places looked at."""

    people: IntArray
    items: IntArray
    looked: Flags
    day: int
    session: int


@dataclass(frozen=True)
class Feedback:
    """What was taken and what satisfied, [n, k]; `novel`: the person never took anything of that interest before."""

    taken: Flags
    satisfied: Flags
    novel: Flags


class Answers(Protocol):
    """Who says what is taken: the world's model, or a language model (`llm_people`)."""

    def __call__(self, shown: Shown, crowd: Crowd) -> tuple[Flags, Flags]:
        """What is taken and what satisfies, [n, k], only among the places looked at."""
        ...


class Crowd:
    """The state of everybody. Arrays over people stay in place from the first day to the last."""

    def __init__(self, config: WorldConfig, truth: Truth, seed: int) -> None:
        self.config, self.truth, self.seed = config, truth, seed
        n, interests = truth.people.affinity.shape
        self.met = np.zeros((n, interests), np.float32)  # items taken of each interest
        self.sated = np.zeros((n, interests), np.float32)  # the same, fading
        self.mood = np.full(n, config.mood)
        self.gone = np.zeros(n, dtype=bool)
        self.count = np.zeros(n, np.int64)  # items taken
        self._latest = np.full((n, config.history), -1, np.int32)  # a ring of item_nums

    def remember(self, people: IntArray, items: IntArray) -> None:
        """Pairs of a person and what they took, in order of time; a person's rows lie together."""
        if not len(people):
            return
        first = np.flatnonzero(np.concatenate([[True], people[1:] != people[:-1]]))
        sizes = np.diff(np.append(first, len(people)))
        nth = np.arange(len(people)) - np.repeat(first, sizes)
        self._latest[people, (self.count[people] + nth) % self.config.history] = items
        np.add.at(self.count, people, 1)
        np.add.at(self.met, (people, self.truth.items.nearest[items, 0]), np.float32(1))

    def histories(self, people: IntArray) -> IntArray:
        """The latest items taken, the newest last, [n, history], -1 before the first."""
        size = self.config.history
        places = (self.count[people, None] + np.arange(size)) % size
        return np.take_along_axis(self._latest[people], places, axis=1)

    def comers(self, day: int) -> tuple[IntArray, npt.NDArray[np.int64]]:
        """Who visits today, and in how many sessions."""
        config, people = self.config, self.truth.people
        rng, n = stream(self.seed, "visits", day), len(people.arrives)
        logit = people.visit + config.visit_gain * (self.mood - config.mood)
        comes = rng.random(n) < sigmoid(logit)
        # everybody's first day is a visit: that is what arriving means
        comes = (comes | ((people.arrives == day) & (day > 0))) & (people.arrives <= day) & ~self.gone
        sessions = 1 + rng.poisson(people.rate - 1)
        chosen = np.flatnonzero(comes).astype(np.int32)
        return chosen, np.minimum(sessions[chosen], config.most_sessions)

    def looked(self, people: IntArray, places: int, day: int, session: int) -> Flags:
        """Places looked at: up to where the person goes, and each with its own chance (position-based model)."""
        rng, n = stream(self.seed, "looks", day, session), len(self.count)
        table = self.truth.looks
        length = self.config.looks * table[(rng.random(n) * len(table)).astype(np.int64)]
        place = np.arange(places)
        seen = rng.random((n, places), dtype=np.float32) < (1.0 + place) ** -self.config.position_bias
        return np.asarray((seen & (place < np.maximum(length, 1.0)[:, None]))[people])

    def look_chance(self, places: int) -> Floats:
        """The chance that a place is looked at, [places]."""
        place = np.arange(places)
        stays = (np.maximum(self.config.looks * self.truth.looks, 1.0)[:, None] > place).mean(axis=0)
        return np.asarray(stays * (1.0 + place) ** -self.config.position_bias)

    def chances(self, people: IntArray, items: IntArray, day: int) -> tuple[FloatArray, FloatArray]:
        """Chances to be taken if looked at, and to satisfy if taken, [n, k] each. See `WorldConfig`."""
        config, truth = self.config, self.truth
        at = np.maximum(items, 0)
        nearest, rows = truth.items.nearest[at], people[:, None]
        main, other = nearest[..., 0], nearest[..., 1]
        affinity, (first, second) = truth.people.affinity, truth.items.weights.astype(np.float32)
        liked = np.float32(config.taste) * (first * affinity[rows, main] + second * affinity[rows, other])
        appeal, met = truth.items.appeal[at], self.met[rows, main]
        logit = np.float32(config.base) + liked + appeal + truth.trend[day, at]
        logit -= np.float32(config.satiation) * self.sated[rows, main]
        logit -= np.float32(config.novelty_cost) * np.exp2(-met / np.float32(config.familiarity))
        if config.repeat_cost:
            logit -= np.float32(config.repeat_cost) * self._among_latest(people, items)
        return sigmoid(logit), sigmoid(np.float32(config.content) + liked + appeal)

    def __call__(self, shown: Shown, crowd: Crowd) -> tuple[Flags, Flags]:
        """The world's own model as `Answers`."""
        taken, satisfied = self.chances(shown.people, shown.items, shown.day)
        rng, n = stream(self.seed, "answers", shown.day, shown.session), len(self.count)
        dice = rng.random((2, n, shown.items.shape[1]), dtype=np.float32)
        takes = shown.looked & (dice[0, shown.people] < taken)
        return takes, takes & (dice[1, shown.people] < satisfied)

    def answer(self, shown: Shown, answers: Answers | None = None) -> Feedback:
        """What people make of their slates, and what it does to them."""
        looked = shown.looked & (shown.items >= 0)
        shown = Shown(shown.people, shown.items, looked, shown.day, shown.session)
        taken, satisfied = (answers or self)(shown, self)
        main = self.truth.items.nearest[np.maximum(shown.items, 0), 0]
        novel = (self.met[shown.people[:, None], main] == 0) & (shown.items >= 0)
        row, place = np.nonzero(taken)
        self.remember(shown.people[row], shown.items[row, place])
        np.add.at(self.sated, (shown.people[row], main[row, place]), np.float32(1))
        share = satisfied.sum(axis=1) / np.maximum(looked.sum(axis=1), 1)
        past = self.config.mood_memory
        self.mood[shown.people] = past * self.mood[shown.people] + (1 - past) * share
        return Feedback(taken, satisfied, novel)

    def night(self, day: int, visited: IntArray) -> None:
        """What was taken fades; some of who visited leave for good."""
        self.sated *= np.float32(0.5 ** (1 / self.config.satiation_half_life))
        worse = self.config.mood - self.mood[visited]
        chance = self.config.leave * np.exp(np.minimum(self.config.leave_gain * worse, 50.0))
        dice = stream(self.seed, "leaving", day).random(len(self.count))[visited]
        self.gone[visited[dice < chance]] = True

    def _among_latest(self, people: IntArray, items: IntArray) -> FloatArray:
        """1 where the item is among the latest that the person took, [n, k]."""
        found = np.zeros(items.shape, dtype=bool)
        for place in range(self._latest.shape[1]):  # a loop over the ring: [n, k, history] would not fit the cache
            found |= items == self._latest[people, place, None]
        return found.astype(np.float32)


def sigmoid(logit: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return np.asarray(1 / (1 + np.exp(-logit)))
