"""Histories cut into windows for training: lazily, so that they may lie in memory-mapped files of any size."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from palate.data.dataset import Histories

Flags = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]
IGNORED = -1  # a target that is padding, or no label
_GROUP = 32  # batches whose windows are sorted by length together


class SequenceBatch(NamedTuple):
    """Windows side by side, padded behind.

    `tokens` as of `tokens_of`. `times[:, i]` is the time of token i in microseconds and `times[:, i + 1]` that of the
    event it predicts, so that each is one column longer; the beginning of a history has the time of its first event.
    """

    tokens: Tensor  # int64 [b, t]
    times: Tensor  # int64 [b, t + 1]
    targets: Tensor  # int64 [b, t], item numbers or IGNORED


class Windows:
    """Cuts histories anew for each epoch into windows of at most `length` tokens: each event is predicted once.

    Windows of like length make one batch, so that little of it is padding; which ones, and the order of the batches,
    is drawn.

    Args:
        histories: Packed, in memory or mapped; read only where a batch is made.
        n_items: Of the catalogue: the token of padding; the beginning of a history follows.
        length: Tokens of a window.
        batch_targets: Events predicted by one batch, roughly.
        labels: Of each place of the packed histories, whether it is predicted; None: all are.
    """

    def __init__(
        self, histories: Histories, n_items: int, length: int, batch_targets: int, labels: Flags | None = None
    ) -> None:
        self.histories, self.n_items, self.length, self.batch_targets = histories, n_items, length, batch_targets
        self.labels = labels

    def __call__(self, rng: np.random.Generator) -> Epoch:
        """The batches of an epoch."""
        starts, ends, first = _cut(self.histories.offsets, self.length, rng)
        sizes = ends - starts
        if self.labels is not None and len(starts):
            sizes = np.add.reduceat(self.labels, starts, dtype=np.int64)  # windows lie side by side
        order = rng.permutation(np.flatnonzero(sizes))
        group = np.cumsum(sizes[order]) // (self.batch_targets * _GROUP)
        order = order[np.lexsort((ends[order] - starts[order], group))]
        batch = (np.cumsum(sizes[order]) - 1) // self.batch_targets
        edges = np.append(np.unique(batch, return_index=True)[1], len(order))
        return Epoch(self, starts[order], ends[order], first[order], edges, rng.permutation(len(edges) - 1))


class Epoch:
    """The batches of one epoch, each made when it is asked for."""

    def __init__(
        self, windows: Windows, starts: Places, ends: Places, first: Flags, edges: Places, order: Places
    ) -> None:
        self.windows, self.starts, self.ends, self.first = windows, starts, ends, first
        self.edges, self.order = edges, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> SequenceBatch:
        chosen = slice(self.edges[self.order[number]], self.edges[self.order[number] + 1])
        starts, ends, first = self.starts[chosen, None], self.ends[chosen, None], self.first[chosen]
        histories, labels = self.windows.histories, self.windows.labels
        steps = np.arange((ends - starts).max())
        places = np.minimum(starts + steps, ends - 1)
        before = np.maximum(places - 1, starts - ~first[:, None])  # a first window's first token is no event
        padded = starts + steps >= ends
        wanted = histories.items[places].astype(np.int64)
        tokens = np.where(padded, self.windows.n_items, histories.items[before])
        tokens[first, 0] = self.windows.n_items + 1
        ignored = padded if labels is None else padded | ~labels[places]
        times = np.concatenate([histories.times[before[:, :1]], histories.times[places]], axis=1)
        return SequenceBatch(
            torch.from_numpy(tokens.astype(np.int64)),
            torch.from_numpy(times),
            torch.from_numpy(np.where(ignored, IGNORED, wanted)),
        )


def _cut(offsets: Places, length: int, rng: np.random.Generator) -> tuple[Places, Places, Flags]:
    """Start and end of each window's targets as places of the packed histories, and whether a history begins there.

    A history longer than a window is cut at a drawn place, then every `length` events.
    """
    used = np.flatnonzero(np.diff(offsets))
    begins, sizes = offsets[used], np.diff(offsets)[used]
    head = np.where(sizes > length, rng.integers(1, length + 1, len(used)), sizes)
    counts = 1 - (head - sizes) // length
    owner = np.repeat(np.arange(len(used)), counts)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    ends = begins[owner] + np.minimum(head[owner] + nth * length, sizes[owner])
    starts = begins[owner] + np.where(nth == 0, 0, head[owner] + (nth - 1) * length)
    return starts, ends, nth == 0
