"""What a recommender would have in its log: who was shown what at which place, by whom, and what was taken."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.dataset import TIMESTAMP, Dataset, FloatArray, Histories, IntArray
from palate.data.event_log import EventLog

DAY = 86_400_000_000  # microseconds
EPOCH = 19_723 * DAY  # the first day of a world is 2024-01-01, UTC
_SESSION = 3_600_000_000  # microseconds between sessions of a day
_PLACE = 20_000_000  # between places of a slate
Times = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """Impressions of one slate after the other, arrays of equal length."""

    person: IntArray
    item: IntArray
    time: Times  # microseconds since the epoch
    place: npt.NDArray[np.int16]
    propensity: FloatArray  # NaN where the policy gave none
    taken: Flags
    satisfied: Flags
    request: Times  # number of the slate


@dataclass(frozen=True)
class Taken:
    """What was taken, in order of time."""

    person: IntArray
    item: IntArray
    time: Times


@dataclass
class WorldLog:
    """Grows by slates. `before` is what people took elsewhere before the first day: nobody recommended it."""

    before: Taken
    n_items: int
    n_people: int
    policy: str = ""
    slates: list[Rows] = field(default_factory=list)
    requests: int = 0

    def add(
        self,
        people: IntArray,
        items: IntArray,
        propensity: FloatArray | None,
        taken: Flags,
        satisfied: Flags,
        day: int,
        session: int,
    ) -> None:
        """Slates [n, k] shown to `people` [n]; items of -1 were not shown."""
        n, k = items.shape
        shown = items >= 0
        place = np.broadcast_to(np.arange(k, dtype=np.int16), (n, k))
        start = EPOCH + day * DAY + session * _SESSION
        number = np.broadcast_to(self.requests + np.arange(n)[:, None], (n, k))
        known = np.full((n, k), np.nan, np.float32) if propensity is None else propensity
        wide = np.broadcast_to(people[:, None], (n, k))
        columns: tuple[npt.NDArray[Any], ...] = (
            wide,
            items,
            start + place.astype(np.int64) * _PLACE,
            place,
            known,
            taken,
            satisfied,
            number,
        )
        self.slates.append(Rows(*(np.ascontiguousarray(column[shown]) for column in columns)))
        self.requests += n

    @property
    def rows(self) -> Rows:
        """All impressions so far."""
        if len(self.slates) > 1:
            self.slates[:] = [Rows(*(np.concatenate([getattr(s, f.name) for s in self.slates]) for f in fields(Rows)))]
        if not self.slates:
            none = np.zeros(0)
            return Rows(*(none.astype(kind) for kind in ("i4", "i4", "i8", "i2", "f4", "?", "?", "i8")))
        return self.slates[0]

    def taken(self, newest: int | None = None) -> Taken:
        """What was taken before and since, in order of time; `newest`: that many at most."""
        rows = self.rows
        parts = [(getattr(self.before, f.name), getattr(rows, f.name)[rows.taken]) for f in fields(Taken)]
        person, item, time = (np.concatenate(part) for part in parts)
        order = np.argsort(time, kind="stable")[-newest if newest else None :]
        return Taken(person[order].astype(np.int32), item[order].astype(np.int32), time[order])

    def histories(self, newest: int | None = None) -> EventLog:
        """`taken` as what sequence models learn from."""
        found = self.taken(newest)
        order = np.argsort(found.person, kind="stable")
        counts = np.bincount(found.person, minlength=self.n_people)
        offsets = np.concatenate([[0], counts.cumsum()]).astype(np.int64)
        return EventLog(Histories(offsets, found.item[order], found.time[order]), self.n_items)

    def dataset(self, newest: int | None = None) -> Dataset:
        """`taken` as a data set, ids being `u` and `i` with the number."""
        found = self.taken(newest)
        events = pl.DataFrame({"user_num": found.person, "item_num": found.item, "timestamp": found.time})
        people, items = _names("u", self.n_people), _names("i", self.n_items)
        events = events.with_columns(
            pl.col("timestamp").cast(TIMESTAMP),
            people[found.person].alias("user_id"),
            items[found.item].alias("item_id"),
        )
        return Dataset(items.to_frame("item_id"), events, people.to_frame("user_id"))

    def events(self) -> pl.DataFrame:
        """The house's events: every impression with place, policy and propensity; what was taken and what satisfied."""
        rows = self.rows
        shown = pl.DataFrame(
            {
                "user_id": _names("u", self.n_people)[rows.person],
                "item_id": _names("i", self.n_items)[rows.item],
                "timestamp": pl.Series(rows.time).cast(TIMESTAMP),
                "request_id": pl.Series(rows.request).cast(pl.String),
                "position": rows.place.astype(np.int32),
                "policy": pl.Series([self.policy], dtype=pl.String).new_from_index(0, len(rows.item)),
                "propensity": pl.Series(rows.propensity).fill_nan(None),
            }
        )
        kinds = (("impression", None), ("click", rows.taken), ("complete", rows.satisfied))
        parts = [
            (shown if flags is None else shown.filter(flags)).with_columns(
                event_type=pl.lit(kind), value=pl.lit(None, pl.Float32)
            )
            for kind, flags in kinds
        ]
        return pl.concat(parts).sort("timestamp", maintain_order=True)


@lru_cache(maxsize=8)
def _names(letter: str, n: int) -> pl.Series:
    return pl.Series(letter, [f"{letter}{number}" for number in range(n)], dtype=pl.String)
