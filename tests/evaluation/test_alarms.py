import numpy as np
import pytest

from palate.errors import InputError
from palate.evaluation.alarms import control_chart, jumps

SEEDS = 200


def test_a_steady_rate_alarms_no_more_than_promised():
    """Within n observations at a chance of at most n / run_length: 300 of 3,000, one in ten."""
    alarmed = 0
    for seed in range(SEEDS):
        hits = np.random.default_rng(seed).random(300) < 0.2
        alarmed += bool(control_chart(hits, 0.2, run_length=3000).alarms)
    assert alarmed / SEEDS <= 0.1
    below = [control_chart(np.random.default_rng(seed).random(300) < 0.1, 0.2, 3000).alarms for seed in range(100)]
    assert sum(map(bool, below)) <= 10


@pytest.mark.parametrize("steady", [0, 500])
def test_a_rise_is_found_soon_however_long_it_was_quiet(steady):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        hits = np.concatenate([rng.random(steady) < 0.1, rng.random(150) < 0.5])
        alarms = [at for at in control_chart(hits, 0.1, run_length=5000).alarms if at >= steady]
        assert alarms
        assert alarms[0] - steady < 60


def test_the_statistic_by_hand():
    """One hit at a usual rate of 1/2: the likelihood ratio is twice the risen rate."""
    risen = 0.5 + np.array([0.05, 0.1, 0.2, 0.4]) * 0.5
    chart = control_chart([1, 0], 0.5, run_length=1e9)
    np.testing.assert_allclose(chart.evidence, [(2 * risen).mean(), ((2 * risen + 1) * 2 * (1 - risen)).mean()])


def test_it_starts_afresh_after_an_alarm():
    chart = control_chart([1] * 40, 0.1, run_length=100)
    assert len(chart.alarms) > 2
    assert np.diff(chart.alarms).min() >= chart.alarms[0]


def test_what_cannot_be_charted_is_said():
    with pytest.raises(InputError, match="usual rate"):
        control_chart([1], 1.0, 100)
    with pytest.raises(InputError, match="0 or 1"):
        control_chart([0.5], 0.1, 100)


def groups(rng, rates_before, rates_now, before=40, now=12):
    n = len(rates_before)
    sizes = np.full(n, before), np.full(n, now)
    return rng.binomial(before, rates_before), sizes[0], rng.binomial(now, rates_now), sizes[1]


def test_where_no_rate_rose_alarms_come_no_more_often_than_promised():
    rates = np.linspace(0.05, 0.9, 60)
    false = sum(jumps(*groups(np.random.default_rng(seed), rates, rates), q=0.1)[1].any() for seed in range(SEEDS))
    assert false / SEEDS <= 0.1


def test_rates_that_rose_are_found_and_few_others():
    found, false_share = 0, []
    for seed in range(100):
        before = np.full(60, 0.1)
        now = np.where(np.arange(60) < 10, 0.8, 0.1)
        called = jumps(*groups(np.random.default_rng(seed), before, now), q=0.1)[1]
        found += int(called[:10].sum())
        false_share.append(called[10:].sum() / max(called.sum(), 1))
    assert found / 1000 > 0.9
    assert np.mean(false_share) <= 0.1


def test_fishers_test_by_hand():
    """Two of two now, none of two before: one way in six to draw both hits."""
    p, called = jumps(np.array([0]), np.array([2]), np.array([2]), np.array([2]), q=0.2)
    assert (p[0], called[0]) == (pytest.approx(1 / 6), True)
