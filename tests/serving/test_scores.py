from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.serving.scores import FloatScores, Int8Scores, quantise
from palate.serving.spans import Allowed


def world(seed: int, n: int, d: int, scale: float, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Vectors whose numbers and lengths differ by orders of magnitude, and queries."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, d)) * scale * 10 ** (spread * rng.normal(size=(n, 1)))
    return vectors.astype(np.float32), (rng.normal(size=(3, d)) * 10 ** rng.uniform(-6, 6)).astype(np.float32)


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 80),
    d=st.sampled_from([1, 7, 64]),
    scale=st.sampled_from([1e-12, 1e-3, 1.0, 1e9]),
    spread=st.sampled_from([0.0, 2.0]),
    weighted=st.booleans(),
)
def test_no_score_is_off_by_more_than_half_the_margin(
    seed: int, n: int, d: int, scale: float, spread: float, weighted: bool
) -> None:
    vectors, queries = world(seed, n, d, scale, spread)
    weights = np.random.default_rng(seed).random(n).astype(np.float32) if weighted else None
    exact = queries.astype(np.float64) @ vectors.astype(np.float64).T
    exact = exact if weights is None else exact * weights
    everything, rows = Allowed((slice(0, n),)), np.arange(n)
    for scorer in (FloatScores(vectors, weights), Int8Scores(quantise(vectors), weights)):
        prepared, margins = scorer.prepare(queries)
        scanned, gathered = np.empty((3, n), dtype=np.float32), np.empty((3, n), dtype=np.float32)
        scorer.scan(prepared, everything, scanned)
        scorer.gather(prepared, rows, gathered)
        unit = 1.0
        if isinstance(scorer, Int8Scores):
            unit = np.abs(queries.astype(np.float64)).max(axis=1, keepdims=True) / 32_767
        for scores in (scanned, gathered):
            assert (np.abs(scores * unit - exact) <= margins[:, None] * unit / 2).all()


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**31), n=st.integers(0, 50), scale=st.sampled_from([1e-12, 1.0, 1e9]))
def test_codes_lose_no_more_than_they_say(seed: int, n: int, scale: float) -> None:
    vectors, _ = world(seed, n, 8, scale, 1.0)
    vectors[: n // 4] = 0
    made = quantise(vectors)
    lost = np.linalg.norm(vectors.astype(np.float64) - made.codes * made.scales[:, None].astype(np.float64), axis=1)
    assert (lost <= made.error * (1 + 1e-9)).all()
    assert np.array_equal(made.rows(slice(0, n // 4)), np.zeros((n // 4, 8), dtype=np.float32))


def test_the_widest_vectors_of_the_largest_numbers_do_not_overflow() -> None:
    pytest.importorskip("numba")
    for width, compiles in ((516, True), (517, False)):
        vectors = np.ones((4, width), dtype=np.float32)
        vectors[2] = -1
        scorer = Int8Scores(quantise(vectors))
        assert scorer.compile() == scorer.compiled == compiles
        if compiles:
            queries = np.ones((1, width), dtype=np.float32)
            found = scorer.candidates(queries, Allowed((slice(0, 4),)), np.array([0]), 1, scan=True)
            assert found[0].tolist() == [1, 3]


def test_plans_of_the_compiled_search_agree() -> None:
    pytest.importorskip("numba")
    rng = np.random.default_rng(0)
    scorer = Int8Scores(quantise(rng.normal(size=(900, 16)).astype(np.float32)))
    assert scorer.compile()
    rows = np.flatnonzero(rng.random(900) < 0.5)
    allowed = Allowed((slice(0, 300), slice(450, 900)), rows[(rows < 300) | (rows >= 450)])
    queries = rng.normal(size=(5, 16)).astype(np.float32)
    away = rows[::3]
    plans = [scorer.candidates(queries, allowed, away, 7, scan) for scan in (True, False)]
    for scanned, gathered in zip(*plans, strict=True):
        assert np.array_equal(scanned, gathered)
        assert 7 <= len(scanned) < 200
        assert not set(scanned) & set(away) and set(scanned) <= set(allowed.positions)
