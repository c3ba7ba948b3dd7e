"""A tree that lives: new items fall to a leaf, and a rebuild keeps the ids of what is still the same interest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray, IntArray
from palate.errors import InputError
from palate.interests.balance import Parts, Weights, centroids, gains, level_mean
from palate.interests.exchange import exchange
from palate.interests.quality import balance
from palate.interests.settle import settle
from palate.interests.tree import InterestTree, TreeConfig, build_tree, numbered, shape_for, tree_weights

ROUNDS = 3
TOLERATED = 1.1  # of the bound: a tree just beyond it is worth more than one in which everything has moved


@dataclass(frozen=True)
class Moved:
    """What became of the items that were in the old tree, level by level (the first entry is level 1)."""

    kept: tuple[float, ...]  # share of them under the node with the same number
    kept_traffic: tuple[float, ...]  # the same, by traffic
    balance: tuple[float, ...]  # of the new tree (`quality.balance`)
    renumbered: dict[int, int | None]  # after a fresh cut: old node to its new number, None where it is gone
    added: int  # items that are new
    gone: int  # items that are no more
    recut: bool  # whether the tree was cut afresh, the old shape having become too unbalanced

    def as_dict(self) -> dict[str, Any]:
        levels = range(1, len(self.kept) + 1)
        return {
            "items that kept their node": {f"level {n}": round(self.kept[n - 1], 4) for n in levels},
            "balance": {f"level {n}": round(value, 4) for n, value in enumerate(self.balance, start=1)},
            "by traffic": {f"level {n}": round(self.kept_traffic[n - 1], 4) for n in levels},
            "nodes with another number": len(self.renumbered),
            "nodes gone": sum(number is None for number in self.renumbered.values()),
            "items added": self.added,
            "items gone": self.gone,
            "cut afresh": self.recut,
        }


def add_items(
    tree: InterestTree,
    vectors: FloatArray,
    traffic: npt.NDArray[Any],
    was: IntArray,
    config: TreeConfig | None = None,
) -> InterestTree:
    """The tree with the new items in it, no old one moved: each falls to the child with the nearest centroid that has
    room, from the root to a leaf; where none has, to the nearest. Nodes keep numbers, titles and keywords.

    Args:
        vectors: Of all items, [n_items, d], old and new.
        traffic: Of all items, [n_items].
        was: The item_num that each item has in `tree`, [n_items]; -1 for a new one.

    Raises:
        InputError: as `build_tree`; for numbers that `tree` has not or that are twice in `was`; for a node that would
            be left without an item.
    """
    config = config or TreeConfig()
    weights = tree_weights(vectors, np.asarray(traffic, dtype=np.float64), config)
    _check(tree, was, len(weights))
    found = _carried(tree, vectors, weights, was, config, None)
    if found is None:
        raise InputError(
            "A node of the tree would be left without an item",
            where="was",
            got=f"{len(tree.order) - int((was >= 0).sum())} items are gone",
            hint="Rebuild the tree.",
        )
    return found


def rebuild(
    tree: InterestTree,
    vectors: FloatArray,
    traffic: npt.NDArray[Any],
    was: IntArray,
    config: TreeConfig | None = None,
    inertia: float = 0.05,
) -> tuple[InterestTree, Moved]:
    """A tree of the items as they are now, whose nodes keep their numbers, and what moved.

    Starts from where items were. New ones fall to the nearest centroid as in `add_items`; where a part then carries too
    much, those leave that lose least; then items that gain more than `inertia` of cosine elsewhere move while there is
    room (`exchange`). If a level is then less even than `TOLERATED` times the bound, or the
    configuration asks for another shape, the tree is cut afresh and its nodes are numbered, as far as the shape
    permits, as the old ones that they share most traffic with (`matched`).

    Args: as `add_items`, which see.

    Raises:
        InputError: as `add_items`, but nodes that lose all their items lead to a fresh cut.
    """
    config = config or TreeConfig()
    weights = tree_weights(vectors, np.asarray(traffic, dtype=np.float64), config)
    _check(tree, was, len(weights))
    carried = None
    if [len(tree.at_level(level + 1)) for level in range(tree.depth)] == shape_for(len(weights), config):
        carried = _carried(tree, vectors, weights, was, config, inertia)
    if carried is not None and max(_balances(carried, weights)) <= TOLERATED * config.max_over_mean:
        return carried, moved(tree, carried, was, weights)
    fresh = build_tree(vectors, traffic, config)
    found = _reordered(fresh, matched(tree, fresh, was, weights), weights)
    return found, moved(tree, found, was, weights, recut=True)


def matched(old: InterestTree, new: InterestTree, was: IntArray, weights: Weights) -> IntArray:
    """The node of `new` for each node of `old`, -1 for none: under matched parents, level by level, the pairing of
    children that shares most traffic (`scipy.optimize.linear_sum_assignment`)."""
    from scipy.optimize import linear_sum_assignment

    known = was >= 0
    found = np.full(len(old.nodes), -1, dtype=np.int32)
    found[0] = 0
    for level in range(1, min(old.depth, new.depth) + 1):
        sides = (old.node_of_items(level)[was[known]].astype(np.int64), new.node_of_items(level)[known])
        pairs, place = np.unique(sides[0] * len(new.nodes) + sides[1], return_inverse=True)
        shared = dict(zip(pairs.tolist(), np.bincount(place, weights[known]).tolist(), strict=True))
        for parent in old.at_level(level - 1):
            if found[parent.node] < 0:
                continue
            before, after = old.children(parent.node), new.children(int(found[parent.node]))
            overlap = np.array([[shared.get(a.node * len(new.nodes) + b.node, 0.0) for b in after] for a in before])
            for one, other in zip(*linear_sum_assignment(overlap, maximize=True), strict=True):
                if overlap[one, other] > 0:
                    found[before[one].node] = after[other].node
    return found


def moved(old: InterestTree, new: InterestTree, was: IntArray, weights: Weights, *, recut: bool = False) -> Moved:
    """What became of the old tree's items and nodes."""
    known = was >= 0
    kept, by_traffic = [], []
    for level in range(1, min(old.depth, new.depth) + 1):
        same = old.node_of_items(level)[was[known]] == new.node_of_items(level)[known]
        kept.append(float(same.mean()) if len(same) else 1.0)
        by_traffic.append(float(weights[known][same].sum() / max(weights[known].sum(), 1e-12)) if len(same) else 1.0)
    pairs = enumerate(matched(old, new, was, weights).tolist()) if recut else ()
    other = {node: None if number < 0 else number for node, number in pairs if number != node}
    gone = len(old.order) - int(known.sum())
    even = tuple(_balances(new, weights))
    return Moved(tuple(kept), tuple(by_traffic), even, other, int((~known).sum()), gone, recut)


def _carried(
    tree: InterestTree,
    vectors: FloatArray,
    weights: Weights,
    was: IntArray,
    config: TreeConfig,
    inertia: float | None,
) -> InterestTree | None:
    """Down from the root with the tree's own shape; None: a node is left without an item. Without `inertia` only new
    items move."""
    node = np.zeros(len(weights), dtype=np.int64)
    loads: list[Weights] = []
    for level in range(1, tree.depth + 1):
        row = tree.at_level(level)
        first = row[0].node
        before = np.where(was >= 0, tree.node_of_items(level)[was] - first, -1)
        known = before >= 0
        centres = centroids(vectors[known], before[known], np.zeros((len(row), vectors.shape[1]), dtype=np.float32))
        mean = level_mean(weights, len(row))
        loads.append(np.minimum(weights, mean))
        # The nodes below were made for what is here: it may stay up to the level's own bound.
        old = np.bincount(before[known], loads[-1][known], len(row))
        seats = _capacities(tree, level, weights, config.max_over_mean)
        room = np.minimum(config.max_over_mean * mean, np.maximum(seats, old))
        rows_of = np.split(np.argsort(node, kind="stable"), np.cumsum(np.bincount(node))[:-1])
        for parent, rows in zip(tree.at_level(level - 1), rows_of, strict=True):
            children = tree.children(parent.node)
            own = slice(children[0].node - first, children[-1].node - first + 1)
            at = np.where((before[rows] >= own.start) & (before[rows] < own.stop), before[rows] - own.start, -1)
            part = _parts(vectors[rows], loads[-1][rows], at, centres[own], room[own], inertia is not None)
            node[rows] = part + own.start
        if len(np.unique(node)) < len(row):
            return None
    if inertia is not None:
        capacities = [config.max_over_mean * level_mean(weights, len(tree.at_level(n + 1))) for n in range(tree.depth)]
        node = exchange(vectors, node, _paths(tree), loads, capacities, ROUNDS, inertia)
    sizes = [np.bincount(path[node]) for path in _paths(tree)]
    found = numbered(np.argsort(node, kind="stable").astype(np.int32), sizes, weights)
    pairs = zip(found.nodes, tree.nodes, strict=True)
    return InterestTree(tuple(replace(new, title=old.title, keywords=old.keywords) for new, old in pairs), found.order)


def _parts(vectors: FloatArray, loads: Weights, at: Parts, centres: FloatArray, capacity: Weights, all_: bool) -> Parts:
    """The child of each row, from where it was (-1: not there); old rows move if `all_`, and only for want of room."""

    def gain_of(rows: Parts) -> FloatArray:
        return gains(vectors[rows], centres)

    part, new = at.astype(np.int64), at < 0
    part[new] = np.argmax(gain_of(np.flatnonzero(new)), axis=1)
    capacity = np.maximum(capacity, capacity * loads.sum() / capacity.sum())
    part = settle(part, gain_of, loads, capacity, len(centres), free=new)
    return settle(part, gain_of, loads, capacity, len(centres)) if all_ else part


def _paths(tree: InterestTree) -> list[Parts]:
    """For each level from the first, the place in its level of the node over each leaf."""
    paths = [np.arange(len(tree.at_level(tree.depth)))]
    for level in range(tree.depth, 1, -1):
        first = tree.at_level(level - 1)[0].node
        parents = np.array([(node.parent or 0) - first for node in tree.at_level(level)])
        paths.insert(0, parents[paths[0]])
    return paths


def _capacities(tree: InterestTree, level: int, weights: Weights, max_over_mean: float) -> Weights:
    """What each node of a level may carry: the bound, and no more than the nodes below it can take among them."""
    row = tree.at_level(level)
    mean = level_mean(weights, len(row))
    room, below = np.full(len(row), mean), np.array([[node.start, node.stop] for node in row])
    for deeper in range(level + 1, tree.depth + 1):
        starts = np.array([node.start for node in tree.at_level(deeper)])
        seats = np.diff(np.searchsorted(starts, np.append(below[:, 0], below[-1, 1])))
        room = np.minimum(room, seats * mean * len(row) / len(starts))
    return np.asarray(max_over_mean * room)


def _reordered(tree: InterestTree, new_of_old: IntArray, weights: Weights) -> InterestTree:
    """The same tree, children in the order of the old nodes they match, those without one last."""
    old_of_new = np.full(len(tree.nodes), len(new_of_old))
    old_of_new[new_of_old[new_of_old >= 0]] = np.flatnonzero(new_of_old >= 0)
    row, sizes = [tree.nodes[0]], []
    for _ in range(tree.depth):
        row = [child for node in row for child in sorted(tree.children(node.node), key=lambda c: old_of_new[c.node])]
        sizes.append(np.array([node.stop - node.start for node in row]))
    return numbered(np.concatenate([tree.items_of(leaf.node) for leaf in row]), sizes, weights)


def _balances(tree: InterestTree, weights: Weights) -> list[float]:
    return [balance(weights, tree.node_of_items(level)) for level in range(1, tree.depth + 1)]


def _check(tree: InterestTree, was: IntArray, n_items: int) -> None:
    known = was[was >= 0]
    if was.shape != (n_items,) or (known >= len(tree.order)).any() or len(np.unique(known)) < len(known):
        raise InputError(
            "The items do not fit the tree",
            where="was",
            got=f"{len(was)} numbers for {n_items} items",
            allowed=f"for each item its number in the tree, 0 to {len(tree.order) - 1} and none twice, or -1",
        )
