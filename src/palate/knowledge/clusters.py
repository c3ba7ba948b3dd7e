"""Clusters of vectors: k-means, and how much an entity belongs to each of the nearest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray

Vectors = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


def kmeans(vectors: Vectors, k: int, rng: np.random.Generator, rounds: int = 25) -> Vectors:
    """Centres [k, n] of k-means (scikit-learn's); fewer different vectors than clusters leave centres twice."""
    from sklearn.cluster import KMeans

    if not len(vectors):
        return np.zeros((k, vectors.shape[1]))
    n = min(k, len(np.unique(vectors, axis=0)))
    seed = int(rng.integers(2**31))
    centres = KMeans(n, n_init=1, max_iter=rounds, random_state=seed).fit(vectors).cluster_centers_
    return np.asarray(centres[np.arange(k) % n], dtype=np.float64)


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
    return np.asarray(found * vectors.any(axis=1, keepdims=True), dtype=np.float32)


def unit(vectors: FloatArray) -> FloatArray:
    """Rows of length 1; rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)
