"""What people took beside what they might have: each click with a matched random item that the user never met."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.dataset import Dataset, IntArray
from palate.data.splits import Holdout

_NO_CLICKS = ("no_click", "impression", "skip", "dislike")
_NEAREST = 10  # items of about equal popularity among which the matched one is drawn


@dataclass(frozen=True)
class ClickPairs:
    """`clicked[i]` was taken by `users[i]` with `histories[i]` behind; `matched[i]` is as popular, of the category."""

    users: IntArray  # [n]
    histories: list[IntArray]  # n arrays of item_nums
    clicked: IntArray  # [n]
    matched: IntArray  # [n]

    def __len__(self) -> int:
        return len(self.clicked)

    def part(self, rows: npt.NDArray[np.int64]) -> ClickPairs:
        return ClickPairs(
            self.users[rows], [self.histories[i] for i in rows.tolist()], self.clicked[rows], self.matched[rows]
        )


def clicks_only(dataset: Dataset) -> Dataset:
    """Without what was shown and not taken."""
    return dataset.with_events(dataset.events.filter(~pl.col("event_type").is_in(_NO_CLICKS).fill_null(False)))


def strata(dataset: Dataset) -> npt.NDArray[np.int64]:
    """The number of each item's first category, [n_items]; 0 for items without one."""
    first = [(categories or [""])[0] for categories in dataset.items["categories"].to_list()]
    numbers = {name: i for i, name in enumerate(sorted(set(first) | {""}))}
    return np.array([numbers[name] for name in first], dtype=np.int64)


def training_pairs(
    dataset: Dataset, per_user: int = 20, recent: int = 10, allowed: IntArray | None = None, seed: int = 0
) -> ClickPairs:
    """Up to `per_user` random clicks of each user, with what went before (at most `recent` items).

    `allowed`: item_nums to which histories, clicks and matches are held; None: all.
    """
    rng = np.random.default_rng(seed)
    packed = dataset.histories
    rows: list[tuple[int, IntArray, int]] = []
    inside = np.ones(dataset.n_items, dtype=bool) if allowed is None else np.isin(np.arange(dataset.n_items), allowed)
    for user in range(dataset.n_users):
        items = packed.of(user)
        items = items[inside[items]]
        places = rng.permutation(np.arange(1, len(items)))[:per_user]
        rows += [(user, items[max(0, p - recent) : p], int(items[p])) for p in sorted(places.tolist())]
    return _paired(dataset, rows, inside, rng)


def holdout_pairs(
    dataset: Dataset, held: Holdout, allowed: IntArray, recent: int = 10, seed: int = 0, train: Dataset | None = None
) -> ClickPairs:
    """The held-out clicks on `allowed` items, histories held to them too; popularity is that of `train`."""
    rng = np.random.default_rng(seed)
    inside = np.isin(np.arange(dataset.n_items), allowed)
    rows = []
    for query, targets in zip(held.queries, held.targets, strict=True):
        history = query.history[inside[query.history]][-recent:]
        target = int(targets[0])
        if len(history) and inside[target] and query.user_id is not None:
            rows.append((dataset.user_nums[query.user_id], history, target))
    return _paired(dataset, rows, inside, rng, train or dataset)


def _paired(
    dataset: Dataset,
    rows: list[tuple[int, IntArray, int]],
    inside: npt.NDArray[np.bool_],
    rng: np.random.Generator,
    train: Dataset | None = None,
) -> ClickPairs:
    """Draws for each row an item of the same first category and about the same popularity; none left: no pair."""
    counts, group = (train or dataset).item_counts, strata(dataset)
    met = {user: set(dataset.histories.of(user).tolist()) for user in {row[0] for row in rows}}
    pools = {g: np.flatnonzero(inside & (group == g)) for g in np.unique(group[inside])}
    kept, matched = [], []
    for row in rows:
        user, _, item = row
        pool = pools[group[item]]
        pool = pool[~np.isin(pool, list(met[user] | {item}))]
        if len(pool):
            apart = np.abs(np.log1p(counts[pool]) - np.log1p(counts[item]))
            near = pool[np.argsort(apart, kind="stable")[:_NEAREST]]
            kept.append(row)
            matched.append(int(near[rng.integers(len(near))]))
    users = np.array([row[0] for row in kept], dtype=np.int32)
    clicked = np.array([row[2] for row in kept], dtype=np.int32)
    return ClickPairs(users, [row[1] for row in kept], clicked, np.array(matched, dtype=np.int32))
