"""Percentile bootstrap intervals (Efron 1979), resampling whole groups where observations of a group depend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.errors import InputError

Values = npt.NDArray[np.float64] | npt.NDArray[np.float32]
Groups = Sequence[object] | npt.NDArray[np.generic]
_CHUNK = 4_000_000  # drawn group numbers held at a time


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval. `low` and `high` are NaN where one group alone says nothing of the spread."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


def bootstrap_mean(
    values: Values,
    groups: Groups | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The mean of `values` [n] with a percentile interval over resampled groups (users, say).

    NaN means "cannot be judged" and is left out; nothing left gives NaN throughout. The mean is over values,
    not over groups. `groups` [n] names each value's group; without it every value stands for itself.

    Raises:
        InputError: `groups` and `values` differ in length.
    """
    data = np.asarray(values, dtype=np.float64)
    codes = np.arange(len(data)) if groups is None else group_codes(groups)
    if len(codes) != len(data):
        raise InputError("Values and groups differ in length", got=f"{len(data)} values, {len(codes)} groups")
    known = ~np.isnan(data)
    if not known.any():
        return Interval(np.nan, np.nan, np.nan)
    data, codes = data[known], np.unique(codes[known], return_inverse=True)[1]
    sums, counts = np.bincount(codes, data).astype(np.float64), np.bincount(codes)
    mean = float(data.mean())
    if len(sums) < 2:
        return Interval(mean, np.nan, np.nan)
    tail = (1 - level) / 2
    low, high = np.quantile(_resampled_means(sums, counts, n_resamples, seed), [tail, 1 - tail])
    return Interval(mean, float(low), float(high))


def paired_difference(
    a: Values,
    b: Values,
    groups: Groups | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The mean of `a - b` over the same queries, as `bootstrap_mean`. A pair with a NaN on either side is left out.

    An interval that holds 0 does not tell the two apart.
    """
    if len(a) != len(b):
        raise InputError("The two sides of a paired difference differ in length", got=f"{len(a)} and {len(b)}")
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return bootstrap_mean(difference, groups, n_resamples, seed, level)


def group_codes(groups: Groups) -> npt.NDArray[np.int64]:
    """A dense number per group; `None` (nobody known) is a group of its own each time."""
    numbers: dict[object, int] = {}
    listed = groups.tolist() if isinstance(groups, np.ndarray) else groups
    keys = (("nobody", i) if g is None else g for i, g in enumerate(listed))
    return np.fromiter((numbers.setdefault(key, len(numbers)) for key in keys), np.int64, len(listed))


def _resampled_means(
    sums: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], n_resamples: int, seed: int
) -> npt.NDArray[np.float64]:
    """Means of `n_resamples` draws of as many groups as there are, with replacement."""
    rng = np.random.default_rng(seed)
    n, means = len(sums), []
    step = max(1, _CHUNK // n)
    for start in range(0, n_resamples, step):
        drawn = rng.integers(0, n, size=(min(step, n_resamples - start), n))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)
