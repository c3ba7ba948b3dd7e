"""Is an effect the same everywhere: over days, weekdays, slices."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from palate.evaluation.welch import Array


def heterogeneity(effects: npt.ArrayLike, errors: npt.ArrayLike) -> float:
    """The p-value of Cochran's (1954) Q: the chance of effects so unlike each other, were there one effect.

    `errors` are standard errors; what is not finite is left out, and fewer than two effects give NaN. Where the same
    people stand behind several effects, these vary together, and fewer differences are called real than could be.
    """
    found, weight = _weighted(effects, errors)
    if len(found) < 2:
        return float("nan")
    from scipy.stats import chi2

    mean = float(weight @ found / weight.sum())
    return float(chi2.sf(float(weight @ (found - mean) ** 2), len(found) - 1))


def trend(effects: npt.ArrayLike, errors: npt.ArrayLike) -> tuple[float, float]:
    """What is added to the effect from one place to the next, by weighted least squares, and its two-sided p-value.

    For effects by day since exposure: one that wears off had novelty in it. As `heterogeneity` in what it leaves out.
    """
    all_effects, all_errors = (np.asarray(values, dtype=np.float64) for values in (effects, errors))
    kept = _usable(all_effects, all_errors)
    found, weight = _weighted(effects, errors)
    if len(found) < 3:
        return float("nan"), float("nan")
    from scipy.stats import norm

    at = np.flatnonzero(kept).astype(np.float64)
    centred = at - weight @ at / weight.sum()
    spread = float(weight @ centred**2)
    slope = float(weight @ (centred * found)) / spread
    return slope, 2 * float(norm.sf(abs(slope) * np.sqrt(spread)))


def _usable(effects: Array, errors: Array) -> npt.NDArray[np.bool_]:
    return np.isfinite(effects) & np.isfinite(errors) & (errors > 0)


def _weighted(effects: npt.ArrayLike, errors: npt.ArrayLike) -> tuple[Array, Array]:
    found, spread = (np.asarray(values, dtype=np.float64) for values in (effects, errors))
    kept = _usable(found, spread)
    return found[kept], spread[kept] ** -2.0
