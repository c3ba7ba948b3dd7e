from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from palate.errors import InputError
from palate.evaluation.welch import moments, welch

samples = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40).filter(lambda values: np.std(values) > 1e-3)


@given(samples, samples, st.sampled_from([0.8, 0.95, 0.99]))
def test_it_is_scipys_welch(treated, control, level):
    found = welch(moments(treated), moments(control), level)
    known = stats.ttest_ind(treated, control, equal_var=False)
    interval = known.confidence_interval(level)
    assert found.p_value == pytest.approx(known.pvalue, abs=1e-8)
    assert found.df == pytest.approx(known.df, rel=1e-8)
    assert (found.absolute.low, found.absolute.high) == pytest.approx((interval.low, interval.high), rel=1e-8, abs=1e-8)


def test_both_intervals_cover_at_their_level():
    rng = np.random.default_rng(0)
    control, treated = rng.exponential(2, (1500, 200)), rng.exponential(2.2, (1500, 150))
    found = [welch(moments(a), moments(b)) for a, b in zip(treated, control, strict=True)]
    assert 0.93 <= np.mean([each.relative.low <= 0.1 <= each.relative.high for each in found]) <= 0.97
    assert 0.93 <= np.mean([each.absolute.low <= 0.2 <= each.absolute.high for each in found]) <= 0.97


def test_nothing_is_said_where_nothing_is_known():
    alone = welch(moments([1.0]), moments([1.0, 2.0]))
    assert np.isnan([alone.p_value, alone.absolute.low, alone.relative.low]).all()
    assert welch(moments([1.0, 1.0]), moments([1.0, 1.0])).p_value == 1
    assert welch(moments([2.0, 2.0]), moments([1.0, 1.0])).p_value == 0
    assert np.isnan(welch(moments([1.0, 2.0]), moments([0.0, 0.0])).relative.mean)
    assert moments([np.nan, 1.0, 3.0]).n == 2
    with pytest.raises(InputError, match="level"):
        welch(moments([1.0, 2.0]), moments([1.0, 2.0]), 1.0)
