"""Items that came after a snapshot was built: a second, small index over the same tree, searched beside the first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from palate.data.dataset import FloatArray, IntArray
from palate.data.query import Restrict
from palate.errors import InputError
from palate.interests.tree import InterestTree
from palate.serving.columns import Positions, make_columns
from palate.serving.retrieve import RestrictedIndex

_NO_ITEMS: IntArray = np.zeros(0, dtype=np.int32)


@dataclass(frozen=True)
class NewItems:
    """What is known of items on the day they arrive: item_nums go on where the snapshot's end.

    `replaces` are item_nums of the snapshot that are no longer to be answered: items that came again, or are gone.
    """

    vectors: FloatArray  # [n_new, d]
    leaves: IntArray  # [n_new], nodes of the tree
    attributes: Mapping[str, FloatArray] = field(default_factory=dict)  # probabilities [n_new]
    items: pl.DataFrame | None = None  # columns as the snapshot's items have them
    replaces: IntArray = field(default_factory=lambda: _NO_ITEMS)


class FreshIndex:
    """Searches a snapshot's index and new items as if all had been there when the snapshot was built.

    Immutable: `with_new` gives another over more items, which a server puts in place of this in one assignment.
    """

    def __init__(self, main: RestrictedIndex, new: RestrictedIndex | None = None, gone: IntArray = _NO_ITEMS) -> None:
        self.main, self.new, self.gone = main, new, gone

    def with_new(self, arrived: NewItems, thresholds: Mapping[str, float]) -> FreshIndex:
        """All new items of the snapshot so far, in place of those this index has; the tree's nodes keep their numbers.

        A value that no item of the snapshot has (an attribute, a category) is unknown until the next snapshot.

        Raises:
            InputError: for a leaf that is none, vectors of another width or not finite, or parts of other lengths.
        """
        tree = self.main.tree
        first_leaf, n = tree.at_level(tree.depth)[0].node, len(arrived.leaves)
        outside = (arrived.leaves < first_leaf) | (arrived.leaves >= len(tree.nodes))
        if outside.any():
            allowed = f"{first_leaf} to {len(tree.nodes) - 1}"
            raise InputError(
                "A new item is in no leaf", where="leaves", got=arrived.leaves[outside][0], allowed=allowed
            )
        sizes = {"vectors": len(arrived.vectors), **{name: len(row) for name, row in arrived.attributes.items()}}
        if arrived.vectors.shape[1:] != (self.main.width,) or any(size != n for size in sizes.values()):
            raise InputError("New items do not fit", got=sizes, allowed=f"{n} items, vectors [n, {self.main.width}]")
        if not n:
            return FreshIndex(self.main, None, arrived.replaces)
        own = grown(tree, arrived.leaves)
        masks = {name: row >= thresholds.get(name, 0.5) for name, row in arrived.attributes.items()}
        columns = make_columns(own, masks, arrived.items, arrived.attributes, like=self.main.columns)
        vectors = np.ascontiguousarray(arrived.vectors[own.order], dtype=np.float32)
        return FreshIndex(self.main, RestrictedIndex(vectors, columns, first=len(tree.order)), arrived.replaces)

    def search(
        self,
        queries: FloatArray,
        restrict: Restrict | None,
        k: int,
        exclude: IntArray | None = None,
        sets: Mapping[str, IntArray] | None = None,
        probe: int = 0,
        away: Positions | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """As `RestrictedIndex.search`; `away` are the `places` of the same `exclude`, which new items still need."""
        away = self.places(exclude) if away is None else away
        items, scores = self.main.search(queries, restrict, k, None, sets, probe, away)
        if self.new is None:
            return items, scores
        more, their = self.new.search(queries, restrict, k, exclude, sets)
        items, scores = np.concatenate([items, more], axis=1), np.concatenate([scores, their], axis=1)
        best = np.lexsort((items, -scores), axis=1)[:, :k]
        return np.take_along_axis(items, best, axis=1), np.take_along_axis(scores, best, axis=1)

    def places(self, exclude: IntArray | None) -> Positions:
        """Of these items of the snapshot, and of those that are gone."""
        return self.main.places(self.gone if exclude is None else np.concatenate([exclude, self.gone]))


def grown(tree: InterestTree, leaves: IntArray) -> InterestTree:
    """The nodes of a tree over other items, given the leaf of each: item 0 is the first of `leaves`."""
    order = np.argsort(leaves, kind="stable").astype(np.int32)
    sorted_leaves = leaves[order]
    starts = np.searchsorted(sorted_leaves, np.arange(len(tree.nodes)))
    stops = np.searchsorted(sorted_leaves, np.arange(len(tree.nodes)), side="right")
    for node in reversed(tree.nodes):  # children stand behind their parents
        below = tree.children(node.node)
        if below:
            starts[node.node], stops[node.node] = starts[below[0].node], stops[below[-1].node]
    found = zip(tree.nodes, starts.tolist(), stops.tolist(), strict=True)
    nodes = [replace(node, start=start, stop=stop, traffic=0.0) for node, start, stop in found]
    return InterestTree(tuple(nodes), order)
