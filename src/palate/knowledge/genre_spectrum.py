"""Genre Spectrum: the layer before the genres of a multi-label network, as item vector.

Tubi 2023 (arXiv 2309.08787): genres are yes or no and noisy; a network that predicts them from text must hold *how
much* of each an item has. Convex combinations of two items, features and labels alike (mixup, Zhang et al. 2018,
arXiv 1710.09412), make up for items with little text. Layer sizes are not published; these are ours. The network is
small enough for NumPy (Adam, binary cross-entropy).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from palate.data.dataset import FloatArray
from palate.errors import InputError

Layers = list[FloatArray]  # weights and bias of each layer in turn


class SpectrumConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: int = Field(default=256, ge=1)
    width: int = Field(default=64, ge=1)
    """Of the item vectors."""
    epochs: int = Field(default=30, ge=1)
    batch: int = Field(default=64, ge=1)
    rate: float = Field(default=5e-3, gt=0)
    decay: float = Field(default=1e-4, ge=0)
    """Of the weights, each step, as a share (AdamW)."""
    mix: float = Field(default=0.4, ge=0)
    """The weight of the first of two items is drawn from Beta(mix, mix), anew each epoch; 0: no combination."""
    seed: int = 0


class GenreSpectrum:
    """vectors [n, d] → hidden → `width` → genres; `encode` stops before the genres."""

    def __init__(self, config: SpectrumConfig | None = None) -> None:
        self.config = config or SpectrumConfig()
        self.layers: Layers = []

    def fit(self, vectors: FloatArray, genres: FloatArray) -> GenreSpectrum:
        """Learn `genres` [n, n_genres] in 0..1.

        Raises:
            InputError: Fewer than two items, or lengths that differ.
        """
        if len(vectors) != len(genres) or len(vectors) < 2:
            raise InputError("Vectors and genres do not fit.", got=f"{len(vectors)} and {len(genres)} items")
        config, rng = self.config, np.random.default_rng(self.config.seed)
        sizes = (vectors.shape[1], config.hidden, config.width, genres.shape[1])
        self.layers = [part for a, b in pairwise(sizes) for part in _layer(a, b, rng)]
        share = np.clip(genres.mean(axis=0), 1e-3, 1 - 1e-3)
        self.layers[-1] += np.log(share / (1 - share)).astype(np.float32)  # else the inner layers learn how rare yes is
        first, second, steps = [np.zeros_like(p) for p in self.layers], [np.zeros_like(p) for p in self.layers], 0
        for epoch in range(config.epochs):
            rate = config.rate * (1 - epoch / config.epochs)
            order = rng.permutation(len(vectors))
            for start in range(0, len(order), config.batch):
                x, y = _mixed(vectors, genres, order[start : start + config.batch], config.mix, rng)
                steps += 1
                for k, gradient in enumerate(self._gradients(x, y)):
                    first[k] += 0.1 * (gradient - first[k])
                    second[k] += 0.001 * (gradient**2 - second[k])
                    step = first[k] / (1 - 0.9**steps) / (np.sqrt(second[k] / (1 - 0.999**steps)) + 1e-8)
                    self.layers[k] -= (rate * (step + config.decay * self.layers[k])).astype(np.float32)
        return self

    def encode(self, vectors: FloatArray) -> FloatArray:
        """Unit vectors [n, width]."""
        found = self._forward(vectors)[1]
        return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9), dtype=np.float32)

    def predict(self, vectors: FloatArray) -> FloatArray:
        """Genres [n, n_genres] in 0..1."""
        return self._forward(vectors)[2]

    def _forward(self, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        from scipy.special import expit

        w1, b1, w2, b2, w3, b3 = self.layers
        hidden = np.maximum(x @ w1 + b1, 0)
        spectrum = np.tanh(hidden @ w2 + b2)
        return hidden, spectrum, np.asarray(expit(spectrum @ w3 + b3), dtype=np.float32)

    def _gradients(self, x: FloatArray, y: FloatArray) -> Layers:
        """Of the cross-entropy, summed over genres and averaged over items."""
        _, _, w2, _, w3, _ = self.layers
        hidden, spectrum, said = self._forward(x)
        out = (said - y) / len(x)
        middle = (out @ w3.T) * (1 - spectrum**2)
        inner = (middle @ w2.T) * (hidden > 0)
        pairs = ((x, inner), (hidden, middle), (spectrum, out))
        return [np.asarray(part, np.float32) for below, above in pairs for part in (below.T @ above, above.sum(axis=0))]


def _layer(inputs: int, outputs: int, rng: np.random.Generator) -> Layers:
    weights = rng.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)
    return [weights.astype(np.float32), np.zeros(outputs, dtype=np.float32)]


def _mixed(
    vectors: FloatArray, genres: FloatArray, rows: npt.NDArray[np.int64], mix: float, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """The rows, each combined with a random item of all, features and labels by the same weight."""
    if not mix:
        return vectors[rows], genres[rows]
    others = rng.integers(0, len(vectors), len(rows))
    share = rng.beta(mix, mix, (len(rows), 1)).astype(np.float32)
    return (
        share * vectors[rows] + (1 - share) * vectors[others],
        share * genres[rows] + (1 - share) * genres[others],
    )


def shared_genre(
    vectors: FloatArray, genres: npt.NDArray[np.bool_], n_neighbours: int = 20, chunk: int = 1024
) -> npt.NDArray[np.float64]:
    """For each item, the share of its nearest (cosine) that have a genre in common with it, [n]; itself left out."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    n_neighbours, found = min(n_neighbours, len(unit) - 1), []
    for start in range(0, len(unit), chunk):
        rows = np.arange(start, min(start + chunk, len(unit)))
        near = unit[rows] @ unit.T
        near[np.arange(len(rows)), rows] = -np.inf
        nearest = np.argpartition(-near, n_neighbours - 1, axis=1)[:, :n_neighbours]
        found.append((genres[rows][:, None] & genres[nearest]).any(axis=2).mean(axis=1))
    return np.concatenate(found).astype(np.float64)
