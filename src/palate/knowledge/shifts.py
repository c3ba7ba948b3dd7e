"""Whose taste has moved since a profile was written: what they chose since against what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from palate.data.dataset import Dataset, FloatArray


@dataclass(frozen=True)
class Shift:
    """Of one user: how far the taste has moved (see `shift`), and on how many events since the profile that rests."""

    user_num: int
    amount: float
    events: int


def shift(before: FloatArray, since: FloatArray) -> float:
    """How much farther apart two samples of vectors, [n, d] and [m, d], lie than two draws of one taste would.

    The pseudo-F of Anderson 2001 ("A new method for non-parametric multivariate analysis of variance") for two groups:
    |mean - mean|² / (s² (1/n + 1/m)), s² the variance within the groups, (Σ|x - mean|²) / (n + m - 2). About 1 where
    both come from the same distribution, whatever n, m and d. Each sample needs a vector, both together three.
    """
    n, m = len(before), len(since)
    one, other = before.astype(np.float64), since.astype(np.float64)
    apart = float(((one.mean(axis=0) - other.mean(axis=0)) ** 2).sum())
    within = float(one.var(axis=0).sum() * n + other.var(axis=0).sum() * m) / (n + m - 2)
    if within <= 1e-12:  # the same item again and again, on either side
        return float("inf") if apart > 1e-12 else 0.0
    return apart / (within * (1 / n + 1 / m))


def shifts(dataset: Dataset, vectors: FloatArray, written: Mapping[int, int], window: int, least: int) -> list[Shift]:
    """Of each user with enough to tell by, the greatest first; ties by user_num.

    Args:
        vectors: Of items, [n_items, d].
        written: By user_num the time (microseconds) of the last event that the profile rests on.
        window: Events at most on either side: the last ones before that time, and the last ones since.
        least: Events since that are needed.
    """
    found = []
    for user, moment in written.items():
        items, times = dataset.histories.of(user), dataset.histories.times_of(user)
        cut = int(np.searchsorted(times, moment, side="right"))
        before, since = items[:cut][-window:], items[cut:][-window:]
        if len(before) >= 2 and len(since) >= max(1, least):
            found.append(Shift(user, shift(vectors[before], vectors[since]), len(items) - cut))
    return sorted(found, key=lambda each: (-each.amount, each.user_num))
