"""The ranker of a snapshot: what it reads is taken from the snapshot's files, the network runs in ONNX Runtime."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np

from palate.data.dataset import FloatArray, IntArray
from palate.models.ranking.pairs import Items, OnnxRanker, Pairs, pairs
from palate.serving.opened import Snapshot

RECENT = 50  # events of a history that are read


class SnapshotRanker:
    """See `opened.Ranker`. An attribute that the snapshot does not have is not known of any item."""

    def __init__(self, path: Path) -> None:
        self._ranker = OnnxRanker(path)
        self._rows: Any = None  # `pair_kernels.rows`, after `compile`
        # What it reads of the snapshot asked of last, which is not held: it holds the ranker.
        self._columns: tuple[ref[Snapshot], tuple[Any, ...]] | None = None

    def compile(self, snapshot: Snapshot) -> bool:
        """Have rows made by compiled code (numba) from now on; False without it. See `Int8Scores`."""
        if find_spec("numba") is None:
            return False
        from palate.models.ranking.pair_kernels import rows

        nobody, query = np.zeros(0, dtype=np.int32), np.zeros(snapshot.vectors.shape[1], np.float32)
        rows(*self._columns_of(snapshot), self._ranker.base, query, nobody, nobody)
        self._rows = rows  # only now: whoever asked before would wait for the compiler
        return True

    def score(self, snapshot: Snapshot, history: IntArray, vector: FloatArray, items: IntArray) -> FloatArray:
        return self._ranker.score(self.pairs(snapshot, history[-RECENT:], vector, items))

    def pairs(self, snapshot: Snapshot, history: IntArray, vector: FloatArray, items: IntArray) -> Pairs:
        """What the network reads of `items`, which may be new ones too."""
        if self._rows is None:
            past = self._built(snapshot, history)
            return pairs(vector, past, self._items(snapshot, items), self._ranker.base)
        # Copies: of a file's array, which is read-only, and of other numbers it would be compiled once more.
        given = vector.astype(np.float32), history.astype(np.int32), items.astype(np.int32)
        return Pairs(*self._rows(*self._columns_of(snapshot), self._ranker.base, *given))

    def _columns_of(self, snapshot: Snapshot) -> tuple[Any, ...]:
        """As the compiled rows take them."""
        kept = self._columns
        if kept is not None and kept[0]() is snapshot:
            return kept[1]
        tree, names, new = snapshot.tree, self._ranker.attributes, snapshot.new
        known = {name: row for row, name in enumerate(snapshot.attribute_names)}
        which = np.array([known.get(name, -1) for name in names], dtype=np.int32)
        vectors, leaves = np.zeros((0, snapshot.vectors.shape[1]), np.float32), np.zeros(0, np.int32)
        if new is not None:
            vectors, leaves = np.array(new.vectors, np.float32, order="C"), np.array(new.leaves, np.int32)
        labels = np.full((len(leaves), len(names)), np.nan, dtype=np.float32)
        for place, name in enumerate(names):
            if new is not None and name in known and name in new.attributes:
                labels[:, place] = new.attributes[name]
        built = snapshot.vectors, tree.position, snapshot.attributes, which, snapshot.popularity
        columns = (*built, tree.node_of_items(tree.depth), vectors, labels, leaves)
        self._columns = ref(snapshot), columns
        return columns

    def _items(self, snapshot: Snapshot, nums: IntArray) -> Items:
        """item_nums may be new ones too."""
        known = nums < snapshot.n_built
        if snapshot.new is None or known.all():
            return self._built(snapshot, nums)
        built, new = self._built(snapshot, np.where(known, nums, 0)), nums[~known].tolist()
        built.vectors[~known] = [snapshot.vector(item) for item in new]
        built.popularity[~known], built.leaves[~known] = 0, [snapshot.leaf_of(item) for item in new]
        for place, name in enumerate(self._ranker.attributes):
            row = snapshot.attribute_names.index(name) if name in snapshot.attribute_names else None
            if row is not None:
                built.labels[~known, place] = [snapshot.probability(row, item) for item in new]
        return built

    def _built(self, snapshot: Snapshot, nums: IntArray) -> Items:
        tree, names = snapshot.tree, self._ranker.attributes
        if names == snapshot.attribute_names:
            labels = snapshot.attributes[:, nums].T
        else:
            labels = np.full((len(nums), len(names)), np.nan, dtype=np.float32)
            for place, name in enumerate(names):
                if name in snapshot.attribute_names:
                    labels[:, place] = snapshot.attributes[snapshot.attribute_names.index(name), nums]
        leaves = tree.node_of_items(tree.depth)[nums]
        return Items(snapshot.vectors[tree.position[nums]], labels, snapshot.popularity[nums], leaves)
