"""Which events are new to the person: the labels of a novelty-boosted model (Wang et al. 2024, arXiv 2405.16363)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.dataset import Dataset
from palate.errors import InputError


def novel_events(dataset: Dataset, column: str) -> npt.NDArray[np.bool_]:
    """Whether the person meets a value of the item's `column` for the first time, a flag for each row of the events.

    A list (categories, say) is new where one of its values is. An item without a value is never new.

    Raises:
        InputError: The items have no such column.
    """
    if column not in dataset.items.columns:
        raise InputError("The items have no such column", got=column, allowed=", ".join(dataset.items.columns))
    kinds = dataset.items.select(kind=pl.col(column)).with_row_index("item_num")
    if isinstance(kinds.schema["kind"], pl.List):
        kinds = kinds.explode("kind")
    events = dataset.events.select("user_num", pl.col("item_num").cast(pl.UInt32)).with_row_index("row")
    met = events.join(kinds.drop_nulls(), on="item_num").sort("row", maintain_order=True)
    new = met.unique(["user_num", "kind"], keep="first", maintain_order=True)["row"].to_numpy()
    flags = np.zeros(dataset.events.height, dtype=np.bool_)
    flags[new] = True
    return flags
