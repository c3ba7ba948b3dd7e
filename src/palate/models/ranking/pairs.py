"""What a ranker of candidates reads of a person and an item, as arrays: the same when it learns and when it serves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from palate.data.dataset import FloatArray, IntArray
from palate.errors import StorageError

NUMBERS = ("score", "cosine", "popularity", "events", "leaf_share", "attraction")


@dataclass(frozen=True)
class Items:
    """What is known of `m` items. Labels are what the language model or its student said, NaN where it is not known."""

    vectors: FloatArray  # [m, d]
    labels: FloatArray  # [m, A], probabilities
    popularity: FloatArray  # [m], events
    leaves: IntArray  # [m], of the interest tree

    def take(self, rows: IntArray) -> Items:
        return Items(self.vectors[rows], self.labels[rows], self.popularity[rows], self.leaves[rows])


@dataclass(frozen=True)
class Pairs:
    """A person beside each of `m` items."""

    query: FloatArray  # [m, d], what the sequence model makes of the history
    items: FloatArray  # [m, d]
    drawn: FloatArray  # [m, A], mean labels of the history over those of the catalogue
    labels: FloatArray  # [m, A], labels over those of the catalogue
    numbers: FloatArray  # [m, len(NUMBERS)]

    def arrays(self) -> dict[str, FloatArray]:
        return {"query": self.query, "items": self.items, "drawn": self.drawn, "labels": self.labels,
                "numbers": self.numbers}  # fmt: skip


def pairs(query: FloatArray, history: Items, items: Items, base: FloatArray) -> Pairs:
    """A query vector [d] with its history [t] beside `items` [m].

    `base` [A] are the mean labels of the catalogue. Numbers: inner product, cosine, log popularity, log length of the
    history, the item's leaf's share of the history, and the inner product of what the history and the item have more
    of than the catalogue.
    """
    m = len(items.vectors)
    labels = _beyond(items.labels, base)
    own = _beyond(history.labels, base).mean(axis=0) if len(history.labels) else np.zeros_like(base)
    scores = items.vectors @ query
    lengths = np.sqrt(np.einsum("ij,ij->i", items.vectors, items.vectors) * (query @ query))
    share = np.bincount(history.leaves, minlength=int(items.leaves.max(initial=0)) + 1) / max(len(history.leaves), 1)
    numbers = np.empty((m, len(NUMBERS)), dtype=np.float32)
    queries, drawn = np.empty(items.vectors.shape, np.float32), np.empty(labels.shape, np.float32)
    queries[:], drawn[:] = query, own
    numbers[:, 0], numbers[:, 1] = scores, scores / np.maximum(lengths, 1e-12)
    numbers[:, 2], numbers[:, 3] = np.log1p(items.popularity), np.log1p(len(history.leaves))
    numbers[:, 4], numbers[:, 5] = share[items.leaves], labels @ own
    return Pairs(queries, items.vectors, drawn, labels.astype(np.float32), numbers)


def _beyond(labels: FloatArray, base: FloatArray) -> FloatArray:
    """What there is more of than in the catalogue, 0 where it is not known."""
    beyond: FloatArray = labels - base
    beyond[np.isnan(beyond)] = 0
    return beyond


def joined(parts: list[Pairs]) -> Pairs:
    """All rows of them."""
    columns = [part.arrays() for part in parts]
    return Pairs(**{name: np.concatenate([column[name] for column in columns]) for name in columns[0]})


class OnnxRanker:
    """Scores pairs with a file written by `PairRanker.export_onnx`, without torch.

    Args:
        path: The ONNX file.
        threads: Of ONNX Runtime, within one call.

    Raises:
        StorageError: No such file, or not a ranker.
    """

    def __init__(self, path: str | Path, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            facts = self._session.get_modelmeta().custom_metadata_map
            self.base: FloatArray = np.array(json.loads(facts["base"]), dtype=np.float32)
            self.attributes: list[str] = json.loads(facts["attributes"])
        except Exception as error:  # ONNX Runtime has no common class for its errors
            raise StorageError(
                "The ranker cannot be read", where=str(path), got=error, hint="train and export it again"
            ) from error
        self._read = [each.name for each in self._session.get_inputs()]

    def score(self, given: Pairs) -> FloatArray:
        """[m], the higher the better."""
        arrays = given.arrays()
        scores: FloatArray = self._session.run(None, {name: arrays[name] for name in self._read})[0]
        return scores
