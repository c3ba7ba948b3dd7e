"""How many items truly have a label, from few people's labels and many of a model's: prediction-powered inference."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from palate.errors import InputError
from palate.evaluation.bootstrap import Interval


def prediction_powered_mean(
    truth: npt.ArrayLike, said_of_those: npt.ArrayLike, said_of_others: npt.ArrayLike, level: float = 0.95
) -> Interval:
    """The mean of the truth over all items (PPI++, Angelopoulos, Duchi & Zrnic 2023, arXiv 2311.01453).

    θ = λ · mean(said of others) + mean(truth - λ · said of those), with the λ of least variance: never wider than
    people's labels alone, for long samples. The interval is the normal one and holds however wrong the model is.

    Args:
        truth: [n] people's labels of a random sample.
        said_of_those: [n] the model's of the same items.
        said_of_others: [N] the model's of items without people's labels.

    Raises:
        InputError: Fewer than two items judged by people, or lengths that differ.
    """
    from scipy import stats

    y, f, others = (np.asarray(x, dtype=np.float64) for x in (truth, said_of_those, said_of_others))
    if len(y) != len(f) or len(y) < 2:
        raise InputError(
            "Two or more items are needed, judged by people and by the model", got=f"{len(y)} and {len(f)}"
        )
    n, many = len(y), len(others)
    spread = np.concatenate([f, others]).var()
    weight = float(np.cov(y, f)[0, 1] / ((1 + n / many) * spread)) if many and spread > 0 else 0.0
    mean = float((y - weight * f).mean() + (weight * others.mean() if many else 0.0))
    variance = (y - weight * f).var(ddof=1) / n + (weight**2 * others.var() / many if many else 0.0)
    reach = float(stats.norm.ppf((1 + level) / 2)) * math.sqrt(variance)
    return Interval(mean, mean - reach, mean + reach)
