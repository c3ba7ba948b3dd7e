"""The item side of a network: a learned row for each item, a frozen vector of what is known of it, or both.

With both, an item that was met often goes by its row and one that was met never by its vector; between them a learned
gate over the number of training events decides. So that the vector's side learns to stand alone, the rows of some
items are hidden at each step (DropoutNet, Volkovs et al., NeurIPS 2017).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palate.data.dataset import Dataset, FloatArray
from palate.errors import InputError
from palate.knowledge.matrix import vector_matrix
from palate.knowledge.tables import Knowledge
from palate.models.softmax import fill_unseen

Sides = Literal["id", "vector", "both"]
ItemSide = Callable[[int, int], nn.Module]  # (n_items, dimensions) to what `ItemTable` is
Counts = npt.NDArray[np.int64]
SPECIAL = 2  # tokens behind the items: padding, and the beginning of a history
SPREAD = 0.02  # of the rows at first


class ItemTable(nn.Module):
    """The plain item side: a learned vector for each item, then one for padding and one for the beginning.

    Another item side has the same attributes and methods and can stand in its place.
    """

    def __init__(self, n_items: int, dimensions: int) -> None:
        super().__init__()
        self.n_items, self.dimensions = n_items, dimensions
        self.rows = nn.Embedding(n_items + SPECIAL, dimensions)
        nn.init.normal_(self.rows.weight, std=SPREAD)

    def forward(self, tokens: Tensor) -> Tensor:
        """Vectors of tokens or of item numbers, any shape [...] to [..., d]."""
        return self.rows(tokens)  # type: ignore[no-any-return]

    def table(self) -> Tensor:
        """The vectors of all items, [n_items, d]."""
        return self.rows.weight[: self.n_items]

    def fill_unseen(self, counts: Counts) -> None:
        """Called before items are ranked: `counts` [n_items] says how often each was met in training."""
        fill_unseen(self.rows, counts)


class ItemVectors(nn.Module):
    """Tokens of any shape to vectors [..., d]: items by their sides, the special tokens by rows of their own.

    vector_i = g_i · row_i + (1 - g_i) · normed(W x_i), where g_i = sigmoid(slope · log(1 + events_i) - offset), 0
    for an item without events and 1 for one without a vector; 0 for all where `sides` is "vector".

    Args:
        n_items: Items; tokens from `n_items` on are special.
        dimensions: d.
        sides: What an item goes by ("id" alone is `ItemTable`).
        vectors: [n_items, k], frozen, zeros where nothing is known.
        counts: Training events of each item, [n_items].
        hidden: Share of the items whose rows are hidden at a step, with "both".

    Raises:
        InputError: Vectors of another shape, all zero, or not finite.
    """

    vectors: Tensor
    events: Tensor  # log(1 + events)

    def __init__(
        self,
        n_items: int,
        dimensions: int,
        sides: Sides,
        vectors: FloatArray,
        counts: Counts | None = None,
        hidden: float = 0.2,
    ) -> None:
        super().__init__()
        self.n_items, self.dimensions, self.sides, self.hidden = n_items, dimensions, sides, hidden
        self.first = 0 if sides == "both" else n_items  # the token of the first row
        self.rows = nn.Embedding(n_items + SPECIAL - self.first, dimensions)
        nn.init.normal_(self.rows.weight, std=SPREAD)
        self.read = nn.Linear(vectors.shape[-1], dimensions, bias=False)
        self.norm = nn.LayerNorm(dimensions)
        nn.init.constant_(self.norm.weight, SPREAD)  # as long as the rows at first
        self.register_buffer("vectors", torch.from_numpy(_checked(vectors, n_items)))
        if sides == "both":
            self.slope, self.offset = nn.Parameter(torch.ones(())), nn.Parameter(torch.tensor(2.0))
            seen = np.zeros(n_items) if counts is None else counts
            self.register_buffer("events", torch.from_numpy(np.log1p(seen).astype(np.float32)))

    def table(self) -> Tensor:
        """The vectors of all items, [n_items, d]."""
        return self(torch.arange(self.n_items, device=self.vectors.device))  # type: ignore[no-any-return]

    def fill_unseen(self, counts: Counts) -> None:
        """Rows of items never met, which only those without a vector go by, become the mean of the rarest."""
        if self.sides == "both":
            fill_unseen(self.rows, counts)

    def forward(self, tokens: Tensor) -> Tensor:
        items, special = tokens.clamp(max=self.n_items - 1), (tokens >= self.n_items)[..., None]
        rows = self.rows((tokens - self.first).clamp(min=0))
        known = self.norm(self.read(F.embedding(items, self.vectors)))
        if self.sides == "both":
            known = torch.lerp(known, rows, self.gate()[items][..., None])
        return torch.where(special, rows, known)

    def gate(self) -> Tensor:
        """The share of the row in each item's vector, [n_items]; in training some are hidden."""
        share = torch.sigmoid(self.slope * self.events - self.offset) * (self.events > 0)
        if self.training and self.hidden:
            share = share * (torch.rand_like(share) >= self.hidden)
        return torch.where(self.vectors.abs().sum(1) == 0, torch.ones_like(share), share)


def side_maker(sides: Sides, dataset: Dataset, knowledge: Knowledge | None) -> ItemSide:
    """Makes the item side for what is trained on `dataset` and knows `knowledge` (kind `vector`).

    Raises:
        InputError: As `known_vectors`.
    """
    if sides == "id":
        return ItemTable
    vectors = known_vectors(dataset, knowledge)
    return partial(ItemVectors, sides=sides, vectors=vectors, counts=dataset.item_counts)


def known_vectors(dataset: Dataset, knowledge: Knowledge | None, name: str | None = None) -> FloatArray:
    """The vectors that `knowledge` has of the items of `dataset`, of unit length; zeros where it has none.

    Args:
        name: Which, where there are several kinds of vector; None: all rows, the newest of each item.

    Raises:
        InputError: There is none.
    """
    table = (knowledge or Knowledge()).table("vector")
    if name is not None:
        table = table.filter(table["name"] == name)
    vectors = vector_matrix(table, dataset.item_ids)
    if not vectors.any():
        raise InputError(
            "No vector is known of any item", where="knowledge", got=name, hint='pass Knowledge({"vector": ...}) to fit'
        )
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: FloatArray = (vectors / np.where(length > 0, length, 1)).astype(np.float32)
    return unit


def _checked(vectors: FloatArray, n_items: int) -> FloatArray:
    if vectors.ndim != 2 or len(vectors) != n_items or not vectors.any():
        raise InputError(
            "The item side needs a vector for each item",
            where="vectors",
            got=vectors.shape,
            allowed=f"[{n_items}, k], not all 0",
        )
    if not np.isfinite(vectors).all():
        bad = int(np.flatnonzero(~np.isfinite(vectors).all(1))[0])
        raise InputError("A vector of an item is not finite", where=f"item {bad}", hint="leave such rows at 0")
    return np.ascontiguousarray(vectors, dtype=np.float32)
