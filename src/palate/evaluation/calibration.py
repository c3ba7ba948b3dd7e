"""Probabilities that mean what they say: Platt scaling and isotonic regression, and how far off they were before.

Both keep the order of scores, so they change no AUC. Whatever is reported after calibration is cross-fitted: no score
is judged by a map that saw its truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from palate.evaluation.binary import expected_calibration_error
from palate.evaluation.bootstrap import Interval, bootstrap_mean, paired_difference
from palate.evaluation.selective import upper_bound

Array = npt.NDArray[np.float64]
Method = Literal["none", "platt", "isotonic"]
MIN_LABELS = 50  # labels, below which nothing is fitted
MIN_OF_EACH = 10  # yes and no, each
_LEAST_SLOPE = 0.01  # the order of scores is kept even where dev says that they mean nothing
_EDGE = 1e-6  # probabilities are kept this far from 0 and 1 on the logit scale


@dataclass(frozen=True)
class Platt:
    """sigmoid(slope · logit(p) + intercept): Platt 1999, on the logit of a probability."""

    slope: float
    intercept: float

    def __call__(self, probability: npt.ArrayLike) -> Array:
        from scipy.special import expit

        return np.asarray(expit(self.slope * _logit(probability) + self.intercept))


@dataclass(frozen=True)
class Isotonic:
    """A non-decreasing step map, linear between its knots and flat outside: Zadrozny & Elkan 2002."""

    at: tuple[float, ...]
    value: tuple[float, ...]

    def __call__(self, probability: npt.ArrayLike) -> Array:
        return np.asarray(np.interp(np.asarray(probability, dtype=np.float64), self.at, self.value))


def fit_platt(probability: npt.ArrayLike, truth: npt.ArrayLike) -> Platt:
    """Maximum likelihood with Platt's smoothed targets, by Newton steps; a falling map is made flat."""
    x, y = _logit(probability), np.asarray(truth, dtype=np.float64)
    positives, negatives = y.sum(), len(y) - y.sum()
    target = np.where(y > 0.5, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.stack([x, np.ones_like(x)], axis=1)
    weights = _newton(design, target)
    if weights[0] >= _LEAST_SLOPE:
        return Platt(float(weights[0]), float(weights[1]))
    (intercept,) = _newton(design[:, 1:], target, offset=_LEAST_SLOPE * x)
    return Platt(_LEAST_SLOPE, float(intercept))


def fit_isotonic(probability: npt.ArrayLike, truth: npt.ArrayLike) -> Isotonic:
    """Least squares under monotony: neighbours that fall are pooled until none does (Ayer et al. 1955)."""
    x, y = np.asarray(probability, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    at, place = np.unique(x, return_inverse=True)
    counts = np.bincount(place).astype(np.float64)
    pools: list[list[float]] = []  # mean, weight, how many distinct scores
    for mean, weight in zip(np.bincount(place, y) / counts, counts, strict=True):
        pools.append([float(mean), float(weight), 1])
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            (a, n, k), (b, m, j) = pools[-2:]
            pools[-2:] = [[(a * n + b * m) / (n + m), n + m, k + j]]
    values = np.repeat([mean for mean, _, _ in pools], [int(k) for _, _, k in pools])
    return Isotonic(tuple(map(float, at)), tuple(map(float, values)))


_FITS: dict[str, Callable[[npt.ArrayLike, npt.ArrayLike], Callable[[npt.ArrayLike], Array]]] = {
    "platt": fit_platt,
    "isotonic": fit_isotonic,
}


def too_few(truth: npt.ArrayLike) -> str | None:
    """Why nothing is fitted on `truth` (0 or 1), or None where there is enough of it."""
    y = np.asarray(truth, dtype=np.float64)
    yes, no = int((y > 0.5).sum()), int((y <= 0.5).sum())
    if len(y) >= MIN_LABELS and min(yes, no) >= MIN_OF_EACH:
        return None
    return f"too few dev labels: {yes} yes and {no} no, of {MIN_LABELS} in all and {MIN_OF_EACH} of each that it takes"


def fitted(method: Method, probability: npt.ArrayLike, truth: npt.ArrayLike) -> Callable[[npt.ArrayLike], Array]:
    """The map of `method` on these labels; "none": what came in."""
    return (lambda p: np.asarray(p, dtype=np.float64)) if method == "none" else _FITS[method](probability, truth)


def cross_fitted(
    method: Method, probability: npt.ArrayLike, truth: npt.ArrayLike, folds: int = 5, seed: int = 0
) -> Array:
    """`probability` [n] mapped by `method`, each by a map fitted on the other folds."""
    p, y = np.asarray(probability, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    fold = np.zeros(len(y), dtype=np.int64)
    rng = np.random.default_rng(seed)
    for side in (y > 0.5, y <= 0.5):  # each fold has its share of both
        fold[side] = rng.permutation(int(side.sum())) % folds
    result = np.empty(len(p))
    for k in range(folds):
        inside = fold == k
        if inside.any():
            result[inside] = fitted(method, p[~inside], y[~inside])(p[inside])
    return result


@dataclass(frozen=True)
class Bin:
    """One bar of a reliability plot: what was said, and how often it was so (Clopper–Pearson, 95%)."""

    n: int
    said: float
    true: float
    low: float
    high: float


def reliability(probability: npt.ArrayLike, truth: npt.ArrayLike, bins: int = 10) -> list[Bin]:
    """Equal bins of `probability`; empty ones are left out."""
    p, y = np.asarray(probability, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    place = np.minimum((p * bins).astype(np.int64), bins - 1)
    found = []
    for k in np.unique(place):
        inside, n = y[place == k], int((place == k).sum())
        low = 1 - float(upper_bound(n - inside.sum(), n, 0.025))
        high = float(upper_bound(inside.sum(), n, 0.025))
        found.append(Bin(n, float(p[place == k].mean()), float(inside.mean()), low, high))
    return found


@dataclass(frozen=True)
class Calibration:
    """Before and after on the same labels. Brier is the mean squared error of a probability (Brier 1950)."""

    method: Method
    n: int
    positives: int
    note: str  # why nothing was fitted, or empty
    ece_before: float
    ece_after: float
    brier_before: Interval
    brier_after: Interval
    brier_change: Interval  # paired, after less before: below 0 is better
    before: tuple[Bin, ...]
    after: tuple[Bin, ...]


def calibrate(
    probability: npt.ArrayLike, truth: npt.ArrayLike, method: Method | Literal["auto"] = "auto", seed: int = 0
) -> tuple[Callable[[npt.ArrayLike], Array], Calibration]:
    """The map to use on new probabilities, fitted on all labels, and what it was worth on labels it had not seen.

    Args:
        probability: [n] in 0..1.
        truth: [n], 0 or 1.
        method: auto: the one of the three with the lowest cross-fitted Brier score. With too few labels: none.
    """
    p, y = np.asarray(probability, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    note = too_few(y) or ""
    options: tuple[Method, ...] = ("none", "platt", "isotonic") if method == "auto" else (method,)
    trials = {name: cross_fitted(name, p, y, seed=seed) for name in (("none",) if note else options)}
    chosen: Method = min(trials, key=lambda name: float(((trials[name] - y) ** 2).mean()) if len(y) else 0.0)
    after = trials[chosen]
    errors = (p - y) ** 2, (after - y) ** 2
    report = Calibration(
        chosen,
        len(y),
        int((y > 0.5).sum()),
        note,
        expected_calibration_error(y, p),
        expected_calibration_error(y, after),
        bootstrap_mean(errors[0], seed=seed),
        bootstrap_mean(errors[1], seed=seed),
        paired_difference(errors[1], errors[0], seed=seed),
        tuple(reliability(p, y)),
        tuple(reliability(after, y)),
    )
    return fitted(chosen, p, y), report


def _newton(design: Array, target: Array, offset: Array | float = 0.0) -> Array:
    """Weights of a logistic regression on soft targets, a little ridge so that it always has an answer."""
    from scipy.special import expit

    weights = np.zeros(design.shape[1])
    ridge = 1e-6 * np.eye(design.shape[1])
    for _ in range(50):
        share = expit(design @ weights + offset)
        gradient = design.T @ (share - target) + ridge @ weights
        step = np.linalg.solve(design.T @ (design * (share * (1 - share))[:, None]) + ridge, gradient)
        weights = weights - step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    return weights


def _logit(probability: npt.ArrayLike) -> Array:
    p = np.clip(np.asarray(probability, dtype=np.float64), _EDGE, 1 - _EDGE)
    return np.log(p / (1 - p))
