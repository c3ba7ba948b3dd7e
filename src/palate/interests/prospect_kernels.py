"""Compiled `Prospects` (numba): all pairs of interests in one pass, where the table has each of them.

Imported only where numba is there: see `explore.TransitionTable.compile`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from palate.data.compiled import compiled


@compiled
def interests(node_of: Any, history: Any, recent: Any, n_nodes: int) -> Any:
    """As `explore.prospects_of`: nodes of the last events, which weigh as `recent` says, their chances, and `met`."""
    events, chances, met = np.zeros(n_nodes, np.int64), np.zeros(n_nodes), np.zeros(n_nodes)
    first, found = len(history) - len(recent), 0
    for place in range(len(history)):
        node = node_of[history[place]]
        met[node] += 1
        if place >= first:
            found += events[node] == 0
            events[node] += 1
            chances[node] += recent[place - first]
    nodes, weights, at = np.empty(found, np.int32), np.empty(found), 0
    for node in range(n_nodes):
        if events[node]:
            nodes[at], weights[at] = node, chances[node]
            at += 1
    weights = np.maximum(weights / weights.sum(), 1e-9)
    return nodes, weights / weights.sum(), met / len(history)


@compiled
def _look(start: int, stop: int, proposed: Any, met: Any, least: float, rare: int) -> Any:
    """The first in a stretch that is new, or -1; and what was rarest before it."""
    for place in range(start, stop):
        node = proposed[place]
        if met[node] == 0:
            return node, least, rare
        if met[node] < least:
            least, rare = met[node], node
    return -1, least, rare


@compiled
def pairs(nodes: Any, weights: Any, met: Any, starts: Any, stops: Any, proposed: Any, limit: float) -> Any:
    """As `prospects.Prospects`, of all ordered pairs: whether the table answers them all, the chance of each pair, what
    is new, the share of the rarest and which that is; and the chance that a draw has nothing new.
    """
    m, last, known = len(nodes), len(starts) - 1, True
    drawn, share = np.zeros(m * m), np.full(m * m, np.inf)
    new, rare = np.full(m * m, -1, np.int32), np.zeros(m * m, np.int32)
    total, nothing = 0.0, 0.0
    for first in range(m):
        one = min(nodes[first], last)
        for second in range(m):
            if first == second:
                continue
            at, other = first * m + second, min(nodes[second], last)
            chance = weights[first] * weights[second] / max(1 - weights[first], 1e-300)
            node, least, rarest = _look(starts[one, other], stops[one, other], proposed, met, np.inf, 0)
            if node < 0:
                node, least, rarest = _look(starts[one, one], stops[one, one], proposed, met, least, rarest)
            if node < 0:
                node, least, rarest = _look(starts[other, other], stops[other, other], proposed, met, least, rarest)
            if node < 0:
                known = known and starts[one, other] < stops[one, other]
                nothing += chance
                share[at] = least if least < limit else np.inf
            drawn[at], new[at], rare[at] = chance, node, rarest
            total += chance
    return known, drawn / total, new, share, rare, nothing / total


@compiled
def settle(
    drawn: Any, new: Any, share: Any, rare: Any, wants_new: bool, draws: Any, nothing: float, attempts: int
) -> Any:
    """As `prospects.Prospects._settle`."""
    total, best = 0.0, -1
    for at in range(len(drawn)):
        if (new[at] >= 0) == wants_new:
            total += drawn[at]
    for draw in draws:
        passed, place = 0.0, -1
        for at in range(len(drawn)):
            if (new[at] >= 0) == wants_new and drawn[at] > 0:
                passed, place = passed + drawn[at], at
                if passed > draw * total:
                    break
        if best < 0 or share[place] < share[best]:
            best = place
    here, own, above = 0.0, 0.0, 0.0
    for at in range(len(drawn)):
        if wants_new and new[at] == new[best]:
            own += drawn[at]
        elif not wants_new and new[at] < 0 and share[at] >= share[best]:
            above += drawn[at]
            here += drawn[at] if share[at] == share[best] else 0.0
            own += drawn[at] if share[at] == share[best] and rare[at] == rare[best] else 0.0
    if wants_new:
        return best, own * (1 - nothing**attempts) / (1 - nothing)
    return best, (above**attempts - max(above - here, 0.0) ** attempts) * own / here
