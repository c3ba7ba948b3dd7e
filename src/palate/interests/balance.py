"""One cut of the interest tree: spherical k-means whose parts may not carry more than a capacity."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray
from palate.interests.settle import settle

Weights = npt.NDArray[np.float64]
Parts = npt.NDArray[np.int64]

# Entries of the similarity matrix held at once (128 MiB); rows beyond are assigned but not fitted on.
HELD = 2**25
LEAST_LOAD = 0.4  # of the mean: a part below it lowers its price, so that no interest is a handful of items


def split_balanced(
    vectors: FloatArray, weights: Weights, parts: int, capacity: float, iterations: int, rng: np.random.Generator
) -> Parts:
    """The part (0..parts-1) of each row of `vectors` [n, d], unit length, in an order that is random.

    Lloyd's rounds in which each part has a price, raised while its load is over `capacity` and lowered while it
    is nearly empty (the dual of the capacity-constrained assignment; parts are cells of a power diagram), then
    `settle`, which moves the rows that lose least until no part is over. All but the last rounds see the first
    rows alone. No part is empty while there are as many rows as parts. Equal rows are dealt out evenly.

    Args:
        weights: Load of each row, [n], above 0, none above the mean load of the level (`level_mean`).
        capacity: Load that no part may exceed, unless rows are too heavy to be packed so.
    """
    n = len(vectors)
    if parts >= n:
        return np.arange(n)
    if parts == 1:
        return np.zeros(n, dtype=np.int64)
    capacity = max(capacity, float(weights.sum()) / parts)
    # Adds at most 1e-5 to a cosine, another part first for each row: what is equal is dealt out, not piled up.
    turn = rng.random(n, dtype=np.float32)
    few, many = min(n, max(4096, 256 * parts)), min(n, HELD // parts)
    centres, prices = _seeds(vectors[:few], parts, rng), np.zeros(parts)
    left, part = iterations, np.zeros(0, dtype=np.int64)
    while left:
        left -= 1
        seen = few if left >= 3 else many
        gain = gains(vectors[:seen], centres, turn[:seen])
        share = float(weights[:seen].sum() / weights.sum())
        prices = _balancing_prices(gain, weights[:seen], capacity * share, prices)
        before, part = part, np.argmax(gain - prices.astype(np.float32), axis=1)
        centres = centroids(vectors[:seen], part, centres)
        if len(before) == seen and (before == part).all():
            left = min(left, 3 if seen < many else 0)  # settled: on to all rows, or done

    def gain_of(rows: Parts) -> FloatArray:
        return gains(vectors[rows], centres, turn[rows])

    return settle(_assign(vectors, centres, turn, prices), gain_of, weights, capacity, parts)


def gains(vectors: FloatArray, centres: FloatArray, turn: FloatArray | None = None) -> FloatArray:
    """Cosine of each row to each centre, [n, parts], ties told apart by `turn`."""
    found = vectors @ centres.T
    if turn is not None:
        places = np.arange(len(centres), dtype=np.float32) / len(centres)
        found += np.float32(1e-5) * ((turn[:, None] + places) % 1)
    return found


def centroids(vectors: FloatArray, part: Parts, otherwise: FloatArray) -> FloatArray:
    """Direction of the mean of each part's rows; the row of `otherwise` for a part that has none."""
    if len(part) * len(otherwise) <= 2**18:  # a sparse matrix takes longer to make than to use
        total = np.asarray((np.arange(len(otherwise))[:, None] == part).astype(np.float32) @ vectors)
    else:
        from scipy.sparse import csr_matrix

        ones, starts = np.ones(len(part), np.float32), np.arange(len(part) + 1)
        total = np.asarray(csr_matrix((ones, part, starts), (len(part), len(otherwise))).T @ vectors, dtype=np.float32)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > 1e-6, total / np.maximum(length, 1e-6), otherwise).astype(np.float32)


def level_mean(weights: Weights, nodes: int) -> float:
    """The largest c with `sum(min(weights, c)) == nodes * c`: the mean load when no item counts more than a node.

    An item that alone exceeds the mean fills one node, and the others share what is left.
    """
    heavy_first = np.sort(weights)[::-1]
    after = heavy_first.sum() - np.concatenate([[0.0], np.cumsum(heavy_first)[:-1]])  # item j and all lighter ones
    means = after[:nodes] / (nodes - np.arange(min(nodes, len(weights))))
    filled = np.flatnonzero(heavy_first[: len(means)] <= means * (1 + 1e-12))
    return float(means[filled[0]] if len(filled) else heavy_first[-1])


def _assign(vectors: FloatArray, centres: FloatArray, turn: FloatArray, prices: Weights) -> Parts:
    step = max(1, HELD // len(centres))
    cuts = [slice(start, start + step) for start in range(0, len(vectors), step)]
    price = prices.astype(np.float32)
    return np.concatenate([np.argmax(gains(vectors[cut], centres, turn[cut]) - price, axis=1) for cut in cuts])


def _seeds(vectors: FloatArray, parts: int, rng: np.random.Generator) -> FloatArray:
    """k-means++ on cosine distance."""
    chosen = [int(rng.integers(len(vectors)))]
    distance = np.full(len(vectors), np.inf)
    for _ in range(parts - 1):
        distance = np.minimum(distance, np.maximum(1 - vectors @ vectors[chosen[-1]], 1e-9))
        distance[chosen] = 0
        mass = np.cumsum(distance)
        chosen.append(int(np.searchsorted(mass, rng.random() * mass[-1], side="right")))
    return vectors[chosen]


def _balancing_prices(gain: FloatArray, weights: Weights, capacity: float, prices: Weights, steps: int = 10) -> Weights:
    """Projected subgradient on the multipliers of `load <= capacity` and `load >= LEAST_LOAD * mean`."""
    parts = gain.shape[1]
    least = LEAST_LOAD * weights.sum() / parts / capacity
    step = 0.5 * float(gain[:4096].std()) + 1e-9
    over, under = np.maximum(prices, 0), np.maximum(-prices, 0)
    for number in range(steps):
        load = np.bincount(np.argmax(gain - (over - under).astype(np.float32), axis=1), weights, parts) / capacity
        size = step / (1 + 0.3 * number)
        over = np.maximum(0, over + size * np.minimum(load - 1, 1))
        under = np.maximum(0, under + size * np.maximum(least - load, -1))
    return np.asarray(over - under)
