"""What exploration is measured by, against the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data.query import Query
from palate.experiments.explore_measures import (
    Lists,
    evenness,
    found_interest,
    gini,
    interests_taken,
    novelty,
    ranked,
    ranked_within,
    resampled_evenness,
    taken,
)

INTEREST_OF = np.array([0, 0, 1, 1, 2, 2], dtype=np.int32)


def query(*items: int) -> Query:
    return Query("u", np.array(items, dtype=np.int32))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20))
def test_gini_is_half_the_mean_difference_over_the_mean(counts) -> None:
    x = np.array(counts, dtype=float)
    slow = np.abs(x[:, None] - x[None, :]).mean() / (2 * x.mean()) if x.sum() else 0.0
    assert gini(x) == pytest.approx(slow, abs=1e-12)


def test_evenness_counts_what_is_never_answered() -> None:
    assert evenness(np.array([0, 1, 2, 3]), 4).gini == 0
    uneven = evenness(np.array([0, 0, 0, -1]), 4)
    assert (uneven.gini, uneven.never) == (pytest.approx(0.75), 0.75)
    ginis, nevers = resampled_evenness(np.array([0, 1, 2, 3] * 10), np.array([0] * 40), 4, n_resamples=50)
    assert ginis.max() < 0
    assert nevers.max() <= -0.5


def test_what_is_known_is_no_find() -> None:
    scores = np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1]], dtype=np.float32)
    known = np.array([[True, False, False], [False, False, False]])
    labels = np.array([1, 1], dtype=np.int32)
    assert found_interest(scores, known, labels, 1).tolist() == [1, 0]
    assert found_interest(scores, known, labels, 2).tolist() == [1, 1]


def test_explored_items_are_of_the_interests_and_not_yet_met() -> None:
    scores = np.array([[6, 5, 4, 3, 2, 1]], dtype=np.float32)
    queries = [query(0, 2)]
    assert ranked(scores, queries, 3).tolist() == [[1, 3, 4]]
    within = ranked_within(scores, queries, INTEREST_OF, np.array([[1, 2, -1]]), 4)
    assert within.tolist() == [[3, 4, 5, -1]]


def test_a_slate_is_mixed_and_measured() -> None:
    lists = Lists(np.array([[1, 3, 4]]), np.array([[4, 5, -1]]))
    assert lists.slates(0.0, 3).tolist() == [[1, 3, 4]]
    assert set(lists.slates(0.5, 2)[0].tolist()) == {1, 4}
    assert lists.slates(1.0, 3).tolist() == [[4, 5, 1]]  # filled up by the sequence
    slates, known = lists.slates(1.0, 3), np.array([[True, True, False]])
    assert novelty(slates, known, INTEREST_OF).tolist() == [pytest.approx(2 / 3)]
    hits = taken(slates, [np.array([5, 1], dtype=np.int32)])
    assert hits.tolist() == [[False, True, True]]
    assert interests_taken(slates, hits, INTEREST_OF).tolist() == [2]
    assert np.isnan(novelty(np.full((1, 3), -1), known, INTEREST_OF)).all()
