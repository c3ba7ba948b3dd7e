"""Do two groups differ in a quantile, the median or the heaviest tenth: a bootstrap that resamples nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from palate.errors import InputError
from palate.evaluation.bootstrap import Interval
from palate.evaluation.welch import Array


def quantile_difference(
    treated: npt.ArrayLike,
    control: npt.ArrayLike,
    quantile: float,
    n_resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[Interval, float]:
    """The difference of a quantile of `treated` [n] and `control` [m], its percentile interval, and a p-value.

    A resample's quantile is an order statistic of the sample, and which one is binomial: it is drawn as such, for
    millions of people in no time (Schultzberg & Ankargren 2022, arXiv 2202.10992). The p-value is twice the smaller
    share of resamples on one side of 0. NaN is left out; an empty group gives NaN.

    Raises:
        InputError: `quantile` outside (0, 1).
    """
    if not 0 < quantile < 1:
        raise InputError("A quantile lies between 0 and 1", where="quantile", got=quantile)
    groups = [np.sort(_known(values)) for values in (treated, control)]
    if min(map(len, groups)) == 0:
        return Interval(np.nan, np.nan, np.nan), np.nan
    rng = np.random.default_rng(seed)
    found = float(np.subtract(*(group[_rank(quantile, len(group))] for group in groups)))
    drawn = np.subtract(*(_drawn(group, quantile, n_resamples, rng) for group in groups))
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    side = min(float((drawn <= 0).mean()), float((drawn >= 0).mean()))
    return Interval(found, float(low), float(high)), min(1.0, 2 * max(side, 1 / (n_resamples + 1)))


def _known(values: npt.ArrayLike) -> Array:
    data = np.asarray(values, dtype=np.float64)
    return data[~np.isnan(data)]


def _rank(quantile: float, n: int) -> int:
    return min(n - 1, int(quantile * n))


def _drawn(group: Array, quantile: float, n_resamples: int, rng: np.random.Generator) -> Array:
    return group[np.minimum(rng.binomial(len(group) + 1, quantile, n_resamples), len(group) - 1)]
