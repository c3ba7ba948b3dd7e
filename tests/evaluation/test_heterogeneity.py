from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from palate.evaluation.heterogeneity import heterogeneity, trend


def test_effects_that_are_alike_give_uniform_p_values_and_others_small_ones():
    rng = np.random.default_rng(0)
    errors = rng.uniform(0.5, 2, 7)
    alike = [heterogeneity(1 + errors * rng.normal(size=7), errors) for _ in range(1000)]
    assert stats.kstest(alike, "uniform").pvalue > 1e-3
    assert heterogeneity([0, 0, 5], [0.5, 0.5, 0.5]) < 1e-6


def test_it_is_the_chi_square_of_two_by_two_tables_but_for_the_error():
    """Two effects: Q is the square of the z of their difference."""
    known = 2 * stats.norm.sf(abs(1.0 - 0.2) / np.hypot(0.3, 0.4))
    assert heterogeneity([1.0, 0.2], [0.3, 0.4]) == pytest.approx(known, abs=1e-12)


def test_the_trend_is_that_of_a_weighted_regression():
    rng = np.random.default_rng(1)
    errors = rng.uniform(0.5, 2, 9)
    effects = 3 - 0.5 * np.arange(9) + errors * rng.normal(size=9)
    known = np.polyfit(np.arange(9), effects, 1, w=1 / errors, cov="unscaled")
    slope, p_value = trend(effects, errors)
    assert slope == pytest.approx(known[0][0], abs=1e-10)
    assert p_value == pytest.approx(2 * stats.norm.sf(abs(slope) / np.sqrt(known[1][0, 0])), abs=1e-10)
    kept = trend(np.insert(effects, 4, np.nan), np.insert(errors, 4, 1.0))
    assert np.isfinite(kept).all()


def test_too_few_effects_say_nothing():
    assert np.isnan(heterogeneity([1.0, np.nan], [1.0, 1.0])) and np.isnan(trend([1, 2], [1, 1])).all()
