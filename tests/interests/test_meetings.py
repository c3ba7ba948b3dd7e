"""First meetings against their definition, computed the slow way, and the two curations."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.dataset import TIMESTAMP, Dataset
from palate.data.query import Query
from palate.errors import InputError
from palate.interests.meetings import (
    Meetings,
    at_random,
    balanced,
    first_meetings,
    known_before,
    latest_pairs,
    pair_numbers,
    positives,
    queries_before,
)

START = datetime(2024, 1, 1, tzinfo=UTC)
N_ITEMS = 12
INTEREST_OF = np.arange(N_ITEMS, dtype=np.int32) // 2  # six interests of two items
ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, N_ITEMS - 1), st.integers(0, 6)), max_size=50)


def data_of(rows: list[tuple[int, int, int]], **columns: list[object]) -> Dataset:
    """(user, item, minute) rows in the order of the log."""
    events = pl.DataFrame(
        {
            "user_id": pl.Series([f"u{user}" for user, _, _ in rows], dtype=pl.String),
            "item_id": pl.Series([f"i{item}" for _, item, _ in rows], dtype=pl.String),
            "timestamp": pl.Series([START + timedelta(minutes=m) for _, _, m in rows], dtype=TIMESTAMP),
            "event_type": pl.Series([None] * len(rows), dtype=pl.String),
            **columns,
        }
    )
    return Dataset.from_tables(pl.DataFrame({"item_id": [f"i{i}" for i in range(N_ITEMS)]}), events)


def walk(*items: int) -> Dataset:
    return data_of([(0, item, minute) for minute, item in enumerate(items)])


def slow(data: Dataset, k: int, recent: int) -> list[tuple[int, tuple[int, ...], int, int, int]]:
    found = []
    events = list(data.events.select("user_num", "item_num").iter_rows())
    for place, (user, item) in enumerate(events):
        before = [int(INTEREST_OF[i]) for u, i in events[:place] if u == user]
        label = int(INTEREST_OF[item])
        latest = list(dict.fromkeys(before[::-1]))[:k]
        near = len(latest) == k and latest[-1] in before[max(0, len(before) - recent) :]
        if label not in before and near:
            found.append((user, tuple(sorted(latest)), label, item, place))
    return found


@settings(deadline=None, max_examples=150)
@given(ROWS, st.integers(1, 3), st.integers(1, 8))
def test_meetings_are_those_of_the_definition_in_order_of_the_log(rows, k, recent):
    data = data_of(rows)
    found = first_meetings(data, INTEREST_OF, k, recent)
    rows_found = zip(
        found.user.tolist(),
        map(tuple, found.pair.tolist()),
        found.label.tolist(),
        found.item.tolist(),
        found.place.tolist(),
        strict=True,
    )
    assert list(rows_found) == slow(data, k, recent)
    for query, label, known in zip(
        queries_before(data, found), found.label, known_before(queries_before(data, found), INTEREST_OF, 6), strict=True
    ):
        assert not known[label]
        assert set(np.flatnonzero(known).tolist()) == set(INTEREST_OF[query.history].tolist())


def test_the_latest_two_go_before_and_a_return_makes_one_recent_again() -> None:
    found = first_meetings(walk(0, 2, 4, 1, 6), INTEREST_OF)  # interests 0 1 2 0 3
    assert found.label.tolist() == [2, 3]
    assert found.pair.tolist() == [[0, 1], [0, 2]]


def test_a_log_without_times_is_read_in_its_order() -> None:
    still = data_of([(0, 0, 0), (1, 6, 0), (0, 2, 0), (1, 8, 0), (0, 4, 0), (1, 10, 0)])
    found = first_meetings(still, INTEREST_OF)
    assert found.pair.tolist() == [[0, 1], [3, 4]]
    assert found.label.tolist() == [2, 5]


@pytest.mark.parametrize("items", [(), (0,), (0, 2), (0, 1, 0, 1)])
def test_too_little_is_no_meeting(items) -> None:
    assert len(first_meetings(walk(*items), INTEREST_OF)) == 0


def test_interests_must_be_of_the_items() -> None:
    with pytest.raises(InputError, match="do not fit"):
        first_meetings(walk(0, 2, 4), INTEREST_OF[:3])


def test_only_what_was_liked_is_positive() -> None:
    rows = [(0, item, item) for item in range(6)]
    graded = data_of(rows, value=[5.0, 3.0, 2.5, 1.0, None, 0.5])
    assert positives(graded).events["item_num"].to_list() == [0, 1, 4]  # the middle is 2.75; no grade is no dislike
    assert positives(graded, least=5).events["item_num"].to_list() == [0, 4]
    shown = data_of(rows, event_type=["click", "no_click", "click", "impression", None, "skip"])
    assert positives(shown).events["item_num"].to_list() == [0, 2, 4]
    assert positives(data_of(rows, value=[1.0, 0.0, 1.0, 1.0, 1.0, 1.0])).events.height == 6  # two values are no grades


def meetings_of(*rows: tuple[int, int, int]) -> Meetings:
    """(a, b, label) in the order of the log."""
    n = len(rows)
    pairs = np.array([[a, b] for a, b, _ in rows], dtype=np.int32)
    labels = np.array([label for _, _, label in rows], dtype=np.int32)
    return Meetings(np.zeros(n, np.int32), pairs, labels, labels, np.arange(n, dtype=np.int64))


def test_balanced_takes_each_label_equally_often_and_its_frequent_pairs_first() -> None:
    log = meetings_of((0, 1, 5), (0, 2, 5), (0, 2, 5), (1, 2, 5), (0, 1, 4))
    chosen = balanced(log, per_label=2)
    assert Counter(chosen.label.tolist()) == {4: 2, 5: 2}
    assert chosen.part(chosen.label == 5).pair.tolist() == [[0, 2], [0, 1]]
    assert chosen.part(chosen.label == 4).pair.tolist() == [[0, 1], [0, 1]]  # the only one, again


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(4, 6), st.integers(7, 9)), min_size=1, max_size=60))
def test_balanced_is_even_whatever_the_log(rows) -> None:
    counts = Counter(balanced(meetings_of(*rows), 10).label.tolist())
    assert set(counts) == {label for _, _, label in rows}
    assert set(counts.values()) == {10}


def test_at_random_draws_each_meeting_at_most_once() -> None:
    log = meetings_of(*[(0, 1, label) for label in range(2, 10)])
    drawn = at_random(log, 5, seed=1)
    assert len(set(drawn.place.tolist())) == 5
    assert at_random(log, 5, seed=1).place.tolist() == drawn.place.tolist()
    assert sorted(at_random(log, 99, seed=1).label.tolist()) == list(range(2, 10))


def test_pairs_have_numbers_whatever_their_order() -> None:
    numbers = pair_numbers(np.array([[1, 2], [2, 1], [0, 3]], dtype=np.int32), 6)
    assert numbers[0] == numbers[1] != numbers[2]


def test_the_latest_two_interests_of_a_history() -> None:
    queries = [Query("a", np.array(items, dtype=np.int32)) for items in ([0, 2, 4, 3], [0, 1], [])]
    pairs, enough = latest_pairs(queries, INTEREST_OF)
    assert enough.tolist() == [True, False, False]
    assert pairs[0].tolist() == [1, 2]
