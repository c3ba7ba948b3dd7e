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

    The relative difference has an interval by the delta method (Casella & Berger 2002, 5.5.4). Fewer than two in a
    group give NaN: nothing is known of the spread. Two groups without any spread are told apart with p = 0 if their
    means differ, and p = 1 if not.

    Raises:
        InputError: `level` outside (0, 1).
    """
    if not 0 < level < 1:
        raise InputError("A level lies between 0 and 1", got=level)
    a, b, n, m = treated.error2, control.error2, treated.n, control.n
    found, error, relative = treated.mean - control.mean, math.sqrt(a + b), _relative(treated, control, level)
    if math.isnan(error):
        return Difference(Interval(found, math.nan, math.nan), relative, math.nan, error, math.nan)
    if error == 0:
        return Difference(Interval(found, found, found), relative, float(found == 0), 0.0, math.inf)
    from scipy.stats import t

    df, reach = _degrees(a, b, n, m), _reach(a, b, n, m, level)
    p_value = 2 * float(t.sf(abs(found) / error, df))
    return Difference(Interval(found, found - reach, found + reach), relative, p_value, error, df)


def _relative(treated: Moments, control: Moments, level: float) -> Interval:
    """By the delta method on the logarithm of the ratio; on the ratio itself where the means differ in sign."""
    if control.mean == 0 or math.isnan(control.mean) or math.isnan(treated.mean):
        return Interval(math.nan, math.nan, math.nan)
    ratio, lift = treated.mean / control.mean, (treated.mean - control.mean) / abs(control.mean)
    if ratio > 0:
        a, b = treated.error2 / treated.mean**2, control.error2 / control.mean**2
        factor = math.exp(min(_reach(a, b, treated.n, control.n, level), 700.0))
        ends = sorted(math.copysign(1, control.mean) * (end - 1) for end in (ratio / factor, ratio * factor))
        return Interval(lift, *ends)
    a, b = treated.error2 / control.mean**2, ratio**2 * control.error2 / control.mean**2
    reach = _reach(a, b, treated.n, control.n, level)
    return Interval(lift, lift - reach, lift + reach)


def _reach(a: float, b: float, n: int, m: int, level: float) -> float:
    """Half the length of an interval, from the squared errors of two groups of `n` and `m`."""
    if math.isnan(a + b) or a + b == 0:
        return a + b
    from scipy.stats import t

    return float(t.isf((1 - level) / 2, _degrees(a, b, n, m))) * math.sqrt(a + b)


def _degrees(a: float, b: float, n: int, m: int) -> float:
    return (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (m - 1))
