"""How a tree grows: which items come first, how many nodes each branch gets, cuts from the root down."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray
from palate.interests.balance import Weights, level_mean, split_balanced

Places = npt.NDArray[np.int64]
Map = Callable[[Callable[["Branch"], "Grown"], Iterable["Branch"]], Iterable["Grown"]]
"""`map`, or one that has workers: `ProcessPoolExecutor().map`, `ray.util.multiprocessing.Pool().map`."""


@dataclass(frozen=True)
class Level:
    """What is to be made of a branch at one level: `nodes` of them, each of about `mean` load."""

    nodes: int
    mean: float


@dataclass(frozen=True)
class Branch:
    """A part of the catalogue that grows on its own. `path` names it; it seeds the randomness."""

    vectors: FloatArray
    weights: Weights
    levels: tuple[Level, ...]
    path: tuple[int, ...]
    max_over_mean: float
    iterations: int


@dataclass(frozen=True)
class Grown:
    """Rows in leaf order, and how many of them each node of each level has, in the same order."""

    order: Places
    sizes: tuple[Places, ...]


def levels_for(weights: Weights, branching: tuple[int, ...]) -> tuple[Level, ...]:
    """Nodes of each level, never more than there are items, and their mean load (`level_mean`)."""
    counts = [min(len(weights), int(count)) for count in np.cumprod(np.array(branching, dtype=np.float64))]
    return tuple(Level(count, level_mean(weights, count)) for count in counts)


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


def grow(branch: Branch, over: Map = map) -> Grown:
    """Cut the branch, then each of its parts, down to the leaves; the parts of the first cut go through `over`."""
    n = len(branch.weights)
    if not branch.levels:
        return Grown(np.arange(n), ())
    level = branch.levels[0]
    part = split_balanced(
        branch.vectors,
        np.minimum(branch.weights, level.mean),
        level.nodes,
        branch.max_over_mean * level.mean,
        branch.iterations,
        np.random.default_rng(branch.path),
    )
    order = np.argsort(part, kind="stable")
    sizes = np.bincount(part, minlength=level.nodes)
    rows = np.split(order, np.cumsum(sizes)[:-1])
    grown = list(over(grow, _parts_of(branch, rows)))
    leaves = np.concatenate([own[below.order] for own, below in zip(rows, grown, strict=True)])
    deeper = [np.concatenate(level_sizes) for level_sizes in zip(*(below.sizes for below in grown), strict=True)]
    return Grown(leaves, (sizes, *deeper))


def _parts_of(branch: Branch, rows: list[Places]) -> Iterator[Branch]:
    shares = [[1] * len(rows)]
    for level in branch.levels[1:]:
        loads = [float(np.minimum(branch.weights[own], level.mean).sum()) for own in rows]
        shares.append(_seats(loads, level.nodes, shares[-1], [len(own) for own in rows]))
    for number, own in enumerate(rows):
        levels = tuple(
            Level(share[number], level.mean) for share, level in zip(shares[1:], branch.levels[1:], strict=True)
        )
        path = (*branch.path, number)
        yield Branch(branch.vectors[own], branch.weights[own], levels, path, branch.max_over_mean, branch.iterations)


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
