"""What exploration may come to for a person: every draw of interests with its outcome, its chance, and one at random.

One draw is of two distinct nodes (or one), the second from what the first left: w_a · w_b / (1 - w_a). Its outcome is
the first proposal that is new to the person, or else the rarest. Of A draws the first with something new decides; where
none has, the rarest of all. So with B the chance that a draw has nothing new, a new node has (1 - B^A) / (1 - B) times
the chance of the draws that lead to it, and a rare one its part of P(least share = s), which is P(share >= s)^A -
P(share > s)^A.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from palate.data.dataset import IntArray

if TYPE_CHECKING:
    from palate.interests.explore import TransitionTable

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Outcomes:
    """Of lists of proposals, elementwise: what is taken from each."""

    new: IntArray  # the first node that is new, or -1
    share: Floats  # where there is none, the least share of the history among those proposed; infinite for none
    rare: IntArray  # its node

    def then(self, other: Outcomes) -> Outcomes:
        """Where there is nothing new, look on in the other's lists."""
        open_ = self.new < 0
        rarer = open_ & (other.share < self.share)
        return Outcomes(
            np.where(open_, other.new, self.new),
            np.where(rarer, other.share, self.share),
            np.where(rarer, other.rare, self.rare),
        )

    def spread(self, axis: int) -> Outcomes:
        """The outcome of each node, for all pairs with it at one end."""
        shape = (-1, 1) if axis == 0 else (1, -1)
        return Outcomes(self.new.reshape(shape), self.share.reshape(shape), self.rare.reshape(shape))

    def where(self, mask: npt.NDArray[np.bool_]) -> Outcomes:
        return Outcomes(np.where(mask, self.new, -1), np.where(mask, self.share, np.inf), self.rare)


@dataclass(frozen=True)
class Drawn:
    """The nodes that were drawn, where they lead, and with what chance exploration goes there."""

    from_nodes: tuple[int, ...]
    to_node: int
    novel: bool
    chance: float


class Prospects:
    """All draws for a person.

    Args:
        nodes: [m], distinct, of the recent history.
        weights: [m], the chance of each.
        met: Share of the history in each node of the tree.
        table: What was proposed.
        size: Nodes that are drawn together, 1 or 2.
        attempts: Draws before giving up.
        rare: The share below which a node that was met may still be explored.
    """

    def __init__(
        self,
        nodes: IntArray,
        weights: Floats,
        met: Floats,
        table: TransitionTable,
        size: int,
        attempts: int,
        rare: float,
    ) -> None:
        self.nodes, self.attempts, self.pairwise = nodes, attempts, size == 2 and len(nodes) > 1
        self._compiled = table.compiled
        if self.pairwise and self._compiled is not None:
            known, self.drawn, self.new, self.share, self.rare, self.nothing_new = self._compiled.pairs(
                nodes, weights, met, *table.stretches, table.next_nodes, rare
            )
            if known:
                return
        found = _pairs(nodes, met, table) if self.pairwise else _alone(nodes, met, table)
        self.drawn = (_in_pairs(weights) if self.pairwise else weights).ravel()
        self.new, self.rare = found.new.ravel(), found.rare.ravel()
        self.share = np.where(found.share < rare, found.share, np.inf).ravel()
        self.nothing_new = float(self.drawn[self.new < 0].sum())

    def draw(self, rng: np.random.Generator) -> Drawn | None:
        """One of the possible outcomes by its chance; None where there is nothing."""
        for_sure = self.nothing_new < 1e-12
        is_new = for_sure or rng.random() >= self.nothing_new**self.attempts
        draws = rng.random(1 if is_new else self.attempts)
        place, chance = self._settled(is_new, draws)
        if not is_new and not np.isfinite(self.share[place]):
            return None
        return Drawn(self._from(place), int((self.new if is_new else self.rare)[place]), is_new, chance)

    def _settled(self, is_new: bool, draws: Floats) -> tuple[int, float]:
        """The pair that draws in [0, 1) come to, and the chance of where it leads."""
        if self._compiled is not None:
            outcomes = self.drawn, self.new, self.share, self.rare
            found: tuple[int, float] = self._compiled.settle(*outcomes, is_new, draws, self.nothing_new, self.attempts)
            return found
        tried = self._one_of((self.new >= 0) == is_new, draws)
        place = int(tried[self.share[tried].argmin()])
        if is_new:
            return place, self._chance_of_new(int(self.new[place]))
        share = float(self.share[place])
        return place, self._chance_of_rare(int(self.rare[place]), share) if np.isfinite(share) else 0.0

    @cached_property
    def chances(self) -> dict[int, float]:
        """Of each node that may be explored; what is missing to 1 is the chance that nothing is."""
        may = self.drawn > 0
        found = {node: self._chance_of_new(node) for node in np.unique(self.new[may & (self.new >= 0)]).tolist()}
        if self.nothing_new < 1e-12:
            return found
        rarely = may & (self.new < 0) & np.isfinite(self.share)
        rare = dict(zip(self.rare[rarely].tolist(), self.share[rarely].tolist(), strict=True))
        return found | {node: self._chance_of_rare(node, share) for node, share in rare.items()}

    def _chance_of_new(self, node: int) -> float:
        own = float(self.drawn[self.new == node].sum())
        return float(own * (1 - self.nothing_new**self.attempts) / (1 - self.nothing_new))

    def _chance_of_rare(self, node: int, share: float) -> float:
        """Of a node that has that share of the history."""
        old = np.where(self.new < 0, self.drawn, 0)
        tied = self.share == share
        here, own = float(old[tied].sum()), float(old[tied & (self.rare == node)].sum())
        above = float(old[self.share >= share].sum())
        return float((above**self.attempts - max(above - here, 0.0) ** self.attempts) * own / here)

    def _one_of(self, mask: npt.NDArray[np.bool_], draws: Floats) -> IntArray:
        """Among those of the mask, by their chance."""
        bounds = (self.drawn * mask).cumsum()
        places = bounds.searchsorted(draws * bounds[-1], side="right")
        last: IntArray = np.minimum(places, bounds.searchsorted(bounds[-1]))
        return last

    def _from(self, place: int) -> tuple[int, ...]:
        if not self.pairwise:
            return (int(self.nodes[place]),)
        first, second = divmod(int(place), len(self.nodes))
        return int(self.nodes[first]), int(self.nodes[second])


def _in_pairs(weights: Floats) -> Floats:
    """The chance of each ordered pair, [m, m]."""
    pairs: Floats = weights[:, None] * weights / np.maximum(1 - weights, 1e-300)[:, None]
    pairs.reshape(-1)[:: len(weights) + 1] = 0
    pairs /= pairs.sum()
    return pairs


def _pairs(nodes: IntArray, met: Floats, table: TransitionTable) -> Outcomes:
    """Of all ordered pairs, [m, m]: the pair itself, then each of the two alone, then all pairs with either."""
    start, stop = table.spans(nodes[:, None], nodes)
    found = _taken(start, stop, table.next_nodes, met)
    if (found.new < 0).any():
        single = _taken(start.diagonal(), stop.diagonal(), table.next_nodes, met)
        found = found.then(single.spread(0)).then(single.spread(1))
        missing = start == stop
        if (missing & (found.new < 0)).any():
            either = _with(nodes, met, table)
            found = found.then(either.spread(0).where(missing)).then(either.spread(1).where(missing))
    return found


def _alone(nodes: IntArray, met: Floats, table: TransitionTable) -> Outcomes:
    start, stop = table.spans(nodes, nodes)
    found = _taken(start, stop, table.next_nodes, met)
    missing = start == stop
    return found.then(_with(nodes, met, table).where(missing)) if missing.any() else found


def _with(nodes: IntArray, met: Floats, table: TransitionTable) -> Outcomes:
    lists = [[each.next_node for each in table.with_node(node)] for node in nodes.tolist()]
    ends = np.cumsum([len(each) for each in lists])
    joined = np.array([node for each in lists for node in each], dtype=np.int32)
    return _taken(ends - [len(each) for each in lists], ends, joined, met)


def _taken(start: IntArray, stop: IntArray, proposed: IntArray, met: Floats) -> Outcomes:
    """What stands in each stretch of `proposed`, read from its first to its last."""
    found: Outcomes | None = None
    longest = max(1, int((stop - start).max(initial=0)))
    for place in range(longest):
        inside = start + place < stop
        node = proposed.take(start + place, mode="clip") if len(proposed) else np.zeros(start.shape, dtype=np.int32)
        share = met.take(node)
        new = inside & (share == 0)
        own = Outcomes(np.where(new, node, -1), np.where(inside & ~new, share, np.inf), node)
        found = own if found is None else found.then(own)
        if place + 1 == longest or not ((found.new < 0) & (start + place + 1 < stop)).any():
            break
    assert found is not None
    return found
