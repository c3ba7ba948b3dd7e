from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.errors import InputError, StorageError
from palate.interests.balance import level_mean
from palate.interests.grow import branching_for
from palate.interests.quality import balance, coherence
from palate.interests.tree import InterestTree, TreeConfig, build_tree, load_tree, save_tree, shape_for, tree_weights


def unit_vectors(n: int, d: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(12, d))
    vectors = centres[rng.integers(12, size=n)] + rng.normal(size=(n, d))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def max_over_mean(tree: InterestTree, level: int) -> float:
    traffic = np.array([node.traffic for node in tree.at_level(level)])
    return float(traffic.max() / traffic.mean())


def assert_is_tree(tree: InterestTree, branching: tuple[int, ...]) -> None:
    """Every item in exactly one leaf, nodes as many as asked or one an item, none empty."""
    n = len(tree.order)
    assert sorted(tree.order.tolist()) == list(range(n))
    assert tree.depth == len(branching)
    for level in range(tree.depth + 1):
        row = tree.at_level(level)
        assert len(row) == min(n, int(np.prod(branching[:level])))
        assert [node.start for node in row] == [0, *[node.stop for node in row]][:-1]
        assert row[-1].stop == n
        assert all(node.stop > node.start for node in row)
        for node in row:
            assert (tree.node_of_items(level)[tree.items_of(node.node)] == node.node).all()
            assert all(child.parent == node.node for child in tree.children(node.node))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 300), spread=st.floats(0, 2), zeros=st.floats(0, 1))
def test_any_traffic_gives_a_whole_tree(seed: int, n: int, spread: float, zeros: float) -> None:
    rng = np.random.default_rng(seed)
    traffic = np.floor(rng.lognormal(0, spread, n)) * (rng.random(n) >= zeros)
    tree = build_tree(unit_vectors(n, 6, seed), traffic, TreeConfig(branching=(4, 4), iterations=4))
    assert_is_tree(tree, (4, 4))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_traffic_is_balanced_at_every_level(seed: int) -> None:
    traffic = np.floor(np.random.default_rng(seed).lognormal(1, 1, 3000))
    tree = build_tree(unit_vectors(3000, 16, seed), traffic, TreeConfig(branching=(8, 4), seed=seed))
    assert_is_tree(tree, (8, 4))
    assert max_over_mean(tree, 1) <= 1.3
    assert max_over_mean(tree, 2) <= 1.3


def test_one_item_with_most_of_the_traffic_does_not_break_the_others() -> None:
    traffic = np.ones(400)
    traffic[7] = 1000
    tree = build_tree(unit_vectors(400, 8), traffic, TreeConfig(branching=(4, 4)))
    assert_is_tree(tree, (4, 4))
    for level in (1, 2):
        mean = level_mean(tree_weights(unit_vectors(400, 8), traffic, TreeConfig()), 4**level)
        light = sorted(node.traffic for node in tree.at_level(level))[:-1]
        assert light[-1] <= 1.3 * mean < 200


def test_similar_items_share_a_leaf_more_often_than_chance() -> None:
    rng = np.random.default_rng(0)
    topic = rng.integers(8, size=800)
    vectors = np.eye(8, dtype=np.float32)[topic] + 0.1 * rng.normal(size=(800, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    tree = build_tree(vectors, np.ones(800), TreeConfig(branching=(8, 2)))
    node = tree.node_of_items(1)
    same_topic = topic[:, None] == topic[None, :]
    same_node = node[:, None] == node[None, :]
    assert same_topic[same_node].mean() > 0.8  # chance is 1/8


def test_items_nobody_chose_still_take_room() -> None:
    tree = build_tree(unit_vectors(64, 4), np.zeros(64), TreeConfig(branching=(4, 4)))
    assert max_over_mean(tree, 2) <= 1.3


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), spread=st.floats(0, 1.5), branching=st.sampled_from([(3,), (5, 3), (2, 3, 4)]))
def test_no_load_exceeds_the_bound(seed: int, spread: float, branching: tuple[int, ...]) -> None:
    """Items of at most a fifth of a leaf's mean always pack; heavier than the mean counts as the mean."""
    vectors = unit_vectors(1500, 6, seed)
    traffic = np.minimum(np.random.default_rng(seed).lognormal(0, spread, 1500), 4.0)
    traffic[:2] = [90.0, 700.0]
    config = TreeConfig(branching=branching, iterations=4, floor=0.5, seed=seed)
    tree, weights = build_tree(vectors, traffic, config), tree_weights(vectors, traffic, config)
    for level, nodes in enumerate(shape_for(1500, config), start=1):
        assert balance(weights, tree.node_of_items(level)) <= 1.3 + 1e-9
        mean = weights.sum() / nodes
        for node in tree.at_level(level):
            assert node.traffic <= 1.3 * mean or weights[tree.items_of(node.node)].max() > mean


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 200), equal=st.integers(0, 60))
def test_the_order_of_items_does_not_matter(seed: int, n: int, equal: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, traffic = unit_vectors(n, 5, seed), np.floor(rng.lognormal(1, 1, n))
    vectors[:equal], traffic[:equal] = vectors[0], traffic[0]
    shuffled = rng.permutation(n)
    config = TreeConfig(branching=(4, 3), seed=seed, iterations=4)
    tree, other = build_tree(vectors, traffic, config), build_tree(vectors[shuffled], traffic[shuffled], config)
    # Items that are equal in all are one another's stand-ins: what lies at each place is compared, not whose it is.
    assert [(n.start, n.stop, n.parent) for n in tree.nodes] == [(n.start, n.stop, n.parent) for n in other.nodes]
    assert (vectors[tree.order] == vectors[shuffled][other.order]).all()
    assert (traffic[tree.order] == traffic[shuffled][other.order]).all()


def test_same_seed_same_tree_and_another_seed_another() -> None:
    vectors, traffic = unit_vectors(200, 8), np.arange(200)
    trees = [build_tree(vectors, traffic, TreeConfig(branching=(4, 2), seed=seed)) for seed in (3, 3, 4)]
    assert trees[0].nodes == trees[1].nodes
    assert (trees[0].order == trees[1].order).all()
    assert (trees[0].leaf_of(np.arange(200)) != trees[2].leaf_of(np.arange(200))).any()


def test_one_item_and_fewer_items_than_leaves() -> None:
    one = build_tree(unit_vectors(1, 4), np.zeros(1), TreeConfig(branching=(8, 4)))
    assert [(node.level, node.stop) for node in one.nodes] == [(0, 1), (1, 1), (2, 1)]
    few = build_tree(unit_vectors(10, 4), np.ones(10), TreeConfig(branching=(8, 4)))
    assert_is_tree(few, (8, 4))
    assert all(node.stop - node.start == 1 for node in few.at_level(2))


@pytest.mark.parametrize("vector", [np.ones(4) / 2, np.zeros(4)])
def test_items_that_are_all_equal_are_dealt_out_evenly(vector: np.ndarray) -> None:
    tree = build_tree(np.tile(vector, (600, 1)).astype(np.float32), np.ones(600), TreeConfig(branching=(6, 4)))
    assert_is_tree(tree, (6, 4))
    for level in (1, 2):
        assert max_over_mean(tree, level) <= 1.3 + 1e-9
        assert min(node.traffic for node in tree.at_level(level)) >= 0.5 * 600 / len(tree.at_level(level))


def test_a_million_items_are_asked_for_the_paper_s_shape() -> None:
    assert branching_for(1_000_000) == (32, 24, 8, 8)
    for n in (1, 5, 100, 3000, 100_000):
        chosen = branching_for(n)
        assert min(chosen) >= 2
        assert np.prod(chosen) <= max(2, n / 8)
    tree = build_tree(unit_vectors(300, 4), np.ones(300), TreeConfig(branching=None, iterations=2))
    assert_is_tree(tree, branching_for(300))


def test_coherence_stays_near_that_of_k_means_without_a_bound() -> None:
    from sklearn.cluster import KMeans

    vectors, traffic = unit_vectors(2000, 16), np.random.default_rng(0).lognormal(0, 1.2, 2000)
    tree = build_tree(vectors, traffic, TreeConfig(branching=(8, 4)))
    for level, nodes in ((1, 8), (2, 32)):
        free = KMeans(nodes, n_init=2, random_state=0).fit_predict(vectors)
        assert coherence(vectors, tree.node_of_items(level)) >= 0.95 * coherence(vectors, free)


def test_nodes_can_be_cut_by_workers() -> None:
    vectors, traffic = unit_vectors(300, 6), np.ones(300)
    config = TreeConfig(branching=(3, 3), iterations=3)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        spread = build_tree(vectors, traffic, config, over=pool.map)
    assert (spread.order == build_tree(vectors, traffic, config).order).all()


def test_no_items_or_bad_shapes_are_named() -> None:
    with pytest.raises(InputError, match="at least one item"):
        build_tree(np.zeros((0, 4), np.float32), np.ones(0), TreeConfig(branching=(4, 4)))
    with pytest.raises(InputError, match="do not fit"):
        build_tree(unit_vectors(40, 4), np.ones(39), TreeConfig(branching=(4, 4)))
    with pytest.raises(InputError, match="finite"):
        build_tree(unit_vectors(40, 4), np.full(40, np.nan), TreeConfig(branching=(4, 4)))
    with pytest.raises(InputError, match="no such level"):
        build_tree(unit_vectors(40, 4), np.ones(40), TreeConfig(branching=(4, 4))).node_of_items(3)


def test_position_and_leaf() -> None:
    tree = build_tree(unit_vectors(64, 4), np.ones(64), TreeConfig(branching=(4, 4)))
    assert (tree.order[tree.position] == np.arange(64)).all()
    items = np.array([5, 60], dtype=np.int32)
    assert (tree.leaf_of(items) == tree.node_of_items(2)[items]).all()


def test_save_and_load(tmp_path: Path) -> None:
    tree = build_tree(unit_vectors(64, 4), np.ones(64), TreeConfig(branching=(4, 4)))
    save_tree(tree, tmp_path / "tree.json")
    loaded = load_tree(tmp_path / "tree.json")
    assert loaded.nodes == tree.nodes
    assert (loaded.order == tree.order).all()
    assert [path.name for path in tmp_path.iterdir()] == ["tree.json"]


def test_a_tree_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tree.json"
    tree = build_tree(unit_vectors(64, 4), np.ones(64), TreeConfig(branching=(4, 4)))
    save_tree(tree, path)
    whole = json.loads(path.read_text())

    def refused(change: dict[str, object], match: str) -> None:
        path.write_text(json.dumps({**whole, **change}))
        with pytest.raises(StorageError, match=r"tree\.json") as caught:
            load_tree(path)
        assert match in str(caught.value)

    refused({"order": [0] * 64}, "permutation")
    refused({"format": 9}, "format 9")
    refused({"nodes": whole["nodes"][:-1]}, "do not cover")
    refused({"nodes": [*whole["nodes"][:-1], {**whole["nodes"][-1], "parent": 77}]}, "wrong number or parent")
    path.write_text("{")
    with pytest.raises(StorageError, match="cannot be read"):
        load_tree(path)


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    tree = build_tree(unit_vectors(64, 4), np.ones(64), TreeConfig(branching=(4, 4)))
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match="could not be written"):
        save_tree(tree, tmp_path / "file" / "tree.json")
