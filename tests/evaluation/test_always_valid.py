from __future__ import annotations

import math

import numpy as np
import pytest

from palate.errors import InputError
from palate.evaluation.always_valid import always_valid
from palate.evaluation.welch import Moments, welch

STEPS = np.arange(100, 4001)  # people in both groups at which someone looks
PLANNED = 2000


def paths(runs: int, seed: int, effect: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Differences and their standard errors at every step, [runs, steps]: every other person is treated."""
    rng = np.random.default_rng(seed)
    n = int(STEPS[-1]) // 2
    found = []
    for treated in (True, False):
        values = rng.exponential(1, (runs, n)) + effect * treated
        counts = np.arange(1, n + 1)
        mean = values.cumsum(axis=1) / counts
        variance = ((values**2).cumsum(axis=1) / counts - mean**2) * counts / np.maximum(counts - 1, 1)
        at = (STEPS + treated) // 2 - 1
        found.append((mean[:, at], variance[:, at] / (at + 1)))
    return found[0][0] - found[1][0], np.sqrt(found[0][1] + found[1][1])


def half(n: int, level: float = 0.95) -> float:
    """Half the length of the interval with a standard error of 1."""
    return always_valid(0.0, 1.0, n, PLANNED, level).high


def test_the_level_holds_however_often_one_looks_and_that_of_the_fixed_interval_does_not():
    difference, error = paths(700, 0)
    z = np.abs(difference / error)
    reach = np.array([half(n) for n in STEPS])
    wrong = (z > reach).any(axis=1).mean()
    assert wrong <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 700)
    assert (z > 1.96).any(axis=1).mean() > 0.3
    assert (z[:, -1] > 1.96).mean() < 0.07


def test_a_true_effect_stays_inside_and_is_found():
    effect = 0.2
    difference, error = paths(400, 1, effect)
    reach = np.array([half(n) for n in STEPS])
    assert (np.abs(difference - effect) > reach * error).any(axis=1).mean() <= 0.075
    assert (difference[:, -1] > reach[-1] * error[:, -1]).mean() > 0.9


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_the_p_value_is_the_level_whose_interval_ends_at_nothing(level):
    edge = always_valid(half(700, level) * 0.3, 0.3, 700, PLANNED, level)
    assert edge.low == pytest.approx(0, abs=1e-12) and edge.p_value == pytest.approx(1 - level, rel=1e-9)


def test_it_is_shortest_at_what_was_planned_and_wider_than_the_fixed_one():
    at = {planned: always_valid(0, 1, 2000, planned).high for planned in (50, 1000, 2000, 4000, 100_000)}
    assert min(at, key=at.__getitem__) == 2000
    fixed = welch(Moments(1000, 0.0, 500.0), Moments(1000, 0.0, 500.0)).absolute.high
    assert 1.3 < at[2000] / fixed < 1.6


def test_nothing_is_said_where_nothing_is_known():
    assert always_valid(1, math.nan, 50, 100) == always_valid(1, 1, 1, 100)
    assert always_valid(0, 0, 10, 100).p_value == 1 and always_valid(1, 0, 10, 100).p_value == 0
    with pytest.raises(InputError):
        always_valid(0, 1, 10, 0)
