"""Item-kNN: items like those in the history, by cosine over their users (Sarwar et al. 2001; shrinkage as in
Dacrema et al. 2019, arXiv 1907.06902, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_matrix, vstack

from palate.data.dataset import Dataset, FloatArray, IntArray
from palate.data.query import Query
from palate.data.splits import Holdout
from palate.errors import PalateError
from palate.knowledge.tables import Knowledge
from palate.models.history_matrix import event_matrix, query_matrix
from palate.models.search_space import Between, SearchSpace

CHUNK = 1024  # items compared at a time: bounds the memory


class ItemKnnConfig(BaseModel):
    """Of `ItemKnn`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    search: ClassVar[SearchSpace] = {
        "neighbours": (20, 50, 100, 200, 500),
        "shrinkage": Between(1.0, 200.0, log=True),
        "recent": (None, 3, 5, 10, 20),
    }

    neighbours: int = Field(default=100, ge=1, description="most similar items kept for each item")
    shrinkage: float = Field(default=10.0, ge=0, description="added to the product of the norms: doubts rare pairs")
    recent: int | None = Field(default=None, ge=1, description="newest events of a history that are read; None: all")


class ItemKnn:
    """A `Recommender`: the sum of similarities to the items of the history, a set.

    similarity(i, j) = common users / (sqrt(users of i · users of j) + shrinkage)
    """

    name = "item-knn"

    def __init__(self, config: ItemKnnConfig | None = None) -> None:
        self.config = config or ItemKnnConfig()
        self._similar: csr_matrix | None = None

    def fit(self, dataset: Dataset, knowledge: Knowledge | None = None, validation: Holdout | None = None) -> Self:
        met = event_matrix(dataset).tocsc()
        norms = np.sqrt(np.asarray(met.sum(axis=0)).ravel())
        starts = range(0, max(dataset.n_items, 1), CHUNK)
        # Row i: who takes i for a neighbour is found by column, hence the transpose.
        self._similar = vstack([self._nearest(met, norms, start) for start in starts]).T.tocsr()
        return self

    def _nearest(self, met: csr_matrix, norms: FloatArray, start: int) -> csr_matrix:
        """The kept similarities of items `start`... to all, [<= CHUNK, n_items]."""
        stop = min(start + CHUNK, met.shape[1])
        common = (met[:, start:stop].T @ met).toarray()
        common[np.arange(stop - start), np.arange(start, stop)] = 0
        similar = common / np.maximum(np.outer(norms[start:stop], norms) + self.config.shrinkage, 1e-9)
        if self.config.neighbours < similar.shape[1]:
            cut = np.partition(similar, -self.config.neighbours, axis=1)[:, -self.config.neighbours]
            similar[similar < cut[:, None]] = 0
        return csr_matrix(similar.astype(np.float32))

    def score(self, queries: Sequence[Query], items: IntArray | None = None) -> FloatArray:
        if self._similar is None:
            raise PalateError("The model has not been fitted", where=self.name, hint="call fit first")
        similar = self._similar if items is None else self._similar[:, items]
        met = query_matrix(queries, self._similar.shape[0], self.config.recent)
        scores: FloatArray = (met @ similar).toarray()
        return scores
