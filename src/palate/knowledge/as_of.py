"""As-of joins: of several versions of what is known, an event meets the newest that is older than itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

Numbers = npt.NDArray[np.int64]
ALWAYS = np.iinfo(np.int64).min  # known at any time


@dataclass(frozen=True)
class Versions:
    """Row `i` is what was known of entity `owners[i]` from `since[i]` (microseconds) on, sorted by owner, then time."""

    owners: Numbers
    since: Numbers

    @classmethod
    def of(cls, owners: npt.ArrayLike, since: npt.ArrayLike) -> tuple[Versions, Numbers]:
        """Versions in order, and the order in which to take their rows."""
        owner, time = np.asarray(owners, dtype=np.int64), np.asarray(since, dtype=np.int64)
        order = np.lexsort((time, owner))
        return cls(owner[order], time[order]), order

    def at(self, entities: npt.ArrayLike, times: npt.ArrayLike) -> Numbers:
        """The row that each of `entities` has at each of `times`: the newest with `since` < time, -1 where none is."""
        wanted = np.asarray(entities, dtype=np.int64)
        if not len(self.owners):
            return np.full(len(wanted), -1, dtype=np.int64)
        moments = np.unique(self.since)  # times as their ranks: owner and time are one sorted key then
        span = len(moments) + 1
        keys = self.owners * span + np.searchsorted(moments, self.since)
        ranks = np.searchsorted(moments, np.asarray(times, dtype=np.int64), "left")
        found = np.searchsorted(keys, wanted * span + ranks, "left") - 1
        fits = (found >= 0) & (self.owners[np.maximum(found, 0)] == wanted)
        return np.where(fits, found, -1)


def newest_before(rows: pl.DataFrame, entities: Sequence[str], times: npt.ArrayLike) -> list[int | None]:
    """For each entity and time (microseconds) the row of `rows` that may be joined, None where there is none."""
    numbers = {entity: number for number, entity in enumerate(dict.fromkeys(rows["entity"].to_list()))}
    since = rows["as_of"].to_physical().fill_null(ALWAYS).to_numpy()
    versions, order = Versions.of([numbers[entity] for entity in rows["entity"].to_list()], since)
    found = versions.at([numbers.get(entity, -1) for entity in entities], times)
    return [None if place < 0 else int(order[place]) for place in found]


def newest(rows: pl.DataFrame) -> pl.DataFrame:
    """Of each entity the rows of the latest `as_of`; rows without one count as the oldest."""
    since = pl.col("as_of").to_physical().fill_null(ALWAYS)
    return rows.filter(since == since.max().over("entity")) if rows.height else rows
