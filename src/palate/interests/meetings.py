"""Successful transitions: when a person first takes something of an interest, and what they were into just before.

LLMs for User Interest Exploration (Wang et al. 2024, arXiv 2405.16363) leaves "successful" open. Here, in full:

- *Positive*: an event that is no impression, skip or dislike (`knowledge.clicks`). Where values are grades (more than
  two different ones), it must also reach the middle of the scale seen in the data, unless `least` says otherwise.
- *Order*: time, ties by row of the input. A log without times is taken in the order of its rows.
- *Meeting*: the first positive of a person whatever in an interest. Later ones in it never count.
- *After*: the `k` interests whose latest positives are the most recent before it, none older than `recent` positives.
  Where there are fewer than `k`, as for a person's first interests or a person with one event, it is no meeting.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.dataset import Dataset, IntArray
from palate.data.query import Query
from palate.errors import InputError
from palate.knowledge.clicks import clicks_only

Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Meetings:
    """First meetings with an interest, arrays of equal length, in order of `place`."""

    user: IntArray  # user_num
    pair: IntArray  # [n, k], interests just before, sorted
    label: IntArray  # the interest met
    item: IntArray  # item_num it was met with
    place: Rows  # row of the data set's events

    def __len__(self) -> int:
        return len(self.label)

    def part(self, rows: Rows | Flags) -> Meetings:
        """Those of `rows`, a mask or row numbers (which may repeat)."""
        return Meetings(*(getattr(self, field.name)[rows] for field in fields(self)))


def positives(dataset: Dataset, least: float | None = None) -> Dataset:
    """The events that say yes: see the definition above. `least` is the smallest value that does."""
    taken = clicks_only(dataset)
    if "value" not in taken.events.columns:
        return taken
    given = taken.events["value"].drop_nulls()
    if least is None and given.n_unique() > 2:
        least = (float(given.min()) + float(given.max())) / 2  # type: ignore[arg-type]
    if least is None:
        return taken
    return taken.with_events(taken.events.filter((pl.col("value") >= least).fill_null(True)))


def first_meetings(dataset: Dataset, interest_of: IntArray, k: int = 2, recent: int = 50) -> Meetings:
    """Every meeting in `dataset`, whose events are all positive (`positives`).

    Args:
        dataset: What was taken.
        interest_of: The interest of each item, [n_items].
        k: Distinct interests that must have gone before.
        recent: Positives back that still count as recent.

    Raises:
        InputError: `interest_of` is not of these items, or k below 1.
    """
    if len(interest_of) != dataset.n_items or k < 1:
        got = f"{len(interest_of)} interests for {dataset.n_items} items, k={k}"
        raise InputError("Interests and items do not fit each other.", got=got, allowed="one interest an item, k >= 1")
    packed = dataset.histories
    row_of = np.argsort(dataset.events["user_num"].to_numpy(), kind="stable")
    found: list[tuple[int, list[int], int]] = []  # user, interests before, place in the packed histories
    for user in range(dataset.n_users):
        start = int(packed.offsets[user])
        walked = _walk(interest_of[packed.of(user)].tolist(), k, recent)
        found += [(user, before, start + step) for step, before in walked]
    places = np.array([place for _, _, place in found], dtype=np.int64)
    items = packed.items[places].astype(np.int32)
    meetings = Meetings(
        np.array([user for user, _, _ in found], dtype=np.int32),
        np.array([before for _, before, _ in found], dtype=np.int32).reshape(-1, k),
        interest_of[items].astype(np.int32),
        items,
        row_of[places],
    )
    return meetings.part(np.argsort(meetings.place, kind="stable"))


def _walk(interests: list[int], k: int, recent: int) -> list[tuple[int, list[int]]]:
    """Steps at which an interest is met for the first time, with the sorted `k` before it."""
    latest: dict[int, int] = {}  # interest to its latest step, the most recent interest last
    found = []
    for step, interest in enumerate(interests):
        if latest.pop(interest, None) is None and len(latest) >= k:
            before = list(latest.items())[-k:]
            if before[0][1] >= step - recent:
                found.append((step, sorted(number for number, _ in before)))
        latest[interest] = step
    return found


def queries_before(dataset: Dataset, meetings: Meetings) -> list[Query]:
    """What could have been asked just before each meeting: the person with their history up to then."""
    packed = dataset.histories
    row_of = np.argsort(dataset.events["user_num"].to_numpy(), kind="stable")
    place_of = np.empty_like(row_of)
    place_of[row_of] = np.arange(len(row_of))
    return [
        Query(dataset.user_ids[user], packed.items[packed.offsets[user] : place], int(packed.times[place]))
        for user, place in zip(meetings.user.tolist(), place_of[meetings.place].tolist(), strict=True)
    ]


def known_before(queries: list[Query], interest_of: IntArray, n_interests: int) -> Flags:
    """Which interests each query's history holds, [n_queries, n_interests]."""
    known = np.zeros((len(queries), n_interests), dtype=bool)
    for row, query in enumerate(queries):
        known[row, interest_of[query.history]] = True
    return known


def latest_pairs(queries: list[Query], interest_of: IntArray, k: int = 2) -> tuple[IntArray, Flags]:
    """The `k` latest distinct interests of each history, sorted [n, k], and whether there are so many [n]."""
    pairs, enough = np.zeros((len(queries), k), dtype=np.int32), np.zeros(len(queries), dtype=bool)
    for row, query in enumerate(queries):
        latest = list(dict.fromkeys(interest_of[query.history][::-1].tolist()))[:k]
        if len(latest) == k:
            pairs[row], enough[row] = sorted(latest), True
    return pairs, enough


def balanced(meetings: Meetings, per_label: int = 10) -> Meetings:
    """The most frequent pairs of each label, so that each label met at all comes up `per_label` times.

    One meeting, the earliest, stands for a pair; of equally frequent pairs the earlier comes first. A label with
    fewer pairs repeats them in that order. (Paper: 10 a label.)
    """
    keys = np.column_stack([meetings.label, meetings.pair])
    _, first, count = np.unique(keys, axis=0, return_index=True, return_counts=True)
    chosen: list[int] = []
    for label in np.unique(meetings.label):
        own = np.flatnonzero(meetings.label[first] == label)
        ranked = first[own[np.lexsort((first[own], -count[own]))]]
        chosen += np.resize(ranked, per_label).tolist()
    return meetings.part(np.array(chosen, dtype=np.int64))


def at_random(meetings: Meetings, n: int, seed: int) -> Meetings:
    """`n` meetings drawn evenly without replacement (all, if there are fewer): the paper's ablation."""
    drawn = np.random.default_rng(seed).permutation(len(meetings))[:n]
    return meetings.part(drawn)


def pair_numbers(pairs: IntArray, n_interests: int) -> Rows:
    """One number a pair [n, k], the same for the same interests: for joins and `np.isin`."""
    number = np.zeros(len(pairs), dtype=np.int64)
    for column in np.sort(pairs, axis=1).T:
        number = number * n_interests + column
    return number
