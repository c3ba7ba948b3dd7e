from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from palate.errors import InputError
from palate.evaluation.quantile_difference import quantile_difference


@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_it_is_scipys_bootstrap_but_for_chance(quantile):
    rng = np.random.default_rng(0)
    treated, control = rng.exponential(1.3, 400), rng.exponential(1, 500)
    found, _ = quantile_difference(treated, control, quantile, n_resamples=20_000)

    def difference(a, b, axis=-1):
        return np.quantile(a, quantile, axis=axis) - np.quantile(b, quantile, axis=axis)

    known = stats.bootstrap(
        (treated, control), difference, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    spread = (known.high - known.low) / 4
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=0.35 * spread)


def test_its_interval_covers_and_its_p_value_keeps_the_level():
    rng = np.random.default_rng(1)
    treated, control = rng.exponential(1, (1000, 300)), rng.exponential(1, (1000, 300))
    found = [
        quantile_difference(a, b, 0.5, n_resamples=400, seed=n)
        for n, (a, b) in enumerate(zip(treated, control, strict=True))
    ]
    assert 0.93 <= np.mean([each.low <= 0 <= each.high for each, _ in found]) <= 0.97
    assert np.mean([p_value < 0.05 for _, p_value in found]) < 0.075


def test_nothing_is_said_of_nobody():
    found, p_value = quantile_difference([np.nan], [1.0, 2.0], 0.5)
    assert np.isnan([found.mean, p_value]).all()
    with pytest.raises(InputError):
        quantile_difference([1.0], [1.0], 1.0)
    assert quantile_difference([5.0] * 50, [1.0] * 50, 0.5)[1] < 0.001
