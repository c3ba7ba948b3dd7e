from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import ndcg_score

from palate.errors import InputError
from palate.evaluation import ranking

LEVELS = st.sampled_from([0.0, -0.0, 1.0, -1.5, 2.25, 1e-30, -np.inf, np.inf, 3.4e38])
SCORES = st.tuples(st.integers(1, 5), st.integers(1, 9)).flatmap(lambda s: arrays(np.float32, s, elements=LEVELS))


def brute_top(row: np.ndarray, n: int) -> list[int]:
    order = ranking._tie_order(len(row))
    ranked = sorted((i for i in range(len(row)) if row[i] > -np.inf), key=lambda i: (-row[i], order[i]))
    return (ranked + [-1] * n)[:n]


@settings(deadline=None, max_examples=80)
@given(SCORES, st.integers(1, 12))
def test_top_n_is_the_sorted_order(scores, n):
    top = ranking.top_n(scores, n)
    assert top.shape == (len(scores), n)
    assert top.tolist() == [brute_top(row, n) for row in scores]


@settings(deadline=None, max_examples=80)
@given(SCORES, st.integers(1, 6), st.data())
def test_metrics_equal_their_definitions(scores, n, data):
    targets = [
        np.array(sorted(data.draw(st.sets(st.integers(0, scores.shape[1] - 1), max_size=4))), dtype=np.int32)
        for _ in scores
    ]
    got = ranking.ranking_metrics(ranking.top_n(scores, n), targets, n)
    for q, (row, wanted) in enumerate(zip(scores, targets, strict=True)):
        values = [got[f"{name}@{n}"][q] for name in ("ndcg", "recall", "recall_capped", "hit", "mrr")]
        if len(wanted) == 0:
            assert np.isnan(values).all()
            continue
        places = [r for r, item in enumerate(brute_top(row, n), 1) if item in wanted]
        ideal = sum(1 / np.log2(r + 1) for r in range(1, min(n, len(wanted)) + 1))
        dcg = sum(1 / np.log2(r + 1) for r in places)
        expected = [
            dcg / ideal,
            len(places) / len(wanted),
            len(places) / min(n, len(wanted)),
            float(bool(places)),
            1 / places[0] if places else 0.0,
        ]
        assert values == pytest.approx(expected)


def test_ndcg_equals_scikit_learn():
    rng = np.random.default_rng(0)
    scores = rng.permutation(np.arange(20 * 30)).reshape(20, 30).astype(np.float32)
    truth = rng.random((20, 30)) < 0.2
    truth[:, 0] = True
    targets = [np.flatnonzero(row) for row in truth]
    ours = ranking.ndcg(ranking.top_n(scores, 10), targets, 10)
    theirs = [ndcg_score(t[None], s[None], k=10) for t, s in zip(truth.astype(float), scores, strict=True)]
    assert ours == pytest.approx(theirs)


@settings(deadline=None, max_examples=60)
@given(SCORES)
def test_ranks_agree_with_top_n(scores):
    whole = ranking.ranks(scores, [np.arange(scores.shape[1])] * len(scores))
    for row, found, top in zip(scores, whole, ranking.top_n(scores, scores.shape[1]), strict=True):
        assert sorted(found) == list(range(1, len(row) + 1))
        assert all(found[item] == place for place, item in enumerate(top, 1) if item >= 0)


def test_ties_favour_nobody():
    """With all scores equal, the ranking is blind: early and late items share the first places evenly."""
    top = ranking.top_n(np.zeros((1, 10_000), dtype=np.float32), 1000)[0]
    assert abs(top.mean() - 5000) < 300
    assert (top == ranking.top_n(np.zeros((3, 10_000), dtype=np.float32), 1000)[2]).all()
    assert len(np.unique(ranking._tie_order(200_000))) == 200_000


def test_seen_items_are_never_answered():
    scores = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]], dtype=np.float32)
    masked = ranking.mask_seen(scores, [np.array([0, 1], np.int32), np.array([], np.int32)])
    assert ranking.top_n(masked, 3).tolist() == [[2, -1, -1], [0, 1, 2]]
    assert scores[0, 0] == 3.0


def test_a_nan_score_is_named():
    with pytest.raises(InputError, match="NaN") as caught:
        ranking.top_n(np.array([[0.0, 1.0], [0.0, np.nan]], dtype=np.float32), 1)
    assert caught.value.where == "query 1, item 1"


def test_rankings_that_are_too_short():
    with pytest.raises(InputError, match="do not fit"):
        ranking.hit(np.array([[1]]), [np.array([1])], 2)


def test_no_queries():
    top = ranking.top_n(np.zeros((0, 5), dtype=np.float32), 3)
    assert top.shape == (0, 3) and ranking.ndcg(top, [], 3).shape == (0,)


@settings(deadline=None, max_examples=40)
@given(scores=SCORES, seed=st.integers(0, 99))
def test_metrics_from_ranks_are_those_of_rankings(scores, seed):
    rng = np.random.default_rng(seed)
    scores = np.where(np.isneginf(scores), 0, scores)
    n_items = scores.shape[1]
    targets = [rng.permutation(n_items)[: rng.integers(0, n_items + 1)] for _ in scores]
    top, places = ranking.top_n(scores, 3), ranking.ranks(scores, targets)
    np.testing.assert_allclose(ranking.ndcg_at(places, 3), ranking.ndcg(top, targets, 3))
    np.testing.assert_allclose(ranking.recall_at(places, 3), ranking.recall(top, targets, 3))
