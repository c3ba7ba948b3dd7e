"""One cut of the interest tree: k-means whose parts must carry about the same weight."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray

Weights = npt.NDArray[np.float64]
Parts = npt.NDArray[np.int64]


def split_balanced(
    vectors: FloatArray,
    weights: Weights,
    parts: int,
    slack: float,
    fewest: int,
    iterations: int,
    rng: np.random.Generator,
) -> Parts:
    """The part (0..parts-1) of each row of `vectors` [n, d], unit length.

    Spherical k-means in which each part has a price that rises while it is too heavy (the dual of the
    capacity-constrained assignment), then a repair that moves the rows which lose least until no part is
    heavier than `slack` times the mean. Where heavy single rows forbid that, rows go heaviest first to the
    nearest part with room, else to the lightest. A row heavier than a part counts as one part, so that the
    others still share what is left. Each part gets at least `fewest` rows.
    """
    weights = _clipped(weights, parts)
    capacity = slack * weights.sum() / parts
    centres = _seeds(vectors, weights, parts, rng)
    prices = np.zeros(parts)
    for _ in range(iterations):
        similarity = (vectors @ centres.T).astype(np.float64)
        prices = _balancing_prices(similarity, weights, prices)
        part = np.argmax(similarity - prices, axis=1)
        centres = _centres(vectors, weights, part, centres)
    gain = (vectors @ centres.T).astype(np.float64) - prices
    part = np.argmax(gain, axis=1)
    part = _lighten(part, gain, weights, capacity)
    if np.bincount(part, weights, parts).max() > capacity:
        packed = _pack(gain, weights, capacity)
        if np.bincount(packed, weights, parts).max() < np.bincount(part, weights, parts).max():
            part = packed
    return _fill(part, gain, weights, fewest)


def _clipped(weights: Weights, parts: int) -> Weights:
    """`min(weight, c)` with `c` the mean of the parts so clipped, by fixed-point iteration from above."""
    clipped = weights
    for _ in range(parts):
        clipped = np.minimum(weights, clipped.sum() / parts)
    return clipped


def _seeds(vectors: FloatArray, weights: Weights, parts: int, rng: np.random.Generator) -> FloatArray:
    """k-means++ on cosine distance, weighted."""
    chosen = [int(rng.choice(len(vectors), p=weights / weights.sum()))]
    distance = np.full(len(vectors), np.inf)
    for _ in range(parts - 1):
        latest = 1 - (vectors @ vectors[chosen[-1]]).astype(np.float64)
        distance = np.minimum(distance, np.maximum(latest, 1e-9))
        mass = weights * distance
        mass[chosen] = 0
        chosen.append(int(rng.choice(len(vectors), p=mass / mass.sum())))
    return vectors[chosen]


def _balancing_prices(similarity: Weights, weights: Weights, prices: Weights, rounds: int = 30) -> Weights:
    """Raise the price of heavy parts and lower that of light ones, in ever smaller steps."""
    parts = similarity.shape[1]
    step = 0.5 * float(similarity.std()) + 1e-9
    for round_ in range(rounds):
        load = np.bincount(np.argmax(similarity - prices, axis=1), weights, parts) / weights.sum()
        prices = prices + step / (1 + 0.3 * round_) * np.clip(load * parts - 1, -1, 1)
    return prices


def _centres(vectors: FloatArray, weights: Weights, part: Parts, centres: FloatArray) -> FloatArray:
    result = centres.copy()
    for number in range(len(centres)):
        own = part == number
        total = weights[own].astype(np.float32) @ vectors[own]
        length = float(np.linalg.norm(total))
        if length > 0:
            result[number] = total / length
    return result


def _lighten(part: Parts, gain: Weights, weights: Weights, capacity: float) -> Parts:
    """Move rows out of parts over `capacity`, those that lose least for their weight first."""
    part, parts = part.copy(), gain.shape[1]
    load = np.bincount(part, weights, parts)
    for heavy in np.argsort(-load):
        own = np.flatnonzero(part == heavy)
        second = gain[own].copy()
        second[:, heavy] = -np.inf
        loss = (gain[own, heavy] - second.max(axis=1)) / weights[own]
        for row in own[np.argsort(loss, kind="stable")]:
            if load[heavy] <= capacity:
                break
            room = load + weights[row] <= capacity
            room[heavy] = False
            if room.any():
                target = int(np.argmax(np.where(room, gain[row], -np.inf)))
                part[row] = target
                load[heavy] -= weights[row]
                load[target] += weights[row]
    return part


def _pack(gain: Weights, weights: Weights, capacity: float) -> Parts:
    """Heaviest first to the best part with room, else to the lightest part."""
    load = np.zeros(gain.shape[1])
    part = np.zeros(len(weights), dtype=np.int64)
    for row in np.argsort(-weights, kind="stable"):
        room = load + weights[row] <= capacity
        part[row] = np.argmax(np.where(room, gain[row], -np.inf)) if room.any() else np.argmin(load)
        load[part[row]] += weights[row]
    return part


def _fill(part: Parts, gain: Weights, weights: Weights, fewest: int) -> Parts:
    """Give parts with too few rows the lightest rows of parts that can spare them."""
    count = np.bincount(part, minlength=gain.shape[1])
    for poor in np.flatnonzero(count < fewest):
        for row in np.lexsort((-gain[:, poor], weights)):
            if count[poor] >= fewest:
                break
            if part[row] != poor and count[part[row]] > fewest:
                count[part[row]] -= 1
                count[poor] += 1
                part[row] = poor
    return part
