from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.evaluation.ratio import Sums, linearised
from palate.evaluation.welch import moments, welch

pairs = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=2, max_size=30)


def groups(table: pl.DataFrame) -> list[tuple[np.ndarray, np.ndarray]]:
    parts = [table.filter(pl.col("variant") == number) for number in (1, 0)]
    return [(part["x"].to_numpy(), part["y"].to_numpy()) for part in parts]


@pytest.mark.parametrize("ratio", [True, False])
def test_it_is_tea_tastings_delta_method(tea, two_groups, ratio):
    metric = tea.RatioOfMeans("x", "y") if ratio else tea.Mean("x")
    known = tea.Experiment(m=metric).analyze(two_groups)["m"]
    found = welch(*[moments(linearised(x, y if ratio else np.ones(len(x)))) for x, y in groups(two_groups)])
    ends = (known.effect_size_ci_lower, known.effect_size_ci_upper)
    assert (found.absolute.low, found.absolute.high) == pytest.approx(ends, abs=1e-8)
    assert found.p_value == pytest.approx(known.pvalue, abs=1e-8)
    relative = (known.rel_effect_size, known.rel_effect_size_ci_lower, known.rel_effect_size_ci_upper)
    assert (found.relative.mean, found.relative.low, found.relative.high) == pytest.approx(relative, abs=1e-8)


@given(pairs)
def test_sums_say_as_much_as_people(people):
    x, y = np.array(people, dtype=float).T
    one = Sums(len(x), x.sum(), y.sum(), x @ x, x @ y, y @ y).moments()
    if y.sum() == 0:
        assert np.isnan(linearised(x, y)).all() and np.isnan(one.mean)
        return
    other = moments(linearised(x, y))
    assert (one.n, one.mean) == (other.n, pytest.approx(other.mean))
    assert one.variance == pytest.approx(other.variance, rel=1e-8, abs=1e-8)


def test_the_interval_of_a_ratio_covers_at_its_level():
    """Clicks of people who differ in taste and in how much they see: impressions are not independent."""
    rng = np.random.default_rng(0)
    runs, n, rates = 1500, 300, (0.3, 0.27)
    covered = []
    parts = []
    for rate in rates:
        taste, seen = rng.beta(3, 3, (runs, n)) * 2, 1 + rng.poisson(6, (runs, n))
        parts.append((rng.binomial(seen, np.minimum(rate * taste, 1)), seen))
    for run in range(runs):
        found = welch(*[moments(linearised(x[run], y[run])) for x, y in parts])
        covered.append(found.absolute.low <= rates[0] - rates[1] <= found.absolute.high)
    assert 0.93 <= np.mean(covered) <= 0.97
