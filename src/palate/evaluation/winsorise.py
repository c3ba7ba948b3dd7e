"""A few people who do a thousand times what others do must not decide: beyond a quantile all count as much as it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from palate.errors import InputError
from palate.evaluation.welch import Array


def winsorised(groups: Sequence[Array], upper: float) -> tuple[tuple[Array, ...], float]:
    """Each group with values above the `upper` quantile of everybody set to it, and that limit (Tukey 1962).

    One limit for all groups: limits of their own would hide an effect on the largest. NaN stays NaN.

    Raises:
        InputError: `upper` outside (0, 1].
    """
    if not 0 < upper <= 1:
        raise InputError("A quantile lies between 0 and 1", where="winsorise", got=upper)
    everybody = np.concatenate(list(groups)) if len(groups) else np.zeros(0)
    everybody = everybody[~np.isnan(everybody)]
    if not len(everybody):
        return tuple(groups), float("nan")
    limit = float(np.quantile(everybody, upper))
    return tuple(np.minimum(values, limit) for values in groups), limit
