"""Estimates by hand, against what is planted, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.errors import InputError
from palate.evaluation.off_policy import Replay, check_support, doubly_robust, ips, snips

BANDIT = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])  # the logging policy in two contexts
TARGET = np.array([[0.2, 0.3, 0.5], [0.4, 0.4, 0.2]])
WORTH = np.array([[0.1, 0.5, 0.8], [0.9, 0.2, 0.4]])
TRUE = float((TARGET * WORTH).sum(axis=1).mean())


def logs(runs, n, rng, policy=BANDIT):
    """Contexts, actions and rewards of many logs at once, [runs, n] each."""
    contexts = rng.integers(0, 2, (runs, n))
    actions = (rng.random((runs, n, 1)) > policy.cumsum(axis=1)[contexts]).sum(axis=2)
    return contexts, actions, (rng.random((runs, n)) < WORTH[contexts, actions]).astype(float)


def coverage(estimates, truth):
    return np.mean([e.value.low <= truth <= e.value.high for e in estimates])


def test_by_hand():
    replay = Replay([1.0, 0.0, 1.0, 1.0], [0.5, 0.2, 0.1, 0.4], [0.25, 0.4, 0.5, 0.8], least=1)
    weights = [2.0, 0.5, 0.2, 0.5]
    found, normed = ips(replay), snips(replay)
    assert found.value.mean == pytest.approx((2.0 + 0.2 + 0.5) / 4, abs=1e-12)
    assert normed.value.mean == pytest.approx((2.0 + 0.2 + 0.5) / 3.2, abs=1e-12)
    assert found.effective == pytest.approx(3.2**2 / (4 + 0.25 + 0.04 + 0.25), abs=1e-12)
    assert (found.largest, found.clipped) == (2.0, 0.0)
    earned = np.array(weights) * [1, 0, 1, 1]
    margin = 3.182446305284263 * earned.std(ddof=1) / 2  # t with 3 degrees of freedom
    assert found.value.high == pytest.approx(earned.mean() + margin, abs=1e-9)
    cut = ips(Replay([1.0, 0.0, 1.0, 1.0], [0.5, 0.2, 0.1, 0.4], [0.25, 0.4, 0.5, 0.8], clip=1.0, least=1))
    assert cut.value.mean == pytest.approx((1.0 + 0.2 + 0.5) / 4, abs=1e-12)
    assert cut.clipped == 0.25


def test_doubly_robust_by_hand():
    replay = Replay([1.0, 0.0], [0.5, 0.2], [0.25, 0.4], least=1)
    found = doubly_robust(replay, [0.6, 0.1], [0.3, 0.2])
    assert found.value.mean == pytest.approx(((0.3 + 2 * 0.4) + (0.2 - 0.5 * 0.1)) / 2, abs=1e-12)


@given(st.integers(2, 30), st.integers(1, 4), st.integers(0, 10_000))
def test_the_logging_policy_itself_earns_what_was_earned(n, places, seed):
    rng = np.random.default_rng(seed)
    rewards, chances = rng.random((n, places)), rng.uniform(0.01, 1, (n, places))
    replay = Replay(rewards, chances, chances, least=1)
    for found in (ips(replay), snips(replay), doubly_robust(replay, rewards, rewards)):
        assert found.value.mean == pytest.approx(rewards.sum(axis=1).mean())
        assert found.effective == pytest.approx(n)
        assert found.mean_weight == 1.0


def test_intervals_cover_the_planted_value():
    rng = np.random.default_rng(1)
    contexts, actions, rewards = logs(1500, 800, rng)
    off = WORTH + 0.15  # a model of rewards that is wrong by a constant
    found = {"ips": [], "snips": [], "dr": []}
    for x, a, r in zip(contexts, actions, rewards, strict=True):
        replay = Replay(r, TARGET[x, a], BANDIT[x, a])
        found["ips"].append(ips(replay))
        found["snips"].append(snips(replay))
        found["dr"].append(doubly_robust(replay, off[x, a], (TARGET * off).sum(axis=1)[x]))
    for name, estimates in found.items():
        assert 0.93 <= coverage(estimates, TRUE) <= 0.97, name
        assert np.mean([e.value.mean for e in estimates]) == pytest.approx(TRUE, abs=0.004)
    widths = {name: np.mean([e.value.high - e.value.low for e in estimates]) for name, estimates in found.items()}
    assert widths["dr"] < widths["ips"]
    assert widths["snips"] < widths["ips"]


def test_slates_are_judged_by_place_and_people_are_drawn_whole():
    rng = np.random.default_rng(2)
    n_items, places, runs, people, visits = 6, 3, 600, 100, 3
    looked = np.array([1.0, 0.6, 0.3])
    worth = rng.uniform(0.1, 0.8, n_items)
    logging, target = np.full(n_items, 1 / n_items), np.array([0.4, 0.2, 0.1, 0.1, 0.1, 0.1])
    truth = float(looked.sum() * (target * worth).sum())
    covered, alone = [], []
    for _ in range(runs):
        shown = rng.integers(0, n_items, (people * visits, places))
        mood = np.repeat(rng.choice([0.4, 1.6], people), visits)[:, None]  # a person is alike at all their visits
        rewards = (rng.random(shown.shape) < mood * 0.6 * looked * worth[shown]).astype(float)
        who = np.repeat(np.arange(people), visits)
        given = (rewards, target[shown], logging[shown])
        covered.append(ips(Replay(*given, groups=who)))
        alone.append(ips(Replay(*given)))
    assert 0.93 <= coverage(covered, 0.6 * truth) <= 0.97
    assert coverage(alone, 0.6 * truth) < coverage(covered, 0.6 * truth)


def test_a_target_that_was_never_logged_is_refused():
    rng = np.random.default_rng(3)
    narrow = np.array([[0.7, 0.3, 0.0], [0.5, 0.5, 0.0]])
    (x,), (a,), (r,) = logs(1, 2000, rng, narrow)
    with pytest.raises(InputError, match="never could") as said:
        Replay(r, TARGET[x, a], narrow[x, a])
    assert "mean importance weight" in str(said.value)
    with pytest.raises(InputError, match="never could") as said:
        check_support(TARGET, narrow)
    assert "35.0%" in str(said.value)
    check_support(narrow, BANDIT)


def test_a_target_with_overlap_is_hardly_ever_refused():
    contexts, actions, rewards = logs(1000, 300, np.random.default_rng(4))
    for x, a, r in zip(contexts, actions, rewards, strict=True):
        Replay(r, TARGET[x, a], BANDIT[x, a])


@pytest.mark.parametrize(
    ("logging", "said"),
    [
        ([0.5, None, 0.5], "was not logged"),
        ([0.5, 0.0, 0.5], "not in"),
        ([0.5, 1.2, 0.5], "not in"),
        ([0.5, 0.5], "do not fit"),
        ([1e-3, 1.0, 1.0], "too little"),
    ],
)
def test_what_cannot_be_weighted_is_named(logging, said):
    with pytest.raises(InputError, match=said):
        Replay([1.0, 0.0, 1.0], [0.5, 0.5, 0.5], logging, least=2)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"target": [0.5, 1.5]}, "no such probability"),
        ({"rewards": [1.0, np.nan]}, "reward is missing"),
        ({"groups": [1]}, "Groups and rows"),
        ({"clip": 0.0}, "clip must be positive"),
    ],
)
def test_bad_input_is_named(given, said):
    whole = {"rewards": [1.0, 0.0], "target": [0.5, 0.5], "logging": [0.5, 0.5], "least": 1} | given
    with pytest.raises(InputError, match=said):
        Replay(**whole)
