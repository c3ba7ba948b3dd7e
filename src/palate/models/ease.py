"""EASE: a linear item-to-item model with a zero diagonal, in closed form (Steck, WWW 2019, arXiv 1905.03375)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.linalg.lapack import spotrf, spotri

from palate.data.dataset import Dataset, FloatArray, IntArray
from palate.data.query import Query
from palate.data.splits import Holdout
from palate.errors import PalateError
from palate.knowledge.tables import Knowledge
from palate.models.history_matrix import event_matrix, query_matrix
from palate.models.search_space import Between, SearchSpace

CHUNK = 1024  # rows handled at a time: bounds the memory


class EaseConfig(BaseModel):
    """Of `Ease`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    search: ClassVar[SearchSpace] = {"ridge": Between(20.0, 5000.0, log=True), "recent": (None, 3, 5, 10, 20)}

    ridge: float = Field(default=200.0, gt=0, description="λ on the item Gram matrix (paper: 200 to 1000)")
    recent: int | None = Field(default=None, ge=1, description="newest events of a history that are read; None: all")


class Ease:
    """A `Recommender`: x @ B with P = (XᵀX + λI)⁻¹, B[i, j] = -P[i, j] / P[j, j], B[j, j] = 0 (eq. 8).

    Only items met in training are in the matrix, float32, inverted in place by Cholesky: n² · 4 bytes (0.6 GB
    for 12,000 items). Others score 0.
    """

    name = "ease"

    def __init__(self, config: EaseConfig | None = None) -> None:
        self.config = config or EaseConfig()
        self._weights: FloatArray | None = None

    def fit(self, dataset: Dataset, knowledge: Knowledge | None = None, validation: Holdout | None = None) -> Self:
        self._n_items = dataset.n_items
        self._met = np.flatnonzero(dataset.item_counts)
        seen = event_matrix(dataset)[:, self._met].tocsc()
        # Symmetric: its transpose is the same matrix, in the row order that products with sparse rows need.
        inverse = _inverse(_gram(seen, self.config.ridge)).T
        scale = -1.0 / np.diagonal(inverse)
        inverse *= scale[None, :]
        np.fill_diagonal(inverse, 0.0)
        self._weights = inverse
        return self

    def score(self, queries: Sequence[Query], items: IntArray | None = None) -> FloatArray:
        if self._weights is None:
            raise PalateError("The model has not been fitted", where=self.name, hint="call fit first")
        met = query_matrix(queries, self._n_items, self.config.recent)[:, self._met]
        scores = np.zeros((len(queries), self._n_items), np.float32)
        scores[:, self._met] = met @ self._weights
        return scores if items is None else scores[:, items]


def _gram(seen: Any, ridge: float) -> FloatArray:
    """XᵀX + ridge · I, dense, column-major as LAPACK wants it."""
    n = seen.shape[1]
    gram = np.zeros((n, n), dtype=np.float32, order="F")
    for start in range(0, n, CHUNK):
        gram[:, start : start + CHUNK] = (seen.T @ seen[:, start : start + CHUNK]).toarray()
    gram[np.arange(n), np.arange(n)] += ridge
    return gram


def _inverse(gram: FloatArray) -> FloatArray:
    """The inverse of a positive definite matrix, written over it."""
    if not len(gram):
        return gram
    factor, failed = spotrf(gram, lower=1, overwrite_a=1)
    if not failed:
        factor, failed = spotri(factor, lower=1, overwrite_c=1)
    if failed:
        raise PalateError("The item matrix cannot be inverted", where="ease", hint="raise the ridge")
    n = len(factor)
    for start in range(0, n, CHUNK):  # LAPACK fills the lower triangle only
        stop = min(start + CHUNK, n)
        factor[start:stop, stop:] = factor[stop:, start:stop].T
        square = factor[start:stop, start:stop]
        square[:] = np.tril(square) + np.tril(square, -1).T
    result: FloatArray = factor
    return result
