"""Labels as an array: one teacher's newest word on each item and attribute."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.dataset import FloatArray


def label_matrix(labels: pl.DataFrame, item_ids: Sequence[str], names: Sequence[str]) -> FloatArray:
    """[n_items, n_names] in 0..1, NaN where nothing was said. Later rows win over earlier ones."""
    wanted = labels.select("entity", "name", "value").drop_nulls()
    wanted = wanted.unique(["entity", "name"], keep="last", maintain_order=True)
    items = pl.DataFrame({"entity": list(item_ids)}).with_row_index("row")
    columns = pl.DataFrame({"name": list(names)}).with_row_index("column")
    found = wanted.join(items, on="entity").join(columns, on="name")
    matrix = np.full((len(item_ids), len(names)), np.nan, dtype=np.float32)
    matrix[found["row"].to_numpy(), found["column"].to_numpy()] = found["value"].to_numpy()
    return matrix


def vector_matrix(vectors: pl.DataFrame, item_ids: Sequence[str]) -> FloatArray:
    """[n_items, d]; zeros for items without a vector."""
    newest = vectors.unique("entity", keep="last", maintain_order=True)
    numbers = {item_id: num for num, item_id in enumerate(item_ids)}
    width = len(newest["vector"][0]) if newest.height else 0
    matrix = np.zeros((len(item_ids), width), dtype=np.float32)
    for entity, vector in newest.select("entity", "vector").iter_rows():
        if entity in numbers:
            matrix[numbers[entity]] = vector
    return matrix


def filled(first: npt.NDArray[np.float32], *others: npt.NDArray[np.float32]) -> FloatArray:
    """`first`, its gaps filled from the next matrix that knows."""
    result = first.copy()
    for other in others:
        result = np.where(np.isnan(result), other, result)
    return result
