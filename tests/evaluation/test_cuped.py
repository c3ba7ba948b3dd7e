from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from palate.errors import InputError
from palate.evaluation.cuped import cuped
from palate.evaluation.welch import moments, welch


def test_the_difference_is_that_of_a_regression_on_variant_and_what_was_before(two_groups):
    table = two_groups.select(pl.all().cast(pl.Float64))
    design = np.column_stack([np.ones(table.height), table["variant"], table["before"]])
    known = np.linalg.lstsq(design, table["x"].to_numpy(), rcond=None)[0]
    parts = [table.filter(pl.col("variant") == number) for number in (1, 0)]
    found = cuped([part["x"].to_numpy() for part in parts], [part["before"].to_numpy() for part in parts])
    assert found.values[0].mean() - found.values[1].mean() == pytest.approx(known[1], abs=1e-8)
    assert found.theta == pytest.approx(known[2], abs=1e-8)


def test_it_is_tea_tastings_where_both_variants_were_alike_before(tea, two_groups):
    alike = two_groups.with_columns(pl.col("before") - pl.col("before").mean().over("variant"))
    known = tea.Experiment(m=tea.Mean("x", "before")).analyze(alike.with_columns(pl.col("before") + 3))["m"]
    parts = [alike.filter(pl.col("variant") == number) for number in (1, 0)]
    adjusted = cuped(
        [part["x"].to_numpy().astype(float) for part in parts], [part["before"].to_numpy() for part in parts]
    )
    found = welch(*map(moments, adjusted.values))
    ends = (known.effect_size, known.effect_size_ci_lower, known.effect_size_ci_upper)
    assert (found.absolute.mean, found.absolute.low, found.absolute.high) == pytest.approx(ends, abs=1e-8)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_intervals_shrink_by_the_factor_that_the_correlation_predicts(rho):
    rng = np.random.default_rng(1)
    n = 20_000
    before = rng.normal(size=(2, n))
    now = rho * before + np.sqrt(1 - rho**2) * rng.normal(size=(2, n))
    made = cuped(list(now), list(before))
    errors = [welch(moments(a), moments(b)).error for a, b in (now, made.values)]
    assert errors[1] / errors[0] == pytest.approx(np.sqrt(1 - rho**2), abs=0.01)
    assert made.correlation == pytest.approx(rho, abs=0.02)
    assert errors[1] / errors[0] == pytest.approx(np.sqrt(1 - made.correlation**2), abs=1e-3)


def test_adjusted_intervals_cover_at_their_level():
    rng = np.random.default_rng(2)
    runs, n, effect = 1200, 120, 0.4
    before = rng.exponential(1, (runs, 2, n))
    now = before + rng.normal(size=(runs, 2, n))
    now[:, 0] += effect
    found = [welch(*map(moments, cuped(list(a), list(b)).values)).absolute for a, b in zip(now, before, strict=True)]
    assert 0.93 <= np.mean([each.low <= effect <= each.high for each in found]) <= 0.97


def test_without_a_past_nothing_changes():
    now = [np.array([1.0, 2.0, 3.0]), np.array([2.0, 5.0])]
    for past in ([np.zeros(3), np.zeros(2)], [np.full(3, np.nan), np.full(2, np.nan)], [np.ones(3), np.ones(2)]):
        made = cuped(now, past)
        assert made.correlation == 0 and all((a == b).all() for a, b in zip(made.values, now, strict=True))
    some = cuped(now, [np.array([1.0, np.nan, 3.0]), np.array([2.0, 6.0])])
    assert np.isfinite(np.concatenate(some.values)).all()
    with pytest.raises(InputError, match="same people"):
        cuped(now, [np.zeros(3), np.zeros(3)])
