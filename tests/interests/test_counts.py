"""Count table, popularity and nearness against their formulas; what every next-interest method must hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.interests.bandit import TreeBandit, chosen_bandit
from palate.interests.counts import CountTable, InterestPopularity, NearestInterest, chosen_count_table
from palate.interests.meetings import Meetings
from palate.interests.next_interest import AtRandom, best, reciprocal_rank
from palate.interests.tree import TreeConfig, build_tree

N = 6
TRIPLES = st.lists(st.permutations(range(N)).map(lambda p: (*sorted(p[:2]), p[2])), min_size=1, max_size=40)


def meetings_of(rows: list[tuple[int, int, int]]) -> Meetings:
    table = np.array(rows, dtype=np.int32).reshape(-1, 3)
    n = len(table)
    return Meetings(np.zeros(n, np.int32), table[:, :2], table[:, 2], table[:, 2], np.arange(n, dtype=np.int64))


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@settings(deadline=None)
@given(TRIPLES, st.sampled_from([0.5, 3.0, 100.0]), st.sampled_from([0.5, 30.0]))
def test_the_count_table_is_its_formula(rows, a, b):
    table = CountTable(meetings_of(rows), N, a, b)
    pairs = np.array([[i, j] for i in range(N) for j in range(i + 1, N)], dtype=np.int32)
    shares = np.array([1 + sum(label == c for *_, label in rows) for c in range(N)]) / (len(rows) + N)
    for (i, j), found in zip(pairs.tolist(), table.probabilities(pairs), strict=True):
        single = []
        for own in (i, j):
            counts = np.array([sum(own in (x, y) and label == c for x, y, label in rows) for c in range(N)])
            single.append((counts + b * shares) / (counts.sum() + b))
        counts = np.array([sum((x, y) == (i, j) and label == c for x, y, label in rows) for c in range(N)])
        np.testing.assert_allclose(found, (counts + a * np.mean(single, axis=0)) / (counts.sum() + a))
        assert found.sum() == pytest.approx(1)


def test_validation_chooses_how_far_pairs_are_trusted() -> None:
    """Each pair has one answer, which its interests alone do not tell: pairs are trusted. Noise: they are not."""
    rng = np.random.default_rng(0)
    pairs = [(i, j) for i in range(N) for j in range(i + 1, N)]
    answer = {pair: [c for c in range(N) if c not in pair][k % 4] for k, pair in enumerate(pairs)}
    told = [(*pair, answer[pair]) for pair in pairs for _ in range(8)]
    noise = [(*pair, int(rng.integers(N))) for pair in pairs for _ in range(8)]
    trusting = chosen_count_table(meetings_of(told), meetings_of(told), N)
    other = [(*pair, int(rng.integers(N))) for pair in pairs for _ in range(8)]
    doubting = chosen_count_table(meetings_of(noise), meetings_of(other), N)
    assert trusting.pair_strength < doubting.pair_strength
    assert (trusting.scores(np.array(pairs, dtype=np.int32)).argmax(axis=1) == list(answer.values())).all()


def tree_of(n_items: int = 64, d: int = 8):
    vectors = unit(np.random.default_rng(0).standard_normal((n_items, d)))
    tree = build_tree(vectors, np.ones(n_items), TreeConfig(branching=(2, 3)))
    return tree, vectors


def methods():
    tree, vectors = tree_of()
    interest_of = (tree.node_of_items(2) - tree.at_level(2)[0].node).astype(np.int32)
    log = meetings_of([(0, 1, 2), (0, 1, 3), (2, 3, 4), (1, 4, 5)])
    near = NearestInterest.of(vectors, interest_of, N)
    bandit = TreeBandit(tree, 2, near.centres).learn(log, np.zeros((4, N), dtype=bool))
    return [CountTable(log, N), InterestPopularity.of(log, N), near, bandit, AtRandom(N)]


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.name)
def test_every_method_scores_all_but_the_pairs_own(method) -> None:
    pairs = np.array([[i, j] for i in range(N) for j in range(i + 1, N)], dtype=np.int32)
    scores = method.scores(pairs)
    assert scores.shape == (len(pairs), N)
    assert scores.dtype == np.float32
    own = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(own, pairs.astype(np.int64), True, axis=1)
    assert np.isneginf(scores[own]).all()
    assert np.isfinite(scores[~own]).all()
    np.testing.assert_array_equal(scores, method.scores(pairs))


def test_nearest_is_by_cosine_and_an_interest_without_items_is_never_near() -> None:
    vectors = unit(np.array([[1, 0], [1, 0.1], [0.9, 0.3], [-1, 0]]))
    near = NearestInterest.of(vectors, np.array([0, 1, 2, 3], dtype=np.int32), 5)
    scores = near.scores(np.array([[0, 1]], dtype=np.int32))[0]
    assert scores.argmax() == 2
    assert scores[4] == 0


def test_the_bandit_learns_where_a_context_leads() -> None:
    """After (0, 1) comes 4, after (2, 3) comes 5; with exploration it finds both out of bandit feedback."""
    tree, _ = tree_of()
    contexts = np.eye(N, dtype=np.float32)
    log = meetings_of([(0, 1, 4), (2, 3, 5)] * 150)
    known = np.zeros((len(log), N), dtype=bool)
    np.put_along_axis(known, log.pair.astype(np.int64), True, axis=1)
    bandit = TreeBandit(tree, 2, contexts, alpha=0.3).learn(log, known)
    pairs = np.array([[0, 1], [2, 3]], dtype=np.int32)
    assert bandit.scores(pairs).argmax(axis=1).tolist() == [4, 5]
    again = chosen_bandit(tree, 2, contexts, log, known, log.part(np.arange(20)))
    assert again.scores(pairs).argmax(axis=1).tolist() == [4, 5]


def test_the_best_leave_out_what_is_known_and_say_when_there_is_no_more() -> None:
    scores = np.array([[0.1, 0.9, 0.5], [-np.inf, 0.2, 0.1]], dtype=np.float32)
    known = np.array([[False, True, False], [False, True, True]])
    assert best(scores, known, 2).tolist() == [[2, 0], [-1, -1]]


def test_what_tells_nothing_apart_ranks_in_the_middle() -> None:
    labels = np.array([0, 2], dtype=np.int32)
    assert reciprocal_rank(np.zeros((2, 5), dtype=np.float32), labels) == pytest.approx(1 / 3)
    sure = np.array([[9, 0, 0], [0, 1, 0.5]], dtype=np.float32)
    assert reciprocal_rank(sure, labels) == pytest.approx((1 + 1 / 2) / 2)
