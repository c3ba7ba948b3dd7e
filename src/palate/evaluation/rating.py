"""How good are predicted probabilities: AUC, GAUC, LogLoss, ECE.

Intervals and differences over users: `judge_arms` with `weighted_auc` (`palate.evaluation.controls`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from palate.errors import InputError
from palate.evaluation.binary import auc, expected_calibration_error
from palate.evaluation.bootstrap import Groups, group_codes

__all__ = ["auc", "expected_calibration_error", "gauc", "log_loss"]

Array = npt.NDArray[np.float64]
_EDGE = 1e-7  # probabilities are kept this far from 0 and 1


def log_loss(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Mean −log of the probability of what came to pass, in nats."""
    y, p = _checked(labels, probabilities)
    if not len(y):
        return float("nan")
    p = np.clip(p, _EDGE, 1 - _EDGE)
    return float(-np.where(y > 0.5, np.log(p), np.log1p(-p)).mean())


def gauc(labels: npt.ArrayLike, scores: npt.ArrayLike, users: Groups) -> float:
    """AUC within each user, averaged with the user's rows as weights (Zhu et al. 2017; DIN, arXiv 1706.06978, eq. 6).

    Users all of whose labels are the same have no AUC and are left out; NaN where that leaves nobody.
    """
    y, s = _checked(labels, scores)
    codes = group_codes(users)
    order = np.lexsort((s, codes))
    codes, y, s = codes[order], y[order], s[order]
    runs = np.flatnonzero(np.r_[True, (np.diff(codes) != 0) | (np.diff(s) != 0)][: len(s)])  # equal scores of one user
    if not len(runs):
        return float("nan")
    positive, negative = np.add.reduceat(y, runs), np.add.reduceat(1 - y, runs)
    of_user = codes[runs]
    n_positive, n_negative = np.bincount(of_user, positive), np.bincount(of_user, negative)
    before = np.cumsum(n_negative) - n_negative  # negatives of the users before
    below = np.cumsum(negative) - negative - before[of_user]
    won = np.bincount(of_user, positive * (below + negative / 2))
    judged = (n_positive > 0) & (n_negative > 0)
    if not judged.any():
        return float("nan")
    own = won[judged] / (n_positive * n_negative)[judged]
    return float(np.average(own, weights=(n_positive + n_negative)[judged]))


def _checked(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Array, Array]:
    y, s = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if y.shape != s.shape or y.ndim != 1:
        raise InputError("Labels and scores differ in shape", got=f"{y.shape} and {s.shape}")
    if np.isnan(s).any():
        raise InputError("Scores hold NaN", got=f"{int(np.isnan(s).sum())} of {len(s)}")
    return y, s
