"""Keys and values of several requests at once, each as long as it is: written in place, moved only where accepted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from palate.llm.decoding.attention import grouped

if TYPE_CHECKING:
    from torch import Tensor

Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass
class Beginning:
    """The prompt that was read last, kept so that what the next ones have in common with it is not read again."""

    tokens: list[int] = field(default_factory=list)
    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # keys and values, [1, heads, n, width]

    def shared(self, prompts: Sequence[Sequence[int]]) -> int:
        """Tokens that all of `prompts` begin with, and it too."""
        for n, token in enumerate(self.tokens):
            if any(len(prompt) <= n or prompt[n] != token for prompt in prompts):
                return n
        return len(self.tokens)


class RowCache:
    """The cache of a transformers model for `n_rows` requests of at most `capacity` tokens.

    Row `r` has its tokens in the columns `0..lengths[r]`. What `read` reads lies behind the longest row until `keep`
    moves the accepted columns to the end of their own row.
    """

    def __init__(self, network: Any, n_rows: int, capacity: int) -> None:
        self.network, self.capacity = network, capacity
        self._fewer = {"logits_to_keep": 1} if "logits_to_keep" in signature(network.forward).parameters else {}
        self.lengths: Places = np.zeros(n_rows, dtype=np.int64)
        self._cache: Any = _cache_of(capacity)

    @property
    def used(self) -> int:
        """Columns that a read sees, its own not counted."""
        return int(self.lengths.max(initial=0))

    def begin(self, beginning: Beginning, n: int) -> None:
        """Let every row begin with the first `n` tokens of `beginning`; before anything is read."""
        for number, (keys, values) in enumerate(beginning.layers if n else ()):
            if number == len(self._cache.layers):
                self._cache.layers.append(self._cache.layer_class_to_replicate())
            self._cache.layers[number].begin(keys[:, :, :n], values[:, :, :n], len(self.lengths))
        self.lengths[:] = n

    def first(self, n: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the first `n` tokens of row 0, of each layer; copies."""
        return [(layer.keys[:1, :, :n].clone(), layer.values[:1, :, :n].clone()) for layer in self._cache.layers]

    def read(self, ids: Places, places: Places, among: Mask, logits: bool = True) -> Tensor:
        """Logits [n, wide, vocabulary] of tokens `ids` [n, wide] at positions `places`.

        Each token sees its row's kept tokens, and of those read now what `among` [n, wide, wide] says. Without
        `logits` only those of the last column are computed, where the model can do that.
        """
        import torch

        before = self.used
        mask = np.zeros((*ids.shape, before + ids.shape[1]), dtype=bool)
        mask[:, :, :before] = np.arange(before) < self.lengths[:, None, None]
        mask[:, :, before:] = among
        for layer in self._cache.layers:
            layer.used = before
        network = self.network
        with grouped(network):
            found: Tensor = network(
                input_ids=torch.from_numpy(ids).to(network.device),
                position_ids=torch.from_numpy(places).to(network.device),
                attention_mask=torch.from_numpy(mask)[:, None].to(network.device),
                past_key_values=self._cache,
                use_cache=True,
                **({} if logits else self._fewer),
            ).logits
        return found

    def keep(self, columns: Sequence[Sequence[int]]) -> None:
        """Of the last read, the columns that each row keeps, in order."""
        import torch

        before = self.used
        rows = np.concatenate([np.full(len(own), row) for row, own in enumerate(columns)]).astype(np.int64)
        source = before + np.concatenate([np.asarray(own, dtype=np.int64) for own in columns])
        target = np.concatenate([self.lengths[row] + np.arange(len(own)) for row, own in enumerate(columns)])
        moved = np.flatnonzero(source != target)
        if len(moved):
            where = [torch.from_numpy(part[moved].astype(np.int64)) for part in (rows, source, target)]
            for layer in self._cache.layers:
                layer.move(*where)
        self.lengths = self.lengths + np.array([len(own) for own in columns])

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone."""
        import torch

        number = torch.tensor(list(rows), dtype=torch.long)
        for layer in self._cache.layers:
            layer.select(number)
        self.lengths = self.lengths[list(rows)]


def _cache_of(capacity: int) -> Any:
    from transformers.cache_utils import Cache, DynamicLayer

    class Rows(DynamicLayer):  # type: ignore[no-untyped-call]
        used = 0
        keys: Any
        values: Any

        def begin(self, keys: Tensor, values: Tensor, n_rows: int) -> None:
            self.dtype, self.device = keys.dtype, keys.device
            self.keys, self.values = (
                part.new_zeros(n_rows, part.shape[1], capacity, part.shape[3]) for part in (keys, values)
            )
            self.keys[:, :, : keys.shape[2]] = keys
            self.values[:, :, : keys.shape[2]] = values
            self.is_initialized = True

        def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
            if not self.is_initialized:
                self.begin(key_states[:, :, :0], value_states[:, :, :0], len(key_states))
            end = self.used + key_states.shape[2]
            self.keys[:, :, self.used : end] = key_states
            self.values[:, :, self.used : end] = value_states
            return self.keys[:, :, :end], self.values[:, :, :end]

        def get_seq_length(self) -> int:
            return self.used

        def move(self, rows: Tensor, source: Tensor, target: Tensor) -> None:
            for held in (self.keys, self.values):
                held[rows, :, target] = held[rows, :, source]

        def select(self, rows: Tensor) -> None:
            self.keys, self.values = self.keys[rows], self.values[rows]

    return Cache(layer_class_to_replicate=Rows)
