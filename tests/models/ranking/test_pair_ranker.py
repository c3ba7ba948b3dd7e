"""The ranker of candidates: what it learns, and that it answers alike without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from palate.data.query import Query
from palate.errors import InputError, StorageError
from palate.models.ranking.pair_ranker import PairRanker, PairRankerConfig
from palate.models.ranking.pair_rows import OTHERS, group_rows
from palate.models.ranking.pairs import Items, OnnxRanker, Pairs, pairs

N, D, GROUP = 120, 8, OTHERS + 1


def catalogue(n_attributes: int = 3, seed: int = 0) -> Items:
    rng = np.random.default_rng(seed)
    return Items(
        rng.normal(size=(N, D)).astype(np.float32),
        rng.random((N, n_attributes)).astype(np.float32),
        rng.integers(0, 50, N).astype(np.float32),
        rng.integers(0, 6, N).astype(np.int32),
    )


def rows(items: Items, n: int, seed: int) -> Pairs:
    """People choose items of the label that their history has most of, and no nearer ones than others."""
    rng = np.random.default_rng(seed)
    queries, chosen = [], []
    for _ in range(n):
        liked = int(rng.integers(items.labels.shape[1]))
        fits = np.flatnonzero(items.labels[:, liked] > 0.8)
        drawn = rng.choice(fits, 6, replace=False).astype(np.int32)
        queries.append(Query(None, drawn[:5]))
        chosen.append(drawn[5])
    vectors = rng.normal(size=(n, D)).astype(np.float32)
    base = items.labels.mean(axis=0)
    return group_rows(queries, np.array(chosen), vectors, items, base, seed=seed)


def mean_rank(scores: np.ndarray) -> float:
    groups = scores.reshape(-1, GROUP)
    return float((groups[:, 1:] >= groups[:, :1]).sum(axis=1).mean())


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["deepfm", "dcn"])
def test_it_learns_from_the_labels_and_answers_alike_without_torch(tmp_path: Path, backbone: str) -> None:
    items = catalogue()
    train, test = rows(items, 300, 1), rows(items, 60, 2)
    config = PairRankerConfig.model_validate({"backbone": backbone, "epochs": 8, "batch": 16})
    ranker = PairRanker("abc", items.labels.mean(axis=0), config)
    scores = ranker.fit(train, GROUP, rows(items, 60, 3)).score(test)
    assert mean_rank(scores) < 2.5
    assert mean_rank(test.numbers[:, 0]) > 3.5
    ranker.export_onnx(tmp_path / "ranker.onnx")
    opened = OnnxRanker(tmp_path / "ranker.onnx")
    assert (opened.attributes, opened.base.tolist()) == (["a", "b", "c"], items.labels.mean(axis=0).tolist())
    np.testing.assert_allclose(opened.score(test), scores, atol=1e-5, rtol=1e-5)


def test_what_is_not_known_says_nothing() -> None:
    items = catalogue(2)
    base = np.array([0.5, 0.5], dtype=np.float32)
    items.labels[0], items.labels[1] = np.nan, base
    some = items.take(np.array([0, 1, 2]))
    made = pairs(items.vectors[5], items.take(np.array([3, 4])), some, base)
    assert np.isfinite(made.labels).all()
    np.testing.assert_array_equal(made.labels[0], made.labels[1])
    nobody = pairs(items.vectors[5], items.take(np.zeros(0, dtype=np.int32)), some, base)
    assert np.isfinite(nobody.numbers).all() and not nobody.drawn.any()


def test_without_labels_the_rest_is_learned_from(tmp_path: Path) -> None:
    items = catalogue(0)
    base = np.zeros(0, dtype=np.float32)
    queries = [Query(None, np.array([i, i + 1], dtype=np.int32)) for i in range(20)]
    made = group_rows(queries, np.arange(40, 60), items.vectors[:20], items, base)
    ranker = PairRanker([], base, PairRankerConfig(epochs=1)).fit(made, GROUP)
    ranker.export_onnx(tmp_path / "ranker.onnx")
    np.testing.assert_allclose(OnnxRanker(tmp_path / "ranker.onnx").score(made), ranker.score(made), atol=1e-5)


def test_bad_input(tmp_path: Path) -> None:
    items = catalogue()
    with pytest.raises(InputError, match="whole groups"):
        PairRanker("abc", items.labels.mean(axis=0)).fit(rows(items, 2, 0), GROUP + 1)
    (tmp_path / "ranker.onnx").write_bytes(b"no")
    with pytest.raises(StorageError, match="ranker cannot be read"):
        OnnxRanker(tmp_path / "ranker.onnx")
