"""Queries and events as sparse rows over the items, for the models that see a history as a set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from palate.data.dataset import Dataset
from palate.data.query import Query


def event_matrix(dataset: Dataset) -> csr_matrix:
    """[n_users, n_items], 1 where the user met the item, float32."""
    histories = dataset.histories
    return _binary(histories.offsets, histories.items, dataset.n_items)


def query_matrix(queries: Sequence[Query], n_items: int, recent: int | None = None) -> csr_matrix:
    """[n_queries, n_items], 1 at the items of each history, or of its `recent` last events, float32."""
    histories = [query.history[-recent:] if recent else query.history for query in queries]
    offsets = np.cumsum([0, *(len(history) for history in histories)])
    items = np.concatenate([*histories, np.zeros(0, dtype=np.int32)])
    return _binary(offsets, items, n_items)


def _binary(offsets: npt.NDArray[np.int64], items: npt.NDArray[np.int32], n_items: int) -> csr_matrix:
    # A copy: duplicates are summed by sorting in place, and the dataset's histories must keep their order.
    matrix = csr_matrix((np.ones(len(items), np.float32), items, offsets), (len(offsets) - 1, n_items), copy=True)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix
