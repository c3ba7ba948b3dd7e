"""The query side of a sequence model without torch: histories become tokens, ONNX Runtime does the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray
from palate.data.query import Query
from palate.errors import InputError, StorageError

TokenArray = npt.NDArray[np.int64]
BATCH = 512  # queries encoded at a time: bounds the memory


def tokens_of(queries: Sequence[Query], length: int, n_items: int) -> TokenArray:
    """The last `length` tokens of each "begin, history": [q, longest], padded at the right.

    Tokens below `n_items` are item_nums, `n_items` is the padding, `n_items + 1` the beginning of a history. A
    history cut at the front has no beginning, an empty one has nothing else.

    Raises:
        InputError: An item number outside the catalogue.
    """
    histories = [query.history[-length:] for query in queries]
    kept = [min(len(history) + 1, length) for history in histories]
    tokens = np.full((len(queries), max(kept, default=1)), n_items, dtype=np.int64)
    for row, history in enumerate(histories):
        begin = kept[row] - len(history)
        tokens[row, :begin] = n_items + 1
        tokens[row, begin : kept[row]] = history
    unknown = (tokens < 0) | (tokens > n_items + 1)
    if unknown.any() or any((history >= n_items).any() for history in histories):
        row = next(i for i, h in enumerate(histories) if ((h < 0) | (h >= n_items)).any())
        raise InputError(
            "A history names an item that the model does not know",
            where=f"query {row}",
            allowed=f"item numbers 0 to {n_items - 1}",
        )
    return tokens


def times_of(queries: Sequence[Query], length: int) -> TokenArray:
    """The time of each of `tokens_of`, and behind the last of each query that of its answer: [q, longest + 1].

    That is `as_of`, or the last event's time where there is none. The beginning of a history has the time of its first
    event; events of unknown times are taken to be of `as_of`. Padding repeats the last time.
    """
    kept = [min(len(query.history) + 1, length) for query in queries]
    times = np.zeros((len(queries), max(kept, default=1) + 1), dtype=np.int64)
    for row, query in enumerate(queries):
        known = query.times if query.times is not None else np.zeros(0, np.int64)
        last = query.as_of if query.as_of is not None else int(known[-1]) if len(known) else 0
        times[row] = last
        recent = known[-length:]
        begin = kept[row] - len(recent)
        times[row, begin : kept[row]] = recent
        if len(recent):
            times[row, :begin] = recent[0]
    return times


class OnnxSequenceEncoder:
    """Encodes queries with a file written by `export_onnx` of a sequence model.

    Args:
        path: The ONNX file.
        max_length: Events of a history that are read, at most what the model was trained with.
        threads: Of ONNX Runtime, within one call.

    Raises:
        StorageError: No such file, or not an encoder.
    """

    def __init__(self, path: str | Path, max_length: int | None = None, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            facts = self._session.get_modelmeta().custom_metadata_map
            self.n_items, trained = int(facts["n_items"]), int(facts["length"])
        except Exception as error:  # ONNX Runtime has no common class for its errors
            raise StorageError(
                "The sequence encoder cannot be read", where=str(path), got=error, hint="train and export it again"
            ) from error
        self.max_length = min(max_length or trained, trained)

    def encode(self, queries: Sequence[Query]) -> FloatArray:
        """Query vectors [q, d], float32; their inner products with the item vectors are the scores."""
        if not queries:
            return np.zeros((0, int(self._session.get_outputs()[0].shape[1])), dtype=np.float32)
        return np.concatenate([self._encode(queries[i : i + BATCH]) for i in range(0, len(queries), BATCH)])

    def _encode(self, queries: Sequence[Query]) -> FloatArray:
        tokens = tokens_of(queries, self.max_length, self.n_items)
        inputs = {"tokens": tokens}
        if len(self._session.get_inputs()) > 1:
            inputs["times"] = times_of(queries, self.max_length)
        vectors: FloatArray = self._session.run(None, inputs)[0]
        return vectors
