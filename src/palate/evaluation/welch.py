"""Do two groups differ in their mean: Welch's test, from the few numbers that it needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.errors import InputError
from palate.evaluation.bootstrap import Interval

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Of a group: how many, their mean, and the variance of one of them (n - 1 below the line)."""

    n: int
    mean: float
    variance: float

    @property
    def error2(self) -> float:
        """The squared standard error of the mean."""
        return self.variance / self.n if self.n else math.nan


@dataclass(frozen=True)
class Difference:
    """Treated less control. `relative`: as a share of the control's mean, NaN where that is 0.

    `error` is the standard error of the difference, `df` the degrees of freedom, `p_value` two-sided.
    """

    absolute: Interval
    relative: Interval
    p_value: float
    error: float
    df: float


def moments(values: npt.ArrayLike) -> Moments:
    """Of `values` [n], NaN left out."""
    data = np.asarray(values, dtype=np.float64)
    data = data[~np.isnan(data)]
    n = len(data)
    variance = float(data.var(ddof=1)) if n > 1 else math.nan
    return Moments(n, float(data.mean()) if n else math.nan, variance)


def welch(treated: Moments, control: Moments, level: float = 0.95) -> Difference:
    """Welch's (1947) two-sided test of unequal variances, with the interval of the difference.

    The relative difference has an interval by the delta method on the ratio of two independent means (Casella & Berger
    2002, 5.5.4). Fewer than two in a group give NaN: nothing is known of the spread. Two groups without any spread are
    told apart with p = 0 if their means differ, and p = 1 if not.

    Raises:
        InputError: `level` outside (0, 1).
    """
    if not 0 < level < 1:
        raise InputError("A level lies between 0 and 1", got=level)
    a, b = treated.error2, control.error2
    found, error = treated.mean - control.mean, math.sqrt(a + b)
    if math.isnan(error):
        nothing = Interval(found, math.nan, math.nan)
        return Difference(nothing, _relative(treated, control, math.nan), math.nan, error, math.nan)
    if error == 0:
        p_value = 1.0 if found == 0 else 0.0
        return Difference(Interval(found, found, found), _relative(treated, control, 0.0), p_value, 0.0, math.inf)
    from scipy.stats import t

    df = (a + b) ** 2 / (a**2 / (treated.n - 1) + b**2 / (control.n - 1))
    reach = float(t.isf((1 - level) / 2, df))
    p_value = 2 * float(t.sf(abs(found) / error, df))
    interval = Interval(found, found - reach * error, found + reach * error)
    return Difference(interval, _relative(treated, control, reach), p_value, error, df)


def _relative(treated: Moments, control: Moments, reach: float) -> Interval:
    if control.mean == 0 or math.isnan(control.mean):
        return Interval(math.nan, math.nan, math.nan)
    ratio = treated.mean / control.mean
    error = math.sqrt(treated.error2 + ratio**2 * control.error2) / abs(control.mean)
    lift = (treated.mean - control.mean) / abs(control.mean)
    return Interval(lift, lift - reach * error, lift + reach * error)
