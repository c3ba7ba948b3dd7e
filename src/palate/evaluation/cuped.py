"""CUPED: what people did before tells part of what they do now, and that part need not be measured again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from palate.errors import InputError
from palate.evaluation.welch import Array


@dataclass(frozen=True)
class Adjusted:
    """`values` of each group with what was known before taken out; `correlation` of before and after within groups.

    Intervals are shorter than without by the factor sqrt(1 - correlation²).
    """

    values: tuple[Array, ...]
    theta: float
    correlation: float


def cuped(values: Sequence[Array], before: Sequence[Array]) -> Adjusted:
    """Deng, Xu, Kohavi & Walker (2013), "Controlled experiments by utilizing pre-experiment data", eq. 4.

    Args:
        values: Of each group, [n].
        before: Of the same people, measured before they could be touched by the experiment. NaN: nothing is known,
            taken as the mean.

    `theta`, one for all groups, is the slope within groups; what is taken out is theta times the distance from the mean
    of everybody before. Where nothing was known of anybody, or all did the same before, values stay as they are.

    Raises:
        InputError: Lengths differ.
    """
    if [len(v) for v in values] != [len(b) for b in before]:
        raise InputError("What was before must be known of the same people", got=f"{list(map(len, before))} people")
    everybody = np.concatenate(list(before)) if len(before) else np.zeros(0)
    known = ~np.isnan(everybody)
    if not known.any():
        return Adjusted(tuple(values), 0.0, 0.0)
    mean = float(everybody[known].mean())
    filled = [np.where(np.isnan(each), mean, each) for each in before]
    now = np.concatenate([v - v.mean() for v in values if len(v)])
    then = np.concatenate([b - b.mean() for b in filled if len(b)])
    spread, both, own = float(then @ then), float(now @ then), float(now @ now)
    if spread <= 1e-12 * max(1.0, mean**2) * len(then) or own == 0:
        return Adjusted(tuple(values), 0.0, 0.0)
    theta = both / spread
    adjusted = tuple(v - theta * (b - mean) for v, b in zip(values, filled, strict=True))
    return Adjusted(adjusted, theta, float(both / np.sqrt(spread * own)))
