from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.folder import read_folder
from palate.errors import InputError
from palate.interests.quality import balance
from palate.interests.rebuild import add_items, matched, moved, rebuild
from palate.interests.tree import InterestTree, TreeConfig, build_tree, tree_weights
from palate.interests.vectors import collaborative, item_vectors

CONFIG = TreeConfig(branching=(6, 4))


def made(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(15, 12))[rng.integers(15, size=n)] + 0.6 * rng.normal(size=(n, 12))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return vectors, np.floor(rng.lognormal(1, 1, n))


def without_some(n: int, new: int) -> np.ndarray:
    """`was` for a tree of the first n - new items."""
    return np.where(np.arange(n) < n - new, np.arange(n), -1).astype(np.int32)


def leaves(tree: InterestTree) -> np.ndarray:
    return tree.node_of_items(tree.depth)


def test_new_items_fall_to_their_like_and_no_old_one_moves() -> None:
    vectors, traffic = made(1200)
    was = without_some(1200, 60)
    tree = build_tree(vectors[:1140], traffic[:1140], CONFIG)
    grown = add_items(tree, vectors, traffic, was, CONFIG)
    assert (leaves(grown)[:1140] == leaves(tree)).all()
    weights = tree_weights(vectors, traffic, CONFIG)
    assert [balance(weights, grown.node_of_items(level)) <= 1.3 + 1e-9 for level in (1, 2)] == [True, True]
    centres = {leaf.node: vectors[:1140][leaves(tree) == leaf.node].mean(axis=0) for leaf in tree.at_level(2)}
    similarity = np.stack([vectors[1140:] @ (c / np.linalg.norm(c)) for c in centres.values()], axis=1)
    rank = (similarity > similarity[np.arange(60), leaves(grown)[1140:] - min(centres)][:, None]).sum(axis=1)
    assert np.median(rank) <= 1  # of 24 leaves; by chance 12


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 150), new=st.integers(0, 40), gone=st.integers(0, 20))
def test_any_change_gives_a_whole_tree_and_a_true_report(seed: int, n: int, new: int, gone: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, traffic = made(n + new, seed)
    tree = build_tree(vectors[:n], traffic[:n], CONFIG)
    kept = np.sort(rng.permutation(n)[min(gone, n - 1) :])
    order = rng.permutation(len(kept) + new)
    was = np.concatenate([kept, np.full(new, -1)])[order].astype(np.int32)
    rows = np.concatenate([kept, np.arange(n, n + new)])[order]
    found, report = rebuild(tree, vectors[rows], traffic[rows], was, CONFIG)
    assert sorted(found.order.tolist()) == list(range(len(rows)))
    assert all(node.stop > node.start for node in found.nodes)
    assert (report.added, report.gone) == (new, n - len(kept))
    for level, share in enumerate(report.kept, start=1):
        same = found.node_of_items(level)[was >= 0] == tree.node_of_items(level)[was[was >= 0]]
        assert share == pytest.approx(same.mean())
    assert all(0 < share <= 1 + 1e-9 or not share for share in report.kept_traffic)


def test_a_rebuild_of_the_same_items_moves_next_to_nothing_and_keeps_names() -> None:
    vectors, traffic = made(1000)
    tree = build_tree(vectors, traffic, CONFIG)
    nodes = [type(node)(**{**vars(node), "title": f"name {node.node}"}) for node in tree.nodes]
    named = InterestTree(tuple(nodes), tree.order)
    found, report = rebuild(named, vectors, traffic, without_some(1000, 0), CONFIG)
    assert report.kept[-1] > 0.98
    assert not report.recut and not report.renumbered
    assert [node.title for node in found.nodes] == [node.title for node in named.nodes]


def test_another_shape_is_cut_afresh_and_matched() -> None:
    vectors, traffic = made(1000)
    tree = build_tree(vectors, traffic, CONFIG)
    found, report = rebuild(tree, vectors, traffic, without_some(1000, 0), TreeConfig(branching=(6, 5)))
    assert report.recut
    assert found.depth == 2 and len(found.at_level(2)) == 30
    assert report.kept[0] > 0.5  # by chance a sixth
    pairs = matched(tree, found, without_some(1000, 0), np.ones(1000))
    of_level = pairs[[node.node for node in tree.at_level(1)]]
    assert len(set(of_level[of_level >= 0].tolist())) == (of_level >= 0).sum()


def test_a_tree_shuffled_by_hand_is_matched_back() -> None:
    vectors, traffic = made(600)
    tree = build_tree(vectors, traffic, CONFIG)
    was = without_some(600, 0)
    assert (matched(tree, tree, was, traffic) == np.arange(len(tree.nodes))).all()
    assert moved(tree, tree, was, traffic).kept == (1.0, 1.0)


@pytest.mark.parametrize("branching", [(8, 4), None])
def test_five_percent_more_items_leave_the_others_in_their_leaf(
    shared_data: Path, branching: tuple[int, ...] | None
) -> None:
    """People's choices in MovieLens make the vectors, so that no encoder is needed."""
    dataset = read_folder(shared_data / "movielens-small")
    vectors = item_vectors({"collaborative": collaborative(dataset, 64)}).vectors
    traffic, n = dataset.item_counts, dataset.n_items
    old = np.sort(np.random.default_rng(0).permutation(n)[: round(n / 1.05)])
    was = np.full(n, -1, dtype=np.int32)
    was[old] = np.arange(len(old))
    config = TreeConfig(branching=branching, iterations=8)
    tree = build_tree(vectors[old], traffic[old], config)
    _, report = rebuild(tree, vectors, traffic, was, config)
    assert min(report.kept) >= 0.95
    assert not report.renumbered
    # Cut afresh, even matched to the old nodes, most items change their leaf: what a rebuild is for.
    assert moved(tree, build_tree(vectors, traffic, config), was, traffic.astype(np.float64)).kept[-1] < 0.9


def test_items_that_do_not_fit_the_tree_are_named() -> None:
    vectors, traffic = made(100)
    tree = build_tree(vectors, traffic, CONFIG)
    for was in (np.arange(100) + 1, np.zeros(100), np.arange(99)):
        with pytest.raises(InputError, match="do not fit the tree"):
            rebuild(tree, vectors, traffic, was.astype(np.int32), CONFIG)
    leaf = tree.at_level(2)[0]
    stay = np.setdiff1d(np.arange(100), tree.items_of(leaf.node))
    with pytest.raises(InputError, match="left without an item"):
        add_items(tree, vectors[stay], traffic[stay], stay.astype(np.int32), CONFIG)
    found, report = rebuild(tree, vectors[stay], traffic[stay], stay.astype(np.int32), CONFIG)
    assert len(found.order) == len(stay)
    assert report.gone == 100 - len(stay)
