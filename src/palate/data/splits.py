"""Splits that do not leak: by global time, or the last event of each user (labelled, for papers only)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.dataset import Dataset, IntArray
from palate.data.query import Query
from palate.errors import InputError

RowIndex = npt.NDArray[np.int64]
RowMask = npt.NDArray[np.bool_]
Part = npt.NDArray[np.int8]
TRAIN, VALIDATION, TEST = 0, 1, 2
_NAMES = {"train": TRAIN, "history": TRAIN, "valid": VALIDATION, "validation": VALIDATION, "test": TEST}


@dataclass(frozen=True)
class Holdout:
    """Queries with the answers that came to pass: `targets[i]` are the item_nums relevant to `queries[i]`."""

    queries: list[Query]
    targets: list[IntArray]


@dataclass(frozen=True)
class Split:
    """`train` shares items, users and numbers with the whole. `name` says how it was cut."""

    train: Dataset
    validation: Holdout
    test: Holdout
    name: str
    part: Part
    """Of each row of the whole's events: `TRAIN`, `VALIDATION` or `TEST`."""


def split_global_time(
    dataset: Dataset,
    validation: float = 0.1,
    test: float = 0.1,
    *,
    min_history: int = 1,
    exclude_seen: bool = True,
    max_queries: int | None = None,
    seed: int = 0,
) -> Split:
    """Cut at two moments that are the same for all users: train before, then validation, then test.

    Every event at the very moment of a cut goes to the later part, so no training event is as late as any
    held-out one. Each event of a held-out window is one query (rolling next-item protocol): its history is
    all that the user did earlier, in whatever part, its `as_of` the event's time. Ties in time keep the
    input order. A time that is only an index into each user's sequence is cut just the same, but is no clock.

    Args:
        dataset: What happened.
        validation: Share of the events, above 0.
        test: Share of the events, above 0; at most 1 together with `validation`, exclusive.
        min_history: Queries with fewer earlier events than this are dropped (0 keeps all).
        exclude_seen: Drop queries whose target the user has met before: such an answer is never given.
        max_queries: Keep at most so many queries in each part, a seeded sample without replacement.
        seed: Of that sample.

    Raises:
        InputError: Shares that leave no train part, or too few distinct times to cut.
    """
    times = dataset.events["timestamp"].to_physical().to_numpy()
    first, second = _cuts(times, validation, test)
    part = np.where(times >= first, np.where(times >= second, TEST, VALIDATION), TRAIN).astype(np.int8)
    name = f"global time ({1 - validation - test:.0%} train, {validation:.0%} validation, {test:.0%} test)"
    return _split(dataset, part, name, min_history, exclude_seen, max_queries, seed)


def split_in_time(dataset: Dataset, *, max_queries: int | None = None) -> Split:
    """The best split that the data allow; its `name` says which it was.

    1. As the source cut it, where the events have a column `split` with rows of train (or history), valid and test.
    2. By global time, where there is a clock.
    3. Each user's last event: where a time is a place in a sequence, or all times are the same, there is no moment
       that is the same for all.
    """
    given = _given_part(dataset)
    if given is not None:
        return _split(dataset, given, "as the source cut it", 1, True, max_queries, 0)
    if has_clock(dataset):
        return split_global_time(dataset, max_queries=max_queries)
    return split_leave_last_one_out(dataset, max_queries=max_queries)


def has_clock(dataset: Dataset) -> bool:
    """Whether times are moments: places in a sequence, read as microseconds or seconds, lie in the first years."""
    years = dataset.events["timestamp"].dt.year()
    return years.len() > 0 and bool((years.max() > 1971) and dataset.events["timestamp"].n_unique() > 2)  # type: ignore[operator]


def _given_part(dataset: Dataset) -> Part | None:
    if "split" not in dataset.events.columns or dataset.events["split"].dtype != pl.String:
        return None
    part = dataset.events["split"].replace_strict(_NAMES, default=-1, return_dtype=pl.Int8).to_numpy()
    return part if set(np.unique(part).tolist()) == {TRAIN, VALIDATION, TEST} else None


def _split(
    dataset: Dataset,
    part: Part,
    name: str,
    min_history: int,
    exclude_seen: bool,
    max_queries: int | None,
    seed: int,
) -> Split:
    order = _packed_order(dataset)
    make = _QueryMaker(dataset, order, min_history, exclude_seen, max_queries, seed)
    packed = part[order]
    train = dataset.with_events(dataset.events.filter(pl.Series(part == TRAIN)))
    return Split(train, make(packed == VALIDATION), make(packed == TEST), name, part)


def split_leave_last_one_out(
    dataset: Dataset,
    *,
    min_history: int = 1,
    exclude_seen: bool = True,
    max_queries: int | None = None,
    seed: int = 0,
) -> Split:
    """Each user's last event is the test, the last but one the validation. Leaks: others' futures are trained on.

    Users with one event stay in train, users with two have no validation query. The other arguments are those
    of `split_global_time`. Only to compare with papers.
    """
    offsets = dataset.histories.offsets
    counts = np.diff(offsets)
    packed = np.full(dataset.events.height, TRAIN, dtype=np.int8)
    packed[offsets[1:][counts >= 2] - 1] = TEST
    packed[offsets[1:][counts >= 3] - 2] = VALIDATION
    part = np.empty_like(packed)
    part[_packed_order(dataset)] = packed
    name = "leave-last-one-out (leaks the future; for comparison with papers)"
    return _split(dataset, part, name, min_history, exclude_seen, max_queries, seed)


def _cuts(times: RowIndex, validation: float, test: float) -> tuple[int, int]:
    """The first moments of validation and of test."""
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise InputError(
            "The shares of the split leave nothing to train on or nothing to measure",
            got=f"validation={validation}, test={test}",
            allowed="both above 0, together below 1",
        )
    n = len(times)
    first, second = (int(times[min(int(n * (1 - s)), n - 1)]) if n else 0 for s in (validation + test, test))
    if n == 0 or not times[0] < first < second:
        raise InputError(
            "The events have too few distinct times for a split by time",
            got=f"{n} events at {len(np.unique(times))} distinct times",
            hint="give finer timestamps, or larger shares",
        )
    return first, second


def _packed_order(dataset: Dataset) -> RowIndex:
    """Row of `dataset.events` for each place of the packed histories, [n_events]."""
    return np.argsort(dataset.events["user_num"].to_numpy(), kind="stable")


def _first_meeting(dataset: Dataset, order: RowIndex) -> RowMask:
    """Whether the user meets the item for the first time, for each place of the packed histories."""
    return dataset.events[order].select(pl.struct("user_num", "item_num").is_first_distinct()).to_series().to_numpy()


class _QueryMaker:
    """Turns marked places of the packed histories into queries, in order of time."""

    def __init__(
        self,
        dataset: Dataset,
        order: RowIndex,
        min_history: int,
        exclude_seen: bool,
        max_queries: int | None,
        seed: int,
    ) -> None:
        self.dataset, self.order, self.exclude_seen = dataset, order, exclude_seen
        self.max_queries, self.seed = max_queries, seed
        offsets = dataset.histories.offsets
        self.owner = np.repeat(np.arange(dataset.n_users), np.diff(offsets))
        self.start = offsets[self.owner]
        self.eligible = np.arange(len(self.owner)) - self.start >= min_history
        if exclude_seen:
            self.eligible &= _first_meeting(dataset, order)

    def __call__(self, marked: RowMask) -> Holdout:
        places = np.flatnonzero(marked & self.eligible)
        if self.max_queries is not None and len(places) > self.max_queries:
            rng = np.random.default_rng(self.seed)
            places = rng.choice(places, self.max_queries, replace=False)
        places = places[np.argsort(self.order[places])]
        packed, names = self.dataset.histories, self.dataset.user_ids
        queries = [
            Query(
                names[user],
                packed.items[start:place],
                time,
                exclude_seen=self.exclude_seen,
                times=packed.times[start:place],
            )
            for user, start, place, time in zip(
                self.owner[places].tolist(),
                self.start[places].tolist(),
                places.tolist(),
                packed.times[places].tolist(),
                strict=True,
            )
        ]
        return Holdout(queries, [packed.items[place : place + 1] for place in places.tolist()])
