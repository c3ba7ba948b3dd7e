from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats.mstats import winsorize

from palate.errors import InputError
from palate.evaluation.welch import moments, welch
from palate.evaluation.winsorise import winsorised


def test_it_is_scipys_where_the_quantile_is_a_value():
    values = np.random.default_rng(0).permutation(101).astype(float)
    (found,), limit = winsorised([values], 0.9)
    assert (found == np.asarray(winsorize(values, (0, 0.1)))).all() and limit == 90


@given(st.lists(st.lists(st.floats(-10, 10), max_size=8), min_size=1, max_size=3), st.floats(0.5, 1))
def test_one_limit_holds_for_all_groups(groups, upper):
    arrays = [np.array(group, dtype=float) for group in groups]
    found, limit = winsorised(arrays, upper)
    if any(map(len, arrays)):
        assert limit == np.quantile(np.concatenate(arrays), upper)
        assert all((a == np.minimum(b, limit)).all() for a, b in zip(found, arrays, strict=True))


def test_the_interval_of_winsorised_means_covers_at_its_level():
    """The limit is a draw itself; what is covered is the difference at that of a large sample."""
    rng = np.random.default_rng(0)
    many = rng.lognormal(0.1, 1.5, 1_000_000), rng.lognormal(0, 1.5, 1_000_000)
    (more, less), _ = winsorised(many, 0.95)
    truth = more.mean() - less.mean()
    covered = []
    for _ in range(1500):
        (a, b), _limit = winsorised((rng.lognormal(0.1, 1.5, 600), rng.lognormal(0, 1.5, 600)), 0.95)
        found = welch(moments(a), moments(b)).absolute
        covered.append(found.low <= truth <= found.high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_a_quantile_is_asked_for():
    with pytest.raises(InputError, match="quantile"):
        winsorised([np.ones(3)], 0.0)
    assert np.isnan(winsorised([np.array([np.nan])], 0.9)[0][0]).all()
