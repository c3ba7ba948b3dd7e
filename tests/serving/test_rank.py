"""The ranker of a snapshot: built with it, checked with it, and asked about new items too."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_snapshot import tiny_parts

from palate.data.query import Query
from palate.errors import InputError
from palate.models.ranking.pair_ranker import PairRanker, PairRankerConfig
from palate.models.ranking.pair_rows import OTHERS, group_rows
from palate.models.ranking.pairs import Items, pairs
from palate.serving.fresh import NewItems
from palate.serving.load import load_snapshot, uncollected
from palate.serving.opened import Snapshot
from palate.serving.pipeline import recommend
from palate.serving.rank import SnapshotRanker
from palate.serving.snapshot import SnapshotParts, build_snapshot


def known(parts: SnapshotParts) -> Items:
    labels = np.stack([np.asarray(row, dtype=np.float32) for row in parts.attributes.values()], axis=1)
    leaves = parts.tree.node_of_items(parts.tree.depth)
    return Items(parts.item_vectors, labels, parts.popularity.astype(np.float32), leaves)


@pytest.fixture(scope="module")
def trained() -> PairRanker:
    parts = tiny_parts()
    items, base = known(parts), known(parts).labels.mean(axis=0)
    histories = [parts.histories.of(user) for user in range(len(parts.user_ids))]
    queries = [Query(None, history[:-1]) for history in histories]
    vectors = np.stack([parts.item_vectors[query.history].mean(axis=0) for query in queries])
    rows = group_rows(queries, np.array([history[-1] for history in histories]), vectors, items, base)
    return PairRanker(list(parts.attributes), base, PairRankerConfig(epochs=2)).fit(rows, OTHERS + 1)


@pytest.fixture(scope="module")
def ranked(trained: PairRanker, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    folder = tmp_path_factory.mktemp("ranked")
    trained.export_onnx(folder / "ranker.onnx")
    return load_snapshot(build_snapshot(folder, replace(tiny_parts(), ranker=folder / "ranker.onnx")))


def test_a_slate_has_the_scores_of_the_trained_network(ranked: Snapshot, trained: PairRanker) -> None:
    slate = recommend(ranked, "u0", 10)
    nums = np.array([ranked.item_nums[each.item_id] for each in slate], dtype=np.int32)
    items, history = known(tiny_parts()), ranked.history("u0")
    query = items.vectors[history].mean(axis=0)
    expected = trained.score(pairs(query, items.take(history), items.take(nums), trained.base))
    np.testing.assert_allclose([each.ranked for each in slate], expected, atol=1e-5)
    assert not slate.fallbacks


def test_a_snapshot_that_is_served_no_more_is_freed_without_a_look_for_cycles(ranked: Snapshot) -> None:
    """What a server loads is left out of these looks (`load.uncollected`)."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            snapshot = load_snapshot(ranked.path)
            snapshot.compile()
        assert not gc.isenabled()  # as it was
        for user in ("u0", "nobody"):
            assert recommend(snapshot, user, 5)
        freed = weakref.ref(snapshot), weakref.ref(snapshot.index.main), weakref.ref(snapshot.tree)
        del snapshot
        assert [each() for each in freed] == [None] * 3
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def test_new_items_are_ranked_by_what_is_known_of_them(ranked: Snapshot, trained: PairRanker) -> None:
    twin = 17
    leaf, history = np.array([ranked.leaf_of(twin)], dtype=np.int32), ranked.history("u0")
    labels = {name: ranked.attributes[row, twin : twin + 1] for row, name in enumerate(ranked.attribute_names)}
    table = ranked.items[twin : twin + 1]
    grown = ranked.with_new(NewItems(ranked.vector(twin)[None], leaf, labels, table.drop("item_num")), table)
    query = ranked.vectors[ranked.tree.position[history]].mean(axis=0)
    assert grown.ranker is not None
    scores = grown.ranker.score(grown, history, query, np.array([0, twin, 240], dtype=np.int32))
    unpopular = replace(known(tiny_parts()), popularity=np.zeros(240, dtype=np.float32))
    past = known(tiny_parts()).take(history)
    expected = trained.score(pairs(query, past, unpopular.take(np.array([twin])), trained.base))
    np.testing.assert_allclose(scores[2], expected[0], atol=1e-5)


def test_compiled_rows_are_the_rows_that_it_learned_from(ranked: Snapshot) -> None:
    pytest.importorskip("numba")
    rng, n, names = np.random.default_rng(0), ranked.n_built, ranked.attribute_names
    unsure = ranked.attributes.copy()
    unsure[:, ::3] = np.nan  # nobody said
    unlike = {
        "attributes": [{**ranked.manifest["attributes"][0], "name": "another"}, *ranked.manifest["attributes"][1:]]
    }
    vectors = rng.normal(size=(3, ranked.vectors.shape[1]))
    put = NewItems(vectors, np.full(3, ranked.leaf_of(5), np.int32), {names[-1]: unsure[-1, :3]})
    for told in (ranked, replace(ranked, attributes=unsure, manifest={**ranked.manifest, **unlike})):
        plain, compiled = SnapshotRanker(ranked.path / "ranker.onnx"), SnapshotRanker(ranked.path / "ranker.onnx")
        assert compiled.compile(told)
        for snapshot, some in (
            (told, [7, 0, n - 1]),
            (told.with_new(put, told.items[:3]), [3, n + 2, n, 9]),
            (told, []),
        ):
            for events in (0, 1, 40):
                history = rng.integers(0, n, events).astype(np.int32)
                asked = (
                    snapshot,
                    history,
                    rng.normal(size=vectors.shape[1]).astype(np.float32),
                    np.array(some, np.int32),
                )
                made, expected = compiled.pairs(*asked).arrays(), plain.pairs(*asked).arrays()
                for name, array in expected.items():
                    np.testing.assert_allclose(made[name], array, rtol=1e-5, atol=1e-6, err_msg=name)
                    assert made[name].dtype == array.dtype == np.float32


def test_a_missing_ranker_is_said_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="The ranker is missing"):
        build_snapshot(tmp_path, replace(tiny_parts(), ranker=tmp_path / "absent.onnx"))
