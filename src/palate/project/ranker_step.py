"""The ranker of slates: trained on what people chose after the retriever's training, for the snapshot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from palate.data.dataset import FloatArray
from palate.data.splits import Holdout
from palate.interests.tree import InterestTree
from palate.models.ranking.pair_rows import OTHERS, group_rows
from palate.models.ranking.pairs import Items, Pairs
from palate.models.sequence_encoder import OnnxSequenceEncoder
from palate.project.project import Project
from palate.project.steps import Detail

_MOST = 20_000  # queries that are learned from
_JUDGED = 5  # one query in so many decides when training ends


def train_ranker(
    project: Project, models: Path, tree: InterestTree, attributes: Mapping[str, Any], params: Any, folder: Path
) -> Detail:
    """Write `ranker.onnx`. Learned on validation queries, every `_JUDGED`-th of which says when to stop.

    Reports, on test queries, the share of items beside the chosen one that stand behind it: by the retriever's scores
    and by the ranker's (0.5 is chance).
    """
    from palate.models.ranking.pair_ranker import PairRanker, PairRankerConfig

    items = _items(np.load(models / "item_vectors.npy"), tree, attributes, project.split.train.item_counts)
    base = items.labels.mean(axis=0)
    encoder = OnnxSequenceEncoder(models / "encoder.onnx", json.loads((models / "length.json").read_text()))

    def rows(held: Holdout, places: Sequence[int]) -> Pairs:
        queries = [held.queries[place] for place in places]
        chosen = np.array([held.targets[place][0] for place in places], dtype=np.int32)
        return group_rows(queries, chosen, encoder.encode(queries), items, base)

    held, test = project.split.validation, project.split.test
    n = min(len(held.queries), _MOST)
    learned = [place for place in range(n) if place % _JUDGED]
    config = PairRankerConfig.model_validate(params)
    ranker = PairRanker(list(attributes), base, config)
    ranker.fit(rows(held, learned), OTHERS + 1, rows(held, range(0, n, _JUDGED)))
    ranker.export_onnx(folder / "ranker.onnx")
    judged = rows(test, range(min(len(test.queries), _MOST)))
    return {
        "backbone": config.backbone,
        "groups": len(learned),
        "behind_by_retriever": _behind(judged.numbers[:, 0]),
        "behind_by_ranker": _behind(ranker.score(judged)),
    }


def _items(vectors: FloatArray, tree: InterestTree, attributes: Mapping[str, Any], counts: Any) -> Items:
    rows = [np.asarray(values, dtype=np.float32) for values in attributes.values()]
    labels = np.stack(rows, axis=1) if rows else np.zeros((len(vectors), 0), dtype=np.float32)
    return Items(vectors, labels, counts.astype(np.float32), tree.node_of_items(tree.depth))


def _behind(scores: FloatArray) -> float:
    groups = scores.reshape(-1, OTHERS + 1)
    return float((groups[:, 1:] < groups[:, :1]).mean())
