"""`Dataset`: what happened, as immutable Arrow-backed tables with dense numbers beside the string ids."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]

TIMESTAMP = pl.Datetime("us", "UTC")

ITEM_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "item_id": pl.String,
    "title": pl.String,
    "text": pl.String,
    "categories": pl.List(pl.String),
}
EVENT_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "user_id": pl.String,
    "item_id": pl.String,
    "timestamp": TIMESTAMP,
    "event_type": pl.String,
    "value": pl.Float32,
}


@dataclass(frozen=True)
class Histories:
    """Every user's events in time order, packed: user `u` owns `[offsets[u]:offsets[u + 1]]`."""

    offsets: npt.NDArray[np.int64]  # [n_users + 1]
    items: IntArray  # [n_events], item_num
    times: npt.NDArray[np.int64]  # [n_events], microseconds since the epoch, UTC

    def of(self, user_num: int) -> IntArray:
        return self.items[self.offsets[user_num] : self.offsets[user_num + 1]]

    def times_of(self, user_num: int) -> npt.NDArray[np.int64]:
        return self.times[self.offsets[user_num] : self.offsets[user_num + 1]]


@dataclass(frozen=True)
class Dataset:
    """Items, events and users. Row `i` of `items` is the item with `item_num == i`; the same for users.

    `events` is sorted by time, ties in input order, and carries `user_num` and `item_num` (int32).
    Build one with `Dataset.from_tables`. Treat every table as read-only.
    """

    items: pl.DataFrame
    events: pl.DataFrame
    users: pl.DataFrame

    @classmethod
    def from_tables(cls, items: pl.DataFrame, events: pl.DataFrame, users: pl.DataFrame | None = None) -> Dataset:
        """Number the ids and sort the events.

        The tables must already have Palate's column names and types (`data.readers` sees to that) and pass
        `data.check`: item ids unique, no event on an unknown item. Users keep the order of `users`, then of
        first appearance in `events`.
        """
        seen = events.select("user_id").unique(maintain_order=True)
        if users is None:
            users = seen
        else:
            users = pl.concat([users, seen.join(users, on="user_id", how="anti")], how="diagonal")
        item_numbers = items.select("item_id").with_row_index("item_num")
        user_numbers = users.select("user_id").with_row_index("user_num")
        numbered = (
            events.drop("user_num", "item_num", strict=False)
            .with_row_index("_row")
            .join(item_numbers, on="item_id", how="inner")
            .join(user_numbers, on="user_id", how="inner")
            .with_columns(pl.col("item_num", "user_num").cast(pl.Int32))
            .sort("timestamp", "_row")
            .drop("_row")
        )
        return cls(items, numbered, users)

    def with_events(self, events: pl.DataFrame) -> Dataset:
        """The same items, users and numbers over other (numbered, sorted) events."""
        return Dataset(self.items, events, self.users)

    @property
    def n_items(self) -> int:
        return self.items.height

    @property
    def n_users(self) -> int:
        return self.users.height

    @cached_property
    def item_ids(self) -> list[str]:
        return self.items["item_id"].to_list()

    @cached_property
    def user_ids(self) -> list[str]:
        return self.users["user_id"].to_list()

    @cached_property
    def item_nums(self) -> dict[str, int]:
        return {item_id: num for num, item_id in enumerate(self.item_ids)}

    @cached_property
    def user_nums(self) -> dict[str, int]:
        return {user_id: num for num, user_id in enumerate(self.user_ids)}

    @cached_property
    def histories(self) -> Histories:
        order = self.events.select("user_num", "item_num", "timestamp").sort("user_num", maintain_order=True)
        counts = np.bincount(order["user_num"].to_numpy(), minlength=self.n_users)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return Histories(
            offsets,
            order["item_num"].to_numpy().astype(np.int32),
            order["timestamp"].to_physical().to_numpy().astype(np.int64),
        )

    @cached_property
    def item_counts(self) -> npt.NDArray[np.int64]:
        """Events per item, [n_items]."""
        return np.bincount(self.events["item_num"].to_numpy(), minlength=self.n_items)
