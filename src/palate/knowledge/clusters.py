"""Clusters of vectors: k-means, and how much an entity belongs to each of the nearest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray

Vectors = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


def kmeans(vectors: Vectors, k: int, rng: np.random.Generator, rounds: int = 25) -> Vectors:
    """Lloyd's algorithm from centres drawn far apart (k-means++, Arthur & Vassilvitskii 2007), [k, n].

    An empty cluster keeps its centre; fewer different vectors than clusters leave centres twice.
    """
    if not len(vectors):
        return np.zeros((k, vectors.shape[1]))
    centres = vectors[rng.integers(len(vectors))][None]
    gaps = ((vectors - centres[0]) ** 2).sum(axis=1)
    while len(centres) < k:
        total = gaps.sum()
        chosen = rng.choice(len(vectors), p=gaps / total) if total > 0 else rng.integers(len(vectors))
        centres = np.concatenate([centres, vectors[chosen][None]])
        gaps = np.minimum(gaps, ((vectors - vectors[chosen]) ** 2).sum(axis=1))
    for _ in range(rounds):
        owners = nearest(vectors, centres)
        counts = np.bincount(owners, minlength=k)
        sums = np.zeros_like(centres)
        np.add.at(sums, owners, vectors)
        moved = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
        if np.allclose(moved, centres):
            break
        centres = moved
    return centres


def nearest(vectors: Vectors, centres: Vectors) -> Codes:
    """The number of the nearest centre of each row, the first among equals."""
    gaps = (centres**2).sum(axis=1) - 2 * vectors @ centres.T
    return np.asarray(gaps.argmin(axis=1), dtype=np.int64)


def soft_assignment(vectors: FloatArray, centres: FloatArray, top: int = 3, temperature: float = 0.1) -> FloatArray:
    """[n, k]: softmax of the cosines over the `top` nearest centres, 0 elsewhere; rows of zeros stay zero."""
    cosines = unit(vectors) @ unit(centres).T
    top = min(top, cosines.shape[1])
    among = np.argsort(-cosines, axis=1, kind="stable")[:, :top]
    best = np.take_along_axis(cosines, among, axis=1) / temperature
    shares = np.exp(best - best.max(axis=1, keepdims=True))
    found = np.zeros_like(cosines)
    np.put_along_axis(found, among, shares / shares.sum(axis=1, keepdims=True), axis=1)
    return np.asarray(found * vectors.any(axis=1)[:, None], dtype=np.float32)


def unit(vectors: FloatArray) -> FloatArray:
    """Rows of length 1; rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)
