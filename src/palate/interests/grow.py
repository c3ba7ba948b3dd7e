"""How a tree grows: which items come first, how many parts each node gets, cuts from the root down."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from palate.data.dataset import FloatArray
from palate.interests.balance import Parts, Weights, level_mean, split_balanced
from palate.interests.exchange import exchange

SMALL = 10_000  # rows of a node
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cut:
    """One node to be cut; independent of the others of its level."""

    vectors: FloatArray  # [n, d]
    weights: Weights  # [n], none above the level's mean
    parts: int
    capacity: float
    iterations: int
    seed: tuple[int, ...]


Map = Callable[[Callable[[Cut], Parts], Iterable[Cut]], Iterable[Parts]]
"""`map`, or one that has workers: `ProcessPoolExecutor().map`, `ray.util.multiprocessing.Pool().map`."""


def branching_for(n_items: int) -> tuple[int, ...]:
    """Four levels in the proportions 32 · 24 · 8 · 8, about 20 items a leaf; fewer levels for few items."""
    shape = np.array([32, 24, 8, 8])
    share = np.log(shape) / np.log(shape.prod())
    found = np.round(max(2.0, n_items / 20) ** share).astype(int)
    return tuple(int(parts) for parts in found if parts >= 2) or (2,)


def canonical_order(vectors: FloatArray, weights: Weights, seed: int) -> Places:
    """A random order that depends on what rows hold and not on where they stand: sorted by a hash of each row."""
    rng = np.random.default_rng(seed)
    odd = rng.integers(2**63, size=vectors.shape[1] + 1, dtype=np.uint64) * 2 + 1
    hashes = (weights + 0.0).view(np.uint64) * odd[-1]
    for start in range(0, len(vectors), 65536):
        bits = (vectors[start : start + 65536] + np.float32(0)).view(np.uint32).astype(np.uint64)
        hashes[start : start + 65536] += (bits * odd[:-1]).sum(axis=1, dtype=np.uint64)
    # The low bits of a product know only the low bits of its factors.
    return np.argsort(hashes ^ (hashes >> np.uint64(32)), kind="stable")


def cut(node: Cut) -> Parts:
    return split_balanced(
        node.vectors, node.weights, node.parts, node.capacity, node.iterations, np.random.default_rng(node.seed)
    )


def grow(
    vectors: FloatArray,
    weights: Weights,
    shape: Sequence[int],
    max_over_mean: float,
    iterations: int,
    seed: int,
    over: Map = map,
) -> tuple[Places, list[Places]]:
    """Rows in leaf order, and how many of them each node of each level has, in the same order.

    Each level is cut node by node, then items change their branch where that brings them nearer (`exchange`).

    Args:
        vectors: [n, d], in an order that is random and depends on the rows alone (`canonical_order`).
        shape: Nodes of each level, at most one a row, never fewer than the level above.
    """
    order, sizes = np.arange(len(weights)), [np.array([len(weights)])]
    paths: list[Places] = []  # for each level so far, its node over each node of the deepest
    weighed: list[Weights] = []
    capacities: list[float] = []
    for level, nodes in enumerate(shape):
        mean = level_mean(weights, nodes)
        loads, capacity = np.minimum(weights, mean), max_over_mean * mean
        rows = np.split(order, np.cumsum(sizes[-1])[:-1])
        parts = _parts_of(rows, loads, nodes, capacity)
        cuts = (
            Cut(vectors[own], loads[own], count, capacity, iterations, (seed, level, number))
            for number, (own, count) in enumerate(zip(rows, parts, strict=True))
        )
        # A second thread on small matrices is waited for longer than it helps.
        with threadpool_limits(1 if len(weights) < SMALL * len(rows) else None):
            found = list(over(cut, cuts))
        bases = np.cumsum([0, *parts[:-1]])
        node = np.empty(len(weights), dtype=np.int64)
        node[order] = np.concatenate([part + base for part, base in zip(found, bases, strict=True)])
        above = np.repeat(np.arange(len(rows)), parts)
        paths = [*(path[above] for path in paths), np.arange(nodes)]
        weighed.append(loads)
        capacities.append(capacity)
        if level:
            node = exchange(vectors, node, paths, weighed, capacities, iterations)
        order = np.argsort(node, kind="stable")
        sizes = [np.bincount(path[node]) for path in paths]
    return order, sizes


def _parts_of(rows: list[Places], loads: Weights, nodes: int, capacity: float) -> list[int]:
    """How many parts each node is cut into: by its load, one at least, and one for each item too heavy to share."""
    heavy = [max(1, int((loads[own] > capacity / 2).sum())) for own in rows]
    least = heavy if sum(heavy) <= nodes else [1] * len(rows)
    return _seats([float(loads[own].sum()) for own in rows], nodes, least, [len(own) for own in rows])


def _seats(loads: list[float], seats: int, least: list[int], most: list[int]) -> list[int]:
    """Seats for each party, so that the largest load a seat is as small as can be (d'Hondt's highest averages)."""
    given = list(least)
    queue = [(-load / have, number) for number, (load, have) in enumerate(zip(loads, given, strict=True))]
    heapq.heapify(queue)
    for _ in range(seats - sum(least)):
        number = next(number for number in _popped(queue) if given[number] < most[number])
        given[number] += 1
        heapq.heappush(queue, (-loads[number] / given[number], number))
    return given


def _popped(queue: list[tuple[float, int]]) -> Iterator[int]:
    while queue:
        yield heapq.heappop(queue)[1]
