"""The interest tree: items in leaf order, so that every node is one contiguous slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palate.data.dataset import IntArray


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
    """`nodes[i].node == i`; `order` [n_items] lists item_nums in leaf order; every leaf has the deepest level."""

    nodes: tuple[Node, ...]
    order: IntArray

    def at_level(self, level: int) -> list[Node]:
        return [node for node in self.nodes if node.level == level]

    def node_of_items(self, level: int) -> IntArray:
        """The node at `level` of each item, [n_items]."""
        result = np.full(len(self.order), -1, dtype=np.int32)
        for node in self.at_level(level):
            result[self.order[node.start : node.stop]] = node.node
        return result
