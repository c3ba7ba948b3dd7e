"""The two protocols every model here follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

from palate.data.dataset import Dataset, FloatArray, IntArray
from palate.data.query import Query
from palate.data.splits import Holdout
from palate.knowledge.tables import Knowledge


class Recommender(Protocol):
    """Predicts how much a query would like an item. Opens no files and no sockets."""

    name: str

    def fit(self, dataset: Dataset, knowledge: Knowledge | None = None, validation: Holdout | None = None) -> Self:
        """Learn from `dataset` (training events only). `validation` may choose when to stop, nothing else."""
        ...

    def score(self, queries: Sequence[Query], items: IntArray | None = None) -> FloatArray:
        """Scores [n_queries, n_items], or [n_queries, len(items)] for the given item_nums. Higher is better.

        Seen items and restricts are the caller's to mask.
        """
        ...


class Retriever(Recommender, Protocol):
    """A recommender whose score is the inner product of a query vector and an item vector."""

    @property
    def item_vectors(self) -> FloatArray:
        """[n_items, d]"""
        ...

    def encode(self, queries: Sequence[Query]) -> FloatArray:
        """[n_queries, d]"""
        ...
