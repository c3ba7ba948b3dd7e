"""Slates: drawn from a restricted softmax, mixed by shares, refreshed by the clock."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.interests.policy import interleave, restricted_softmax, rng_of

HOUR = 3_600_000_000


def test_temperature_nought_takes_the_best_in_order() -> None:
    items = np.array([7, 8, 9, 10], dtype=np.int32)
    scores = np.array([0.1, 3.0, -np.inf, 1.0], dtype=np.float32)
    taken, of = restricted_softmax(items, scores, 3)
    assert taken.tolist() == [8, 10, 7]
    assert of.tolist() == pytest.approx([3.0, 1.0, 0.1])


def test_a_temperature_draws_in_the_softmax_proportions() -> None:
    items, scores = np.arange(3, dtype=np.int32), np.log(np.array([0.6, 0.3, 0.1])).astype(np.float32)
    rng = np.random.default_rng(0)
    drawn = [int(restricted_softmax(items, scores, 1, 1.0, rng)[0][0]) for _ in range(4000)]
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 4000, [0.6, 0.3, 0.1], atol=0.03)
    flat = [int(restricted_softmax(items, scores, 1, 100.0, rng)[0][0]) for _ in range(4000)]
    np.testing.assert_allclose(np.bincount(flat, minlength=3) / 4000, [1 / 3] * 3, atol=0.04)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 30), unique=True, max_size=12),
    st.lists(st.integers(0, 30), unique=True, max_size=12),
    st.integers(0, 10),
    st.integers(1, 12),
)
def test_a_slate_holds_each_item_once_and_keeps_the_shares(first, second, tenths, n) -> None:
    shares = {"sequence": 1 - tenths / 10, "exploration": tenths / 10}
    slate = interleave({"sequence": [(i, 0.0) for i in first], "exploration": [(i, 0.0) for i in second]}, shares, n)
    items = [item for item, _, _ in slate]
    assert len(items) == len(set(items)) <= n
    given_ = {name: [item for item, _, source in slate if source == name] for name in shares}
    assert [i for i in first if i in given_["sequence"]] == given_["sequence"]
    allowed = set(first if tenths < 10 else []) | set(second if tenths > 0 else [])
    assert len(items) == min(n, len(allowed))
    if not set(first) & set(second) and len(first) >= n and len(second) >= n:
        assert abs(len(given_["exploration"]) - n * tenths / 10) < 1


def test_a_person_is_drawn_the_same_until_the_refresh() -> None:
    def draw(user: str, moment: int, refresh: float) -> float:
        return float(rng_of(user, moment, refresh).random())

    assert draw("a", 5 * HOUR, 2.0) == draw("a", 5 * HOUR + 59 * HOUR // 60, 2.0)
    assert draw("a", 5 * HOUR, 2.0) != draw("a", 6 * HOUR, 2.0)
    assert draw("a", 5 * HOUR, 2.0) != draw("b", 5 * HOUR, 2.0)
    assert draw("a", 5 * HOUR, 0) != draw("a", 5 * HOUR + 1, 0)
