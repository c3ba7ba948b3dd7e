"""Items that a cut higher up has parted from their like change their branch, as far as every level has room."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from palate.data.dataset import FloatArray
from palate.interests.balance import HELD, centroids
from palate.interests.settle import Mask, Parts, Weights, running

LEAST_GAIN = 1e-3  # of cosine: below it a move is not worth its unrest
MOST_FLOPS = 2e12  # spent on a level: fewer rounds where items times nodes are many; beyond, crowded nodes alone
CROWDED_ROUNDS = 3


def exchange(
    vectors: FloatArray,
    node: Parts,
    parents: Sequence[Parts],
    loads: Sequence[Weights],
    capacities: Sequence[float],
    rounds: int,
    least: float = LEAST_GAIN,
) -> Parts:
    """`node` [n], the node of the deepest level so far, after `rounds` in which rows go where they are nearer.

    How near a node is to a row counts on every level alike: the mean cosine to the node and to all above it, so that
    what one level gains is not lost by another. A row goes to the best node that has room, in the order of what it
    gains, if the nodes above have room too. From a node that carries too much rows go even at a loss.

    Args:
        parents: For each level from the first down to this one, the node of that level over each node of this one.
        loads: Load of each row at each of these levels.
        capacities: What a node of each level may carry.
        least: Rows that gain less stay.
    """
    count = len(parents[-1])
    affordable = int(MOST_FLOPS / (2.0 * vectors.size * count))
    for _ in range(min(rounds, affordable or CROWDED_ROUNDS)):
        towards = np.asarray(np.mean([_centres(vectors, above[node], above) for above in parents], axis=0), np.float32)
        rooms = [
            np.asarray(capacity - np.bincount(above[node], load, int(above.max()) + 1), dtype=np.float64)
            for above, load, capacity in zip(parents, loads, capacities, strict=True)
        ]
        room = np.min([own[above] for own, above in zip(rooms, parents, strict=True)], axis=0)
        target, gain = node.copy(), np.full(len(node), -np.inf, dtype=np.float32)
        seen: slice | Parts = slice(None) if affordable else np.flatnonzero((rooms[-1] < 0)[node])
        target[seen], gain[seen] = _best(vectors[seen], towards, node[seen], loads[-1][seen], room)
        rows = np.flatnonzero((gain > least) | _crowded(node, gain, loads[-1], -rooms[-1]))
        rows = rows[np.argsort(-gain[rows], kind="stable")]
        for above, load, own in zip(parents, loads, rooms, strict=True):
            comes = np.where((above[target] != above[node])[rows], load[rows], 0.0)
            rows = rows[_within(above[target[rows]], comes, np.maximum(own, 0))]
        halves = 0.5 * np.bincount(node, minlength=count).astype(np.float64)  # of its items no node loses more at once
        rows = rows[_within(node[rows], np.ones(len(rows)), halves)]
        if not len(rows):
            break
        node = node.copy()
        node[rows] = target[rows]
    return node


def _crowded(node: Parts, gain: FloatArray, load: Weights, excess: Weights) -> Mask:
    """Rows that leave nodes that carry too much: those that lose least for their load, and no more than need be."""
    found = np.zeros(len(node), dtype=np.bool_)
    rows = np.flatnonzero((excess > 0)[node] & np.isfinite(gain))
    rows = rows[np.lexsort((-gain[rows] / load[rows], node[rows]))]
    found[rows[running(node[rows], load[rows]) - load[rows] < excess[node[rows]]]] = True
    return found


def _centres(vectors: FloatArray, of_row: Parts, above: Parts) -> FloatArray:
    """For each node of this level the centre of the node above it, [nodes, d]."""
    return centroids(vectors, of_row, np.zeros((int(above.max()) + 1, vectors.shape[1]), dtype=np.float32))[above]


def _best(
    vectors: FloatArray, towards: FloatArray, node: Parts, load: Weights, room: Weights
) -> tuple[Parts, FloatArray]:
    """The best node with room for each row, and how much nearer it is than the row's own."""
    target, gain = np.empty(len(vectors), dtype=np.int64), np.empty(len(vectors), dtype=np.float32)
    step = max(1, HELD // len(towards))
    for start in range(0, len(vectors), step):
        cut = slice(start, start + step)
        near = vectors[cut] @ towards.T
        place = np.arange(len(near))
        own = near[place, node[cut]]
        near[load[cut, None] > room] = -np.inf
        target[cut] = np.argmax(near, axis=1)
        gain[cut] = near[place, target[cut]] - own
    return target, gain


def _within(group: Parts, values: Weights, room: Weights) -> Parts:
    """Places, in their order, of those whose group has room for them and for all of it that come before."""
    order = np.argsort(group, kind="stable")
    fits = running(group[order], values[order]) <= room[group[order]]
    return np.sort(order[fits])
