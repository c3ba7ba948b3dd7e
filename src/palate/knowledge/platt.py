"""Scores to probabilities by a logistic curve (Platt 1999), with his targets that keep few labels from certainty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.errors import InputError

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Platt:
    """p = 1 / (1 + exp(-(slope · logit(score) + shift))) of scores in 0..1."""

    slope: float
    shift: float

    def __call__(self, scores: npt.ArrayLike) -> Array:
        return np.asarray(1 / (1 + np.exp(-(self.slope * _logit(scores) + self.shift))))


def fit_platt(scores: npt.ArrayLike, truth: npt.ArrayLike) -> Platt:
    """On dev: `scores` [n] in 0..1 and people's `truth` [n], NaN in either left out.

    Raises:
        InputError: Only one kind of label.
    """
    from scipy.optimize import minimize

    s, y = np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    known = ~(np.isnan(s) | np.isnan(y))
    x, y = _logit(s[known]), y[known]
    yes, no = int(y.sum()), int((1 - y).sum())
    if not yes or not no:
        raise InputError("A curve needs labels of both kinds.", got=f"{yes} yes, {no} no", hint="Label more dev items.")
    target = np.where(y == 1, (yes + 1) / (yes + 2), 1 / (no + 2))

    def loss(at: Array) -> tuple[float, Array]:
        z = at[0] * x + at[1]
        off = 1 / (1 + np.exp(-z)) - target
        return float((np.logaddexp(0, z) - target * z).sum()), np.array([off @ x, off.sum()])

    slope, shift = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B").x
    return Platt(float(slope), float(shift))


def _logit(scores: npt.ArrayLike) -> Array:
    p = np.clip(np.asarray(scores, dtype=np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(p / (1 - p)))
