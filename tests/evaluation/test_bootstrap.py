from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.errors import InputError
from palate.evaluation.bootstrap import Interval, bootstrap_mean, paired_difference


def test_the_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        found = bootstrap_mean(rng.normal(3.0, 1.0, 60), n_resamples=300, seed=trial)
        covered += found.low <= 3.0 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_groups_that_hang_together_widen_the_interval():
    users = np.repeat(np.arange(40), 25)
    values = np.random.default_rng(2).normal(size=40)[users]  # every user answers 25 times the same
    naive, clustered = bootstrap_mean(values), bootstrap_mean(values, users)
    assert naive.mean == clustered.mean
    assert clustered.high - clustered.low > 3 * (naive.high - naive.low)


def test_nan_is_left_out():
    assert bootstrap_mean(np.array([1.0, np.nan, 3.0])).mean == 2.0
    assert all(np.isnan([*vars(bootstrap_mean(np.array([np.nan]))).values()]))
    assert paired_difference(np.array([1.0, np.nan, 3.0]), np.array([0.0, 1.0, np.nan])).mean == 1.0


def test_one_group_says_nothing_of_the_spread():
    found = bootstrap_mean(np.array([1.0, 2.0]), ["u", "u"])
    assert found.mean == 1.5 and np.isnan(found.low) and np.isnan(found.high)


def test_nobody_is_not_one_person():
    found = bootstrap_mean(np.array([1.0, 2.0, 3.0]), [None, None, None])
    assert not np.isnan(found.low)


def test_pairing_sees_what_two_intervals_do_not():
    rng = np.random.default_rng(3)
    hard = rng.normal(0, 5, 200)
    better = paired_difference(hard + 0.5 + rng.normal(0, 0.1, 200), hard)
    assert better.low > 0.4 and better.high < 0.6


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=30), st.integers(0, 3))
def test_the_interval_holds_within_the_values_and_repeats(values, seed):
    data = np.array(values)
    one, two = (bootstrap_mean(data, n_resamples=50, seed=seed) for _ in "ab")
    assert one == two
    assert data.min() - 1e-9 <= one.low <= one.high <= data.max() + 1e-9


def test_lengths_that_differ():
    with pytest.raises(InputError, match="differ in length"):
        bootstrap_mean(np.zeros(3), [1, 2])
    with pytest.raises(InputError, match="differ in length"):
        paired_difference(np.zeros(3), np.zeros(2))


def test_an_interval_on_paper():
    assert str(Interval(0.5, 0.25, 0.75)) == "0.5000 [0.2500, 0.7500]"
