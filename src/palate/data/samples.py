"""`Samples`: rows for a ranking model, each a user, an item, a time, what came of it, and what the user did before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt

from palate.data.dataset import Dataset, FloatArray, IntArray
from palate.data.splits import TEST, TRAIN, VALIDATION, Part, split_in_time
from palate.errors import InputError

Places = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int64] | npt.NDArray[np.bool_]
CAP = 30  # events of a user that a profile may read at most (KAR on MovieLens 1M)


@dataclass(frozen=True)
class Samples:
    """`n` rows in order of time. The history of row `i` is `histories.items[starts[i]:ends[i]]` of the dataset."""

    users: IntArray
    items: IntArray
    labels: FloatArray  # [n, tasks], 0 or 1
    times: Places  # microseconds since the epoch, UTC
    starts: Places
    ends: Places
    part: Part  # TRAIN, VALIDATION or TEST

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: Rows) -> Self:
        """The rows with these numbers, or with these flags."""
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def train(self) -> Self:
        return self.take(self.part == TRAIN)

    @property
    def validation(self) -> Self:
        return self.take(self.part == VALIDATION)

    @property
    def test(self) -> Self:
        return self.take(self.part == TEST)


def rated_samples(dataset: Dataset, threshold: float | Sequence[float] = 3.0, part: Part | None = None) -> Samples:
    """A row for each event with a value; its label says whether that lies above `threshold` (KAR: 3 of 5).

    Args:
        dataset: What happened.
        threshold: Several of them make as many tasks.
        part: Of each event; None: as `split_in_time` cuts.

    Raises:
        InputError: No event has a value.
    """
    values = dataset.events["value"].to_numpy().astype(np.float32)
    known = np.isfinite(values)
    if not known.any():
        hint = "make samples of an implicit log with clicked_samples"
        raise InputError("No event has a value to take a label from", where="events, column value", hint=hint)
    limits = np.atleast_1d(np.asarray(threshold, dtype=np.float32))
    events = _events(dataset, part)
    labels = (values[:, None] > limits).astype(np.float32)
    return Samples(events.users, events.items, labels, *_rest(events)).take(known)


def clicked_samples(dataset: Dataset, negatives: int = 1, seed: int = 0, part: Part | None = None) -> Samples:
    """Each event of an implicit log as a 1, and beside it `negatives` items that the user never met as 0.

    Negatives are drawn by popularity among the events of the row's own part, so that popularity alone tells the two
    apart in no part, and neither does the newness of an item. A user who met everything gets no negatives.
    """
    events = _events(dataset, part)
    n, drawn = len(events), np.repeat(np.arange(len(events)), negatives)
    chosen = _unmet(dataset, events, drawn, np.random.default_rng(seed))
    rows = np.concatenate([np.arange(n), drawn])
    items = np.concatenate([events.items, chosen]).astype(np.int32)
    labels = (np.arange(len(rows)) < n).astype(np.float32)[:, None]
    repeated = events.take(rows)
    order = np.lexsort((np.arange(len(rows)), rows))
    order = order[items[order] >= 0]
    return Samples(repeated.users, items, labels, *_rest(repeated)).take(order)


def split_by_user(dataset: Dataset, validation: float = 0.1, test: float = 0.1, seed: int = 0) -> Part:
    """The part of each event where whole users are held out. Leaks the future; to compare with papers (KAR: 9:1)."""
    n = dataset.n_users
    drawn = np.random.default_rng(seed).permutation(n)
    held, tested = round(n * (validation + test)), round(n * test)
    of_user = np.where(drawn < tested, TEST, np.where(drawn < held, VALIDATION, TRAIN))
    part: Part = of_user[dataset.events["user_num"].to_numpy()].astype(np.int8)
    return part


def first_places(dataset: Dataset, cap: int = CAP) -> Places:
    """How many of each user's first events a profile may read, [n_users]: half of them, `cap` at most (KAR).

    As published, n hangs on how much a user will ever do; give the training events alone where that may not be known.
    """
    half: Places = (np.diff(dataset.histories.offsets) + 1) // 2
    return np.minimum(half, cap)


def from_place(samples: Samples, first: Places) -> Samples:
    """The leak guard: the rows whose user did at least `first[user]` things before, so that no profile knows them."""
    return samples.take(samples.ends - samples.starts >= first[samples.users])


def with_training(samples: Samples, rows: int, seed: int = 0) -> Samples:
    """All held-out rows, and `rows` of the training rows at random; 0: all of them."""
    train = np.flatnonzero(samples.part == TRAIN)
    if not rows or len(train) <= rows:
        return samples
    chosen = np.random.default_rng(seed).permutation(train)[:rows]
    return samples.take(np.sort(np.concatenate([chosen, np.flatnonzero(samples.part != TRAIN)])))


def _events(dataset: Dataset, part: Part | None) -> Samples:
    """Each event as a row without a label, in order of time."""
    part = split_in_time(dataset, max_queries=1).part if part is None else part
    users = dataset.events["user_num"].to_numpy()
    order = np.argsort(users, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return Samples(
        users.astype(np.int32),
        dataset.events["item_num"].to_numpy().astype(np.int32),
        np.zeros((len(order), 0), np.float32),
        dataset.events["timestamp"].to_physical().to_numpy().astype(np.int64),
        dataset.histories.offsets[users],
        place,
        part,
    )


def _rest(samples: Samples) -> tuple[Places, Places, Places, Part]:
    return samples.times, samples.starts, samples.ends, samples.part


def _unmet(dataset: Dataset, events: Samples, rows: Places, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """An item for each of `rows` that its user never met, -1 where 50 draws found none."""
    met = np.unique(events.users.astype(np.int64) * dataset.n_items + events.items)
    chosen = np.full(len(rows), -1, dtype=np.int64)
    for part in (TRAIN, VALIDATION, TEST):
        pool, open_rows = events.items[events.part == part], np.flatnonzero(events.part[rows] == part)
        for _ in range(50):
            if not len(open_rows):
                break
            items = rng.choice(pool, len(open_rows)).astype(np.int64)
            keys = events.users[rows[open_rows]] * np.int64(dataset.n_items) + items
            fits = met[np.minimum(np.searchsorted(met, keys), len(met) - 1)] != keys
            chosen[open_rows[fits]] = items[fits]
            open_rows = open_rows[~fits]
    return chosen
