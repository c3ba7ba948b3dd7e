"""Agreement of yes/no labels with people's: precision, recall, F1, AUC, Cohen's kappa, calibration, with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.errors import InputError
from palate.evaluation.bootstrap import Interval

Array = npt.NDArray[np.float64]
_CHUNK = 4_000_000  # resampling weights held at a time
_BINS = 10


@dataclass(frozen=True)
class BinaryReport:
    """`n` judged pairs, `positives` of them true by the people, `missing` left out for want of truth or score.

    A figure that is undefined (precision where nothing is said to be true, AUC where one class is missing, ECE where
    scores are no probabilities) is NaN.
    """

    n: int
    positives: int
    missing: int
    threshold: float
    precision: Interval
    recall: Interval
    f1: Interval
    auc: Interval
    kappa: Interval
    ece: Interval


def binary_report(
    truth: npt.ArrayLike,
    score: npt.ArrayLike,
    threshold: float = 0.5,
    seed: int = 0,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> BinaryReport:
    """How well `score` [n] (yes where `>= threshold`) agrees with `truth` [n] (0 or 1), NaN in either left out.

    Intervals are percentile bootstraps over the pairs; a resample on which a figure is undefined does not count.
    Precision, recall, F1: van Rijsbergen 1979. AUC: the probability that a true one scores above an untrue one, ties
    half (Mann & Whitney 1947). Kappa: Cohen 1960. ECE: ten equal bins, Guo et al. 2017, for scores within 0..1.

    Raises:
        InputError: Lengths differ, or truth is neither 0 nor 1.
    """
    y, s = np.asarray(truth, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if y.shape != s.shape or y.ndim != 1:
        raise InputError("Truth and score differ in shape", got=f"{y.shape} and {s.shape}")
    known = ~(np.isnan(y) | np.isnan(s))
    missing = int((~known).sum())
    y, s = y[known], s[known]
    if not np.isin(y, (0.0, 1.0)).all():
        raise InputError("Truth must be 0 or 1", got=y[~np.isin(y, (0.0, 1.0))][0], allowed="0, 1 or NaN")
    names = ("precision", "recall", "f1", "auc", "kappa", "ece")
    point = _figures(y, s, threshold, np.ones((1, len(y))))[0] if len(y) else np.full(len(names), np.nan)
    drawn = _resampled(y, s, threshold, n_resamples, seed)
    intervals = {n: _interval(point[i], drawn[:, i], level) for i, n in enumerate(names)}
    return BinaryReport(len(y), int(y.sum()), missing, threshold, **intervals)


def auc(truth: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Area under the ROC curve, ties half; NaN where a class is missing."""
    y, s = np.asarray(truth, dtype=np.float64), np.asarray(score, dtype=np.float64)
    return float(_auc(y, s, np.ones((1, len(y))))[0]) if len(y) else float("nan")


def expected_calibration_error(truth: npt.ArrayLike, probability: npt.ArrayLike, bins: int = _BINS) -> float:
    """Mean distance of probability and share of truths over `bins` equal bins, weighted by how many fall in each."""
    y, p = np.asarray(truth, dtype=np.float64), np.asarray(probability, dtype=np.float64)
    return float(_ece(y, p, np.ones((1, len(y))), bins)[0]) if len(y) else float("nan")


def _interval(point: float, drawn: Array, level: float) -> Interval:
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(point) or len(drawn) == 0:
        return Interval(float(point), np.nan, np.nan)
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(float(point), float(low), float(high))


def _resampled(y: Array, s: Array, threshold: float, n_resamples: int, seed: int) -> Array:
    """The figures on resamples, [n_resamples, 6]. A resample is a weight (how often drawn) for each pair."""
    rng = np.random.default_rng(seed)
    n, blocks = len(y), [np.zeros((0, 6))]
    step = max(1, _CHUNK // max(1, n))
    for start in range(0, n_resamples if n > 1 else 0, step):
        rows = min(step, n_resamples - start)
        cells = rng.integers(0, n, size=(rows, n)) + np.arange(rows)[:, None] * n
        weights = np.bincount(cells.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)
        blocks.append(_figures(y, s, threshold, weights))
    return np.concatenate(blocks)


def _figures(y: Array, s: Array, threshold: float, weights: Array) -> Array:
    """Precision, recall, F1, AUC, kappa and ECE under each row of `weights` [b, n]: [b, 6]."""
    yes = (s >= threshold).astype(np.float64)
    tp, said, true, n = (weights @ v for v in (y * yes, yes, y, np.ones_like(y)))
    by_chance = (said * true + (n - said) * (n - true)) / n**2
    agreed = (n - said - true + 2 * tp) / n
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack(
            [
                tp / said,
                tp / true,
                2 * tp / (said + true),
                _auc(y, s, weights),
                (agreed - by_chance) / (1 - by_chance),
                _ece(y, s, weights),
            ],
            axis=1,
        )


def _auc(y: Array, s: Array, weights: Array) -> Array:
    order = np.argsort(s, kind="stable")
    starts = np.flatnonzero(np.diff(s[order], prepend=-np.inf))
    positive = np.add.reduceat(weights[:, order] * y[order], starts, axis=1)  # by distinct score, [b, k]
    negative = np.add.reduceat(weights[:, order] * (1 - y[order]), starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative
    won = (positive * (below + negative / 2)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(won / (positive.sum(axis=1) * negative.sum(axis=1)))


def _ece(y: Array, p: Array, weights: Array, bins: int = _BINS) -> Array:
    if len(p) == 0 or p.min() < 0 or p.max() > 1:
        return np.full(len(weights), np.nan)
    member = np.eye(bins)[np.minimum((p * bins).astype(int), bins - 1)]  # [n, bins]
    gap = weights @ (member * (p - y)[:, None])  # [b, bins]: weighted gap of each bin
    return np.asarray(np.abs(gap).sum(axis=1) / weights.sum(axis=1))
