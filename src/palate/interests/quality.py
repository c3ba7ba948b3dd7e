"""How good a clustering is: how close items are to their own kind, and how even the traffic is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray
from palate.interests.balance import centroids, level_mean


def coherence(vectors: FloatArray, cluster: npt.NDArray[np.integer]) -> float:
    """Mean cosine of each row of `vectors` [n, d] to the mean direction of its cluster [n]."""
    _, place = np.unique(cluster, return_inverse=True)
    centres = centroids(vectors, place, np.zeros((int(place.max()) + 1, vectors.shape[1]), dtype=np.float32))
    cuts = [slice(start, start + 65536) for start in range(0, len(vectors), 65536)]
    return float(sum(np.einsum("nd,nd->", vectors[cut], centres[place[cut]]) for cut in cuts) / len(vectors))


def balance(weights: npt.NDArray[np.float64], cluster: npt.NDArray[np.integer], clusters: int | None = None) -> float:
    """Heaviest load over the mean load, where an item that alone exceeds the mean counts as the mean (`level_mean`)."""
    names, place = np.unique(cluster, return_inverse=True)
    mean = level_mean(weights, clusters or len(names))
    return float(np.bincount(place, np.minimum(weights, mean)).max() / mean)
