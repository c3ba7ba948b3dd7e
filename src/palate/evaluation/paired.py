"""Is one score better than another on the same items: a paired test of AUC, and what many tests come to together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.errors import InputError
from palate.evaluation.bootstrap import Interval

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class AucDifference:
    """AUC of one score less that of another; `p_value`: the chance of so much or more, were neither better."""

    difference: Interval
    p_value: float


def auc_difference(
    truth: npt.ArrayLike, score: npt.ArrayLike, other: npt.ArrayLike, n_permutations: int = 1999, seed: int = 0
) -> AucDifference:
    """Does `score` [n] rank the true items above the untrue ones better than `other` [n] does? One-sided.

    The interval is DeLong's (1988) with 95%. The p-value compares the difference over DeLong's standard error with its
    distribution when the two scores (as ranks) change places on items at random: exact where neither differs from the
    other, and right for large n where only the AUCs are equal (Pauly, Asendorf & Konietschke 2016, arXiv 1604.07631).
    AUC, since it takes no threshold and no prevalence: verdicts of a model that says yes to all (McNemar) tell nothing
    apart. Items with a NaN anywhere are left out.

    Raises:
        InputError: Shapes differ, truth is neither 0 nor 1, or fewer than two items of a class.
    """
    y, a, b = (np.asarray(values, dtype=np.float64) for values in (truth, score, other))
    if not (y.shape == a.shape == b.shape and y.ndim == 1):
        raise InputError("Truth and scores differ in shape", got=f"{y.shape}, {a.shape} and {b.shape}")
    known = ~(np.isnan(y) | np.isnan(a) | np.isnan(b))
    y, a, b = y[known], a[known], b[known]
    if not np.isin(y, (0.0, 1.0)).all():
        raise InputError("Truth must be 0 or 1", got=y[~np.isin(y, (0.0, 1.0))][0], allowed="0, 1 or NaN")
    positives = int(y.sum())
    if min(positives, len(y) - positives) < 2:
        got = f"{positives} true, {len(y) - positives} untrue"
        raise InputError("A comparison of AUCs needs two items of either class", got=got)
    from scipy.stats import rankdata

    ranks = np.stack([rankdata(a), rankdata(b)])[:, np.argsort(-y, kind="stable")]  # the true ones first
    found, spread = _compared(ranks[:1], ranks[1:], positives)
    swap = np.random.default_rng(seed).random((n_permutations, len(y))) < 0.5
    drawn = _studentised(*_compared(np.where(swap, ranks[1], ranks[0]), np.where(swap, *ranks), positives))
    as_much = int((drawn >= _studentised(found, spread)[0] - 1e-12).sum())
    mean, margin = float(found[0]), 1.96 * float(spread[0])
    return AucDifference(Interval(mean, mean - margin, mean + margin), (1 + as_much) / (1 + n_permutations))


def holm(p_values: npt.ArrayLike) -> Array:
    """P-values adjusted so that the chance of any false finding stays below what each is held against (Holm 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def benjamini_hochberg(p_values: npt.ArrayLike, q: float) -> Flags:
    """Which of the tests to call findings so that at most a share `q` of these is false on average (1995)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    below = np.flatnonzero(p[order] <= q * np.arange(1, len(p) + 1) / max(len(p), 1))
    found = np.zeros(len(p), dtype=bool)
    found[order[: below[-1] + 1 if len(below) else 0]] = True
    return found


def _compared(a: Array, b: Array, positives: int) -> tuple[Array, Array]:
    """Difference of AUC and DeLong's standard error for each row of `a` and `b` [rows, n], the true items first."""
    (above_a, below_a), (above_b, below_b) = _placements(a, positives), _placements(b, positives)
    above, below = above_a - above_b, below_a - below_b
    variance = above.var(axis=1, ddof=1) / above.shape[1] + below.var(axis=1, ddof=1) / below.shape[1]
    return above.mean(axis=1), np.sqrt(variance)


def _placements(scores: Array, positives: int) -> tuple[Array, Array]:
    """For each true item the share of untrue ones below it, for each untrue one that of true ones above it."""
    from scipy.stats import rankdata

    together = rankdata(scores, axis=1)
    true, untrue = (rankdata(part, axis=1) for part in (scores[:, :positives], scores[:, positives:]))
    below = (together[:, :positives] - true) / untrue.shape[1]
    return below, 1 - (together[:, positives:] - untrue) / positives


def _studentised(difference: Array, spread: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = difference / spread
    return np.where(np.abs(difference) < 1e-12, 0.0, ratio)
