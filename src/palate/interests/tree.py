"""The interest tree: items in leaf order, so that every node is one contiguous slice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from palate.data.dataset import FloatArray, IntArray
from palate.data.whole_file import replace_file
from palate.errors import InputError, StorageError
from palate.interests.grow import Map, branching_for, canonical_order, grow

FORMAT = 1


class TreeConfig(BaseModel):
    """How the tree is cut (traffic-weighted, equal-size clusters: Wang et al. 2024, arXiv 2405.16363, section 3)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    branching: tuple[Annotated[int, Field(ge=2)], ...] | None = Field(
        default=(8, 4),
        min_length=1,
        description="parts of a node at each level, from the root, on average; null chooses by the number of items",
    )
    max_over_mean: float = Field(
        default=1.3, gt=1.0, description="load of a level's heaviest node over the level's mean (see build_tree)"
    )
    floor: float = Field(default=0.05, gt=0, description="least weight of an item, as a share of the mean traffic")
    iterations: int = Field(default=15, ge=1, description="rounds of k-means at each node")
    seed: int = 0


@dataclass(frozen=True)
class Node:
    """A cluster of items. `order[start:stop]` of the tree are its item_nums. Level 0 is the root."""

    node: int
    parent: int | None
    level: int
    start: int
    stop: int
    traffic: float
    title: str = ""
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True)
class InterestTree:
    """`nodes[i].node == i`; `order` [n_items] lists item_nums in leaf order; every leaf has the deepest level.

    Nodes are numbered level by level, and within a level in leaf order.
    """

    nodes: tuple[Node, ...]
    order: IntArray

    def at_level(self, level: int) -> list[Node]:
        return [node for node in self.nodes if node.level == level]

    def node_of_items(self, level: int) -> IntArray:
        """The node at `level` of each item, [n_items], read-only."""
        if not 0 <= level <= self.depth:
            raise InputError("The tree has no such level", got=level, allowed=f"0 (the root) to {self.depth}")
        return self._node_of_items[level]

    def size_of(self, level: int) -> int:
        """Nodes of a level."""
        return self._sizes[level]

    @cached_property
    def _sizes(self) -> list[int]:
        return np.bincount([node.level for node in self.nodes]).tolist()  # type: ignore[no-any-return]

    @property
    def depth(self) -> int:
        """Level of the leaves."""
        return self.nodes[-1].level

    @cached_property
    def position(self) -> IntArray:
        """Place of each item in leaf order, [n_items]: the inverse of `order`."""
        result = np.empty(len(self.order), dtype=np.int32)
        result[self.order] = np.arange(len(self.order), dtype=np.int32)
        return result

    def children(self, node: int) -> list[Node]:
        return self._children[node]

    def leaf_of(self, items: IntArray) -> IntArray:
        """The leaf of each of `items` (item_nums)."""
        return self.node_of_items(self.depth)[items]

    def items_of(self, node: int) -> IntArray:
        """The item_nums of a node."""
        return self.order[self.nodes[node].start : self.nodes[node].stop]

    @cached_property
    def _children(self) -> list[list[Node]]:
        result: list[list[Node]] = [[] for _ in self.nodes]
        for node in self.nodes:
            if node.parent is not None:
                result[node.parent].append(node)
        return result

    @cached_property
    def _node_of_items(self) -> list[IntArray]:
        levels = np.full((self.depth + 1, len(self.order)), -1, dtype=np.int32)
        for node in self.nodes:
            levels[node.level, self.order[node.start : node.stop]] = node.node
        levels.flags.writeable = False
        return list(levels)


def build_tree(
    vectors: FloatArray,
    traffic: npt.NDArray[Any] | Sequence[float],
    config: TreeConfig | None = None,
    over: Map = map,
) -> InterestTree:
    """Cluster items into a tree whose nodes at each level carry about the same traffic.

    From the root down each node is cut by spherical k-means under a capacity (`balance`), and items that a cut has
    parted from their like then change their branch (`exchange`). A level has the product of
    the branching down to it in nodes, or one an item where there are fewer; a node gets more or fewer parts by the
    traffic it carries, at least one, so that the slack of one level does not narrow the next.

    Balance: with c the mean load of a level's nodes when an item counts at most c (`level_mean`), no node's load
    exceeds `max_over_mean * c`. So where a node carries more than `max_over_mean` times the plain mean, one item in it
    alone exceeds that mean. The bound is out of reach where items of more than a quarter of c do not pack; they are
    then packed heaviest first.

    The same items in another order give the same tree, as does the same seed.

    Args:
        vectors: [n_items, d] float32 of unit length (inner product = cosine); a row of zeros is like nothing and
            goes where there is room.
        traffic: Events of each item, [n_items], 0 or more. Items below the floor count as the floor, so that
            what was never chosen still takes room; `Node.traffic` is the sum of these weights.
        config: Shape and balance.
        over: What maps the nodes of a level, whose cuts are independent: `ProcessPoolExecutor().map` uses all cores,
            `ray.util.multiprocessing.Pool().map` a cluster.

    Raises:
        InputError: for shapes that disagree, values that are not finite, or no item at all.
    """
    config = config or TreeConfig()
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    weights = tree_weights(vectors, np.asarray(traffic, dtype=np.float64), config)
    first = canonical_order(vectors, weights, config.seed)
    shape, bound, rounds = shape_for(len(weights), config), config.max_over_mean, config.iterations
    order, sizes = grow(vectors[first], weights[first], shape, bound, rounds, config.seed, over)
    return numbered(first[order].astype(np.int32), sizes, weights)


def numbered(order: IntArray, sizes: Sequence[npt.NDArray[np.int64]], weights: npt.NDArray[np.float64]) -> InterestTree:
    """The tree of items in leaf order and of the sizes of each level's nodes, none of them 0, in the same order."""
    load = np.concatenate([[0.0], np.cumsum(weights[order])])
    nodes, above = [Node(0, None, 0, 0, len(order), float(load[-1]))], np.zeros(1, dtype=np.int64)
    for level, row in enumerate(sizes, start=1):
        stops = np.cumsum(row)
        starts = stops - row
        base = len(nodes) - len(above)
        parents = base + np.searchsorted(above, starts, side="right") - 1
        traffic = load[stops] - load[starts]
        columns = zip(parents.tolist(), starts.tolist(), stops.tolist(), traffic.tolist(), strict=True)
        nodes += [
            Node(number, parent, level, start, stop, carried)
            for number, (parent, start, stop, carried) in enumerate(columns, start=len(nodes))
        ]
        above = starts
    return InterestTree(tuple(nodes), order)


def save_tree(tree: InterestTree, path: Path) -> None:
    """Write the tree as one JSON file, whole or not at all.

    Raises:
        StorageError: if it cannot be written.
    """
    content = {"format": FORMAT, "nodes": [asdict(node) for node in tree.nodes], "order": tree.order.tolist()}
    replace_file(path, json.dumps(content, ensure_ascii=False), "The interest tree")


def load_tree(path: Path) -> InterestTree:
    """Read a tree and check that it is one.

    Raises:
        StorageError: naming the file, if it cannot be read or is not a tree.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, this version reads {FORMAT}")
        nodes = tuple(Node(**{**node, "keywords": tuple(node["keywords"])}) for node in content["nodes"])
        tree = InterestTree(nodes, np.array(content["order"], dtype=np.int32))
        _check(tree)
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise StorageError(
            "The interest tree cannot be read", where=str(path), got=error, hint="Build the tree again."
        ) from error
    return tree


def _check(tree: InterestTree) -> None:
    """Numbers in a row, `order` a permutation, and each node cut by its children without gaps."""
    n, nodes = len(tree.order), tree.nodes
    if not nodes or (nodes[0].start, nodes[0].stop, nodes[0].level, nodes[0].parent) != (0, n, 0, None):
        raise ValueError("the first node is not a root over all items")
    if n and not np.array_equal(np.sort(tree.order), np.arange(n)):
        raise ValueError("`order` is not a permutation of the items")
    for number, node in enumerate(nodes):
        if node.node != number or (number > 0 and not 0 <= (node.parent if node.parent is not None else -1) < number):
            raise ValueError(f"node {number} has a wrong number or parent")
    for node in nodes:
        below = tree.children(node.node)
        if any(child.level != node.level + 1 for child in below) or (not below and node.level != tree.depth):
            raise ValueError(f"node {node.node} has children or a depth of a wrong level")
        cuts = [node.start, *[child.stop for child in below]]
        if below and ([child.start for child in below] != cuts[:-1] or cuts[-1] != node.stop):
            raise ValueError(f"the children of node {node.node} do not cover it")
        if any(b < a for a, b in pairwise(cuts)):
            raise ValueError(f"node {node.node} has a child that ends before it starts")


def shape_for(n_items: int, config: TreeConfig) -> list[int]:
    """Nodes of each level below the root."""
    counts = np.cumprod(np.array(config.branching or branching_for(n_items), dtype=np.float64))
    return [min(n_items, int(count)) for count in counts]


def tree_weights(vectors: FloatArray, traffic: npt.NDArray[np.float64], config: TreeConfig) -> npt.NDArray[np.float64]:
    """What each item counts: its traffic, or the floor.

    Raises:
        InputError: as `build_tree`.
    """
    if vectors.ndim != 2 or traffic.shape != vectors.shape[:1]:
        raise InputError(
            "Vectors and traffic do not fit each other",
            got=f"vectors {vectors.shape}, traffic {traffic.shape}",
            allowed="vectors [n_items, d], traffic [n_items]",
        )
    if not np.isfinite(vectors).all() or not np.isfinite(traffic).all() or (traffic < 0).any():
        raise InputError("Vectors and traffic must be finite and traffic not negative", where="build_tree")
    if not len(traffic):
        raise InputError("A tree needs at least one item", where="build_tree", got="no items")
    mean = float(traffic.mean())
    return np.maximum(traffic, config.floor * mean if mean > 0 else 1.0)
