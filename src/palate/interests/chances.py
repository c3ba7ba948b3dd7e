"""With what chance `explore` goes to an interest: exactly, so that what was explored can be weighed afterwards.

One draw is of two distinct nodes (or one), the second from what the first left: w_a · w_b / (1 - w_a). It has an
outcome: the first proposal that is new to the person, or else the rarest. Of A draws the first with something new
decides; where none has, the rarest of all. So with B the chance that a draw has nothing new, a new node v has
(1 - B^A) / (1 - B) times the chance of the draws that lead to it, and a rare one its part of
P(least share = s) = P(share >= s)^A - P(share > s)^A.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.data.dataset import IntArray
from palate.data.query import Query
from palate.interests.explore import ExploreConfig, TransitionTable, recent_interests
from palate.interests.tree import InterestTree

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Outcome:
    """Of lists of proposals, elementwise: what `explore` would take from each, had it to."""

    new: IntArray  # the first node that is new, or -1
    share: Floats  # the least share of the history among those that are not, before it; infinite for none
    rare: IntArray  # its node

    def then(self, other: _Outcome) -> _Outcome:
        """Where there is nothing new, look on in the other's lists."""
        open_, rarer = self.new < 0, (self.new < 0) & (other.share < self.share)
        return _Outcome(
            np.where(open_, other.new, self.new),
            np.where(rarer, other.share, self.share),
            np.where(rarer, other.rare, self.rare),
        )

    def spread(self, shape: tuple[int, int], axis: int) -> _Outcome:
        """The outcome of each node, for all pairs with it at one end."""
        turn = (lambda x: np.broadcast_to(x[:, None], shape)) if axis == 0 else lambda x: np.broadcast_to(x, shape)
        return _Outcome(turn(self.new), turn(self.share), turn(self.rare))

    def where(self, mask: npt.NDArray[np.bool_]) -> _Outcome:
        return _Outcome(np.where(mask, self.new, -1), np.where(mask, self.share, np.inf), self.rare)


def chance_of(
    node: int,
    query: Query,
    tree: InterestTree,
    transitions: TransitionTable,
    level: int,
    config: ExploreConfig | None = None,
) -> float:
    """The chance that `explore` of the same arguments restricts the query to `node`."""
    return chances(query, tree, transitions, level, config).get(node, 0.0)


def chances(
    query: Query, tree: InterestTree, transitions: TransitionTable, level: int, config: ExploreConfig | None = None
) -> dict[int, float]:
    """Of each node that may be explored; what is missing to 1 is the chance that nothing is."""
    config = config or ExploreConfig()
    node_of = tree.node_of_items(level)
    if len(query.history) == 0 or len(transitions) == 0:
        return {}
    nodes, weights = recent_interests(node_of[query.history[-config.recent :]], config.half_life)
    met = np.bincount(node_of[query.history], minlength=len(tree.nodes)) / len(query.history)
    pairwise = config.interests == 2 and len(nodes) > 1
    found = _pairs(nodes, met, transitions) if pairwise else _alone(nodes, met, transitions)
    drawn = _drawn(weights) if pairwise else weights
    possible = drawn > 0
    share = np.where(found.share < config.rare_share / len(tree.at_level(level)), found.share, np.inf)
    outcome = _Outcome(found.new[possible], share[possible], found.rare[possible])
    return _of_nodes(outcome, drawn[possible], config.attempts)


def _drawn(weights: Floats) -> Floats:
    """Of each ordered pair, [m, m]."""
    left = 1 - weights
    pairs: Floats = weights[:, None] * weights[None, :] / np.where(left > 0, left, 1)[:, None]
    np.fill_diagonal(pairs, 0)
    return pairs / pairs.sum()


def _pairs(nodes: IntArray, met: Floats, table: TransitionTable) -> _Outcome:
    """Of all ordered pairs, [m, m]: the pair itself, then each of the two alone, then all pairs with either."""
    shape = (len(nodes), len(nodes))
    first, second = np.broadcast_to(nodes[:, None], shape), np.broadcast_to(nodes, shape)
    start, stop = table.spans(first, second)
    found = _taken(start, stop, table.next_nodes, met)
    if (found.new < 0).any():
        single = _taken(*table.spans(nodes, nodes), table.next_nodes, met)
        found = found.then(single.spread(shape, 0)).then(single.spread(shape, 1))
        if ((found.new < 0) & (start == stop)).any():
            either = _with(nodes, met, table)
            for axis in (0, 1):
                found = found.then(either.spread(shape, axis).where(start == stop))
    return found


def _alone(nodes: IntArray, met: Floats, table: TransitionTable) -> _Outcome:
    start, stop = table.spans(nodes, nodes)
    found = _taken(start, stop, table.next_nodes, met)
    missing = start == stop
    return found.then(_with(nodes, met, table).where(missing)) if missing.any() else found


def _with(nodes: IntArray, met: Floats, table: TransitionTable) -> _Outcome:
    lists = [[each.next_node for each in table.with_node(node)] for node in nodes.tolist()]
    ends = np.cumsum([len(each) for each in lists])
    joined = np.array([node for each in lists for node in each], dtype=np.int32)
    return _taken(ends - [len(each) for each in lists], ends, joined, met)


def _taken(start: IntArray, stop: IntArray, proposed: IntArray, met: Floats) -> _Outcome:
    """What stands in each stretch of `proposed`, read from its first to its last."""
    found = _Outcome(np.full(start.shape, -1), np.full(start.shape, np.inf), np.full(start.shape, -1))
    for place in range(int((stop - start).max(initial=0))):
        inside = start + place < stop
        node = proposed[np.where(inside, start + place, 0)]
        share = met[node]
        own = _Outcome(np.where(share == 0, node, -1), np.where(share == 0, np.inf, share), node)
        found = found.then(own.where(inside))
        if not (found.new[stop > start] < 0).any():
            break
    return found


def _of_nodes(outcome: _Outcome, drawn: Floats, attempts: int) -> dict[int, float]:
    nothing_new = outcome.new < 0
    none = float(drawn[nothing_new].sum())
    times = attempts if none >= 1 else (1 - none**attempts) / (1 - none)
    found: dict[int, float] = {}
    for node in np.unique(outcome.new[~nothing_new]).tolist():
        found[node] = times * float(drawn[outcome.new == node].sum())
    above = none
    for share in np.unique(outcome.share[nothing_new & np.isfinite(outcome.share)]).tolist():
        tied = nothing_new & (outcome.share == share)
        here = float(drawn[tied].sum())
        least = above**attempts - max(above - here, 0.0) ** attempts
        for node in np.unique(outcome.rare[tied]).tolist():
            own = float(drawn[tied & (outcome.rare == node)].sum())
            found[node] = found.get(node, 0.0) + least * own / here
        above -= here
    return found
