"""New items: what is asked of one, and where the snapshot in use would have it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from palate.errors import InputError
from palate.llm.encoders import Encoder
from palate.serving.fresh import NewItems
from palate.serving.opened import Snapshot
from palate.serving.state import KeptItem
from palate.serving.text_map import Placed, placed

ID = r"^[^\x00-\x1f\x7f]+$"
Id = Annotated[str, Field(min_length=1, max_length=200, pattern=ID)]
Coordinate = Annotated[float, Field(ge=-1e6, le=1e6)]
Word = Annotated[str, Field(max_length=200)]


class Arrival(BaseModel):
    """An item that is not in the snapshot."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    item_id: Id
    title: str = Field(default="", max_length=1000)
    text: str = Field(default="", max_length=20_000)
    categories: list[Word] = Field(default=[], max_length=100)
    year: int | None = Field(default=None, ge=-9999, le=9999)
    vector: list[Coordinate] | None = Field(
        default=None, max_length=4096, description="where the snapshot's item vectors would have it, if that is known"
    )

    def words(self) -> str:
        """As `knowledge.annotate.item_text` shows an item."""
        said = [self.title, "Categories: " + ", ".join(self.categories) if self.categories else "", self.text]
        return "\n".join(line for line in said if line)


def place(snapshot: Snapshot, items: Sequence[Arrival], encoder: Encoder) -> list[KeptItem]:
    """Vector, labels and leaf of each item: by the vector it brings, else by its text and the snapshot's text map.

    Raises:
        InputError: if an item has neither, or the snapshot was built with another encoder or none.
    """
    d = snapshot.vectors.shape[1]
    vectors = np.zeros((len(items), d), dtype=np.float32)
    labels: list[dict[str, float]] = [{} for _ in items]
    for row, item in enumerate(items):
        if item.vector is not None:
            if len(item.vector) != d:
                raise InputError(
                    "The vector does not fit", where="vector", got=len(item.vector), allowed=f"{d} numbers"
                )
            vectors[row] = item.vector
    leaves = snapshot.index.main.nearest_leaves(vectors)
    told = [row for row, item in enumerate(items) if item.vector is None]
    if told:
        found = _by_text(snapshot, [items[row] for row in told], encoder)
        vectors[told], leaves[told] = found.vectors, found.leaves
        for row, values in zip(told, found.probabilities.tolist(), strict=True):
            labels[row] = dict(zip(snapshot.attribute_names, values, strict=True))
    rows = zip(items, vectors.tolist(), leaves.tolist(), labels, strict=True)
    return [KeptItem(item.model_dump(), snapshot.name, vector, leaf, own) for item, vector, leaf, own in rows]


def gone_item(item_id: str) -> KeptItem:
    """What is kept of an item that was deleted."""
    return KeptItem({"item_id": item_id}, "", [], -1, {}, gone=True)


def told_item(arrival: Arrival) -> KeptItem:
    """What is kept of an item that the snapshot has: what it says now is for the next one."""
    return KeptItem(arrival.model_dump(), "", [], -1, {})


def by_id(kept: Sequence[KeptItem]) -> dict[str, KeptItem]:
    return {each.item["item_id"]: each for each in kept}


def new_items(snapshot: Snapshot, kept: Sequence[KeptItem], gone: Iterable[int] = ()) -> tuple[NewItems, pl.DataFrame]:
    """What `Snapshot.with_new` takes. An item without labels has no attribute. `gone` are item_nums of the built."""
    schema = {name: kind for name, kind in snapshot.items.schema.items() if name != "item_num"}
    table = pl.DataFrame([{name: each.item.get(name) for name in schema} for each in kept], schema=schema)
    attributes = {
        name: np.array([each.labels.get(name, np.nan) for each in kept], dtype=np.float32)
        for name in snapshot.attribute_names
    }
    vectors = np.array([each.vector for each in kept], dtype=np.float32).reshape(len(kept), snapshot.vectors.shape[1])
    leaves = np.array([each.leaf for each in kept], dtype=np.int32)
    first = snapshot.n_built
    numbered = table.with_columns(pl.int_range(first, first + len(kept), dtype=pl.Int32, eager=True).alias("item_num"))
    away = np.array(sorted(gone), dtype=np.int32)
    return NewItems(vectors, leaves, attributes, table, away), numbered.select(snapshot.items.columns)


def _by_text(snapshot: Snapshot, items: Sequence[Arrival], encoder: Encoder) -> Placed:
    name: Any = snapshot.manifest.get("text_encoder")
    if snapshot.text_map is None or name != encoder.name:
        raise InputError(
            "The snapshot cannot place an item by its text",
            where="vector",
            got=f"built with {name or 'no encoder'}, this server has {encoder.name}",
            hint="Send a vector, or build the snapshot again.",
        )
    blank = [item.item_id for item in items if not item.words()]
    if blank:
        raise InputError("A new item needs a title, text, categories or vector", where="items", got=blank[0])
    texts = encoder.encode([item.words() for item in items])
    return placed(snapshot.text_map, texts, snapshot.vectors.shape[1], snapshot.tree, snapshot.usual_length)
