"""Whose taste has moved: few false alarms, and no change of topic missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.dataset import TIMESTAMP, Dataset
from palate.knowledge.shifts import shift, shifts


def log(rows: list[tuple[str, int, int]]) -> Dataset:
    items = pl.DataFrame({"item_id": [f"i{k}" for k in range(4)]})
    events = [(user, f"i{item}", datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=hour)) for user, item, hour in rows]
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": TIMESTAMP}
    return Dataset.from_tables(items, pl.DataFrame(events, schema=schema, orient="row"))


def draws(rng: np.random.Generator, topic: np.ndarray, n: int, people: int) -> np.ndarray:
    """Items around a topic, [people, n, d]: as far from it as text vectors of one genre are."""
    noise = rng.normal(size=(people, n, len(topic)))
    vectors = topic + 1.2 * noise / np.sqrt(len(topic))
    return vectors / np.linalg.norm(vectors, axis=2, keepdims=True)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (20, 5), (5, 20)])
def test_about_one_where_nothing_changed_and_far_above_where_the_topic_did(n: int, m: int) -> None:
    rng = np.random.default_rng(0)
    topics = np.linalg.qr(rng.normal(size=(64, 2)))[0].T
    before, same, other = (draws(rng, topics[t], k, 400) for t, k in ((0, n), (0, m), (1, m)))
    still = np.array([shift(a, b) for a, b in zip(before, same, strict=True)])
    moved = np.array([shift(a, b) for a, b in zip(before, other, strict=True)])
    assert 0.95 < still.mean() < 1.05
    assert (still >= 1.5).mean() <= 0.05
    assert (moved >= 1.5).mean() == 1.0
    half = np.concatenate([draws(rng, topics[0], m - m // 2, 400), draws(rng, topics[1], m // 2, 400)], axis=1)
    assert np.mean([shift(a, b) >= 1.5 for a, b in zip(before, half, strict=True)]) > 0.8


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-3, 1e3), n=st.integers(2, 6), m=st.integers(1, 6))
def test_the_same_whatever_the_unit_the_origin_and_the_order(seed: int, scale: float, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.normal(size=(n, 5)), rng.normal(size=(m, 5))
    amount = shift(one, other)
    assert amount >= 0
    assert shift(scale * one + 3, scale * other + 3) == pytest.approx(amount, rel=1e-6)
    assert shift(other, one) == pytest.approx(amount, rel=1e-9)
    assert shift(one[::-1], other) == pytest.approx(amount, rel=1e-9)


def test_the_same_item_again_and_again() -> None:
    one = np.ones((4, 3))
    assert shift(one, one[:2]) == 0.0
    assert shift(one, 2 * one) == np.inf


def test_windows_are_cut_at_what_the_profile_knew() -> None:
    vectors = np.eye(4, dtype=np.float32)
    rows = [("a", item, t) for t, item in enumerate([0, 1, 0, 1, 2, 3, 2, 3])]
    rows += [("b", item, t) for t, item in enumerate([0, 1, 0, 1, 0, 1, 0, 1])]
    rows += [("c", item, t) for t, item in enumerate([0, 1, 0, 1, 2, 3])]
    data = log(rows)
    at = {data.user_nums[user]: int(data.histories.times_of(data.user_nums[user])[3]) for user in "abc"}
    found = shifts(data, vectors, at, window=20, least=3)
    assert [(data.user_ids[each.user_num], each.events) for each in found] == [("a", 4), ("b", 4)]
    assert found[0].amount > 1.5 > found[1].amount == 0.0
    assert shifts(data, vectors, {0: -1}, window=20, least=1) == []  # a profile that rests on nothing
