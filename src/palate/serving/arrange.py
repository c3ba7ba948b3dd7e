"""From lists of candidates to the places of a slate: shares, caps, and places that are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray
from palate.serving.candidates import Candidates
from palate.serving.opened import Snapshot
from palate.serving.pipeline_config import CapsConfig

T = TypeVar("T")


class Entry(NamedTuple):
    """A candidate of a list, with the scores of source and ranker."""

    item: int
    score: float
    ranked: float | None
    by: Candidates


class Listed(Sequence[Entry]):
    """Candidates as entries, made when they are looked at: most never are.

    Args:
        by: The candidates.
        ranked: [m], the ranker's scores of them.
        order: [m], numbers of candidates in the order of the list; None: as they stand.
    """

    def __init__(
        self, by: Candidates, ranked: FloatArray | None = None, order: npt.NDArray[np.int64] | None = None
    ) -> None:
        self.by = by
        rows = slice(None) if order is None else order
        self.items, self.scores = by.items[rows].tolist(), by.scores[rows].tolist()
        self.ranked = None if ranked is None else ranked[rows].tolist()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        ranked = None if self.ranked is None else self.ranked[place]
        return Entry(self.items[place], self.scores[place], ranked, self.by)


class Place(NamedTuple):
    """`propensity`: the chance that the entry came here, see `arrange`."""

    entry: Entry
    propensity: float | None


class Caps:
    """How much of each kind a slate has so far: items of a leaf, of a category, from a source."""

    def __init__(self, snapshot: Snapshot, config: CapsConfig) -> None:
        self.leaf, self.category, self.source = config.leaf, config.category, config.source
        self.any = any(most is not None for most in (self.leaf, self.category, self.source))
        self.snapshot = snapshot
        self._leaves, self._sources = dict[int, int](), dict[str, int]()
        self._held = dict[str, int]()  # of a category

    def full(self, item: int, source: str) -> bool:
        if not self.any:
            return False
        if self.leaf is not None and self._leaves.get(self.snapshot.leaf_of(item), 0) >= self.leaf:
            return True
        if self.category is not None:
            for name in self.snapshot.categories[item]:
                if self._held.get(name, 0) >= self.category:
                    return True
        return self.source is not None and self._sources.get(source, 0) >= self.source

    def take(self, item: int, source: str) -> None:
        if self.leaf is not None:
            _count(self._leaves, self.snapshot.leaf_of(item))
        for name in () if self.category is None else self.snapshot.categories[item]:
            _count(self._held, name)
        _count(self._sources, source)


def _count(held: dict[T, int], kind: T) -> None:
    held[kind] = held.get(kind, 0) + 1


Draw = tuple[float, float, float]  # in [0, 1): whether a place is drawn, from which list, which of it


def arrange(
    lists: Sequence[Sequence[Entry]],
    shares: Sequence[float],
    n: int,
    caps: Caps,
    epsilon: float = 0.0,
    draws: Sequence[Draw] = (),
) -> list[Place]:
    """Up to `n` places, each item once; fewer where lists and caps leave no more.

    Each place goes to the list that is furthest behind its share, and there to the first that is neither placed nor
    full; with chance `epsilon` (by `draws`, one for each place) to any of a list, the list drawn by its share. A
    place's propensity is the chance of that, given the places above it, whence they came, and what the sources
    proposed, times the chance with which its source proposed these: see `docs/serving.md`, "Propensities".
    """
    shelf = _Shelf({number: entries for number, entries in enumerate(lists) if shares[number] > 0}, shares, caps)
    places: list[Place] = []
    while len(places) < n and (turn := shelf.next_turn()) is not None:
        entry, by_turn = shelf.first(turn), turn
        if epsilon and draws[len(places)][0] < epsilon:
            turn, entry = shelf.any(draws[len(places)])
        if epsilon:
            chance = (1 - epsilon) * shelf.chance_of_first(by_turn, entry) + epsilon * shelf.chance_of_any(entry)
        else:
            chance = 1.0 if entry.by.weights is None else shelf.chance_of_first(turn, entry)
        shelf.take(turn, entry)
        own = entry.by.chance
        places.append(Place(entry, None if own is None else own * chance))
    return places


class _Shelf:
    """Lists of which some entries are placed, or too many of their kind."""

    def __init__(self, waiting: dict[int, Sequence[Entry]], shares: Sequence[float], caps: Caps) -> None:
        self.waiting, self.shares, self.caps = waiting, shares, caps
        self.heads, self.given = dict.fromkeys(waiting, 0), dict.fromkeys(waiting, 0)
        self.taken: set[int] = set()
        self.total = self._total()

    def next_turn(self) -> int | None:
        """The list that is furthest behind its share and has something; what is taken or full is passed by for good."""
        while self.waiting:
            size, turn, most = len(self.taken) + 1, -1, float("-inf")
            for number in self.waiting:
                behind = self.shares[number] / self.total * size - self.given[number]
                if behind > most:
                    turn, most = number, behind
            if self._advance(turn):
                return turn
            del self.waiting[turn]
            self.total = self._total()
        return None

    def _total(self) -> float:
        """Shares of the lists that have something."""
        return sum([self.shares[number] for number in self.waiting])

    def _advance(self, turn: int) -> bool:
        """To the first of the list that is open, if there is one."""
        entries, start = self.waiting[turn], self.heads[turn]
        if isinstance(entries, Listed):  # whose entries are not made to be passed by
            source = entries.by.source
            for place, item in enumerate(entries.items[start:], start):
                if item not in self.taken and not self.caps.full(item, source):
                    self.heads[turn] = place
                    return True
            return False
        for place in range(start, len(entries)):
            if self._is_open(entries[place]):
                self.heads[turn] = place
                return True
        return False

    def first(self, turn: int) -> Entry:
        return self.waiting[turn][self.heads[turn]]

    def any(self, draw: Draw) -> tuple[int, Entry]:
        open_ = self._all_open()
        left = draw[1] * sum(self.shares[number] for number in open_)
        for number in open_:
            left -= self.shares[number]
            if left < 0:
                break
        entries = open_[number]
        return number, entries[int(draw[2] * len(entries))]

    def chance_of_any(self, entry: Entry) -> float:
        open_ = self._all_open()
        total = sum(self.shares[number] for number in open_)
        return sum(
            self.shares[number] / total / len(entries)
            for number, entries in open_.items()
            if any(other.item == entry.item for other in entries)
        )

    def chance_of_first(self, turn: int, entry: Entry) -> float:
        """That the entry is the first of the list; where its order is drawn, before it was."""
        weights = self.first(turn).by.weights
        if weights is None:
            return float(self.first(turn).item == entry.item)
        if entry.item not in weights:
            return 0.0
        left = sum(weights[each.item] for each in self.waiting[turn] if self._is_open(each))
        return weights[entry.item] / left

    def take(self, turn: int, entry: Entry) -> None:
        self.given[turn] += 1
        self.taken.add(entry.item)
        self.caps.take(entry.item, entry.by.source)

    def _is_open(self, entry: Entry) -> bool:
        return entry.item not in self.taken and not self.caps.full(entry.item, entry.by.source)

    def _all_open(self) -> dict[int, list[Entry]]:
        found = {number: [each for each in entries if self._is_open(each)] for number, entries in self.waiting.items()}
        return {number: entries for number, entries in found.items() if entries}
