"""A ratio of sums over people (clicks to impressions): its error, where people differ in both. The delta method."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.evaluation.welch import Array, Moments


def linearised(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> Array:
    """A value for each person, [n], whose mean is the ratio of sums and whose variance is the ratio's times n.

    With x over y and R = sum x / sum y it is R + (x - R y) / mean y (Deng, Knoblich & Lu 2018, arXiv 1803.06336, eq.
    2), exact where y is 1 for everybody. All NaN where the denominators come to 0.
    """
    x, y = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    below = y.mean() if len(y) else 0.0
    if below == 0:
        return np.full(len(x), np.nan)
    ratio = x.mean() / below
    return np.asarray(ratio + (x - ratio * y) / below)


@dataclass(frozen=True)
class Sums:
    """Over n people with numerator x and denominator y: all that the ratio and its variance need. They add up."""

    n: float
    x: float
    y: float
    xx: float
    xy: float
    yy: float

    def moments(self) -> Moments:
        """Mean and variance of the linearised values."""
        n, below = int(self.n), self.y
        if n == 0 or below == 0:
            return Moments(n, math.nan, math.nan)
        ratio, mean = self.x / below, below / n
        squares = self.xx - 2 * ratio * self.xy + ratio**2 * self.yy  # of x - R y, whose mean is 0
        return Moments(n, ratio, max(squares, 0.0) / (n - 1) / mean**2 if n > 1 else math.nan)
