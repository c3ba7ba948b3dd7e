"""The ranker of a snapshot: what it reads is taken from the snapshot's files, the network runs in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from palate.data.dataset import FloatArray, IntArray
from palate.models.ranking.pairs import Items, OnnxRanker, pairs
from palate.serving.load import Snapshot

RECENT = 50  # events of a history that are read


class SnapshotRanker:
    """See `load.Ranker`. An attribute that the snapshot does not have is not known of any item."""

    def __init__(self, path: Path) -> None:
        self._ranker = OnnxRanker(path)

    def score(self, snapshot: Snapshot, history: IntArray, vector: FloatArray, items: IntArray) -> FloatArray:
        past = self._built(snapshot, history[-RECENT:])
        return self._ranker.score(pairs(vector, past, self._items(snapshot, items), self._ranker.base))

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
