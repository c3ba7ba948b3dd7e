"""Turns the rows of a batch into vectors: the fields, the history, and the target item."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palate.models.ranking.columns import Fields
from palate.models.ranking.features import PADDING, Features

INITIAL_SPREAD = 0.01  # of embeddings: small, so that what occurs seldom stays near zero


class Batch(NamedTuple):
    """Rows as tensors. `user_rows` and `item_rows` are rows of side vectors (see `SideVectors`), -1 for none."""

    items: Tensor  # [b]
    users: Tensor  # [b]
    numbers: Tensor  # [b, q]
    history: Tensor  # [b, t]
    levels: Tensor  # [b, t]
    user_rows: Tensor  # [b]
    item_rows: Tensor  # [b]


class Encoded(NamedTuple):
    """What a backbone reads."""

    fields: Tensor  # [b, f, d]
    history: Tensor  # [b, t, d]
    mask: Tensor  # [b, t], whether there is an event
    target: Tensor  # [b, d]


class Encoder(nn.Module):
    """One table of embeddings for all fields of items and users; each item of a batch is looked up once.

    Fields, in order: those of the item, those of the user, the numbers of the item and those of the user (a sum over
    numbers of the value times a vector, or of another vector where it is missing: AutoInt, arXiv 1810.11921, equation
    5, one field for a side instead of one for a number), the mean of the history, and its mean weighted by how each
    event was valued, with a learned weight for each level. An event of the history is the sum of its item's fields
    and of the embedding of its level; the target item the sum of its fields.
    """

    def __init__(self, features: Features, width: int) -> None:
        super().__init__()
        items, users = features.item_fields, features.user_fields
        n_numbers, n_levels = len(features.number_names), len(features.level_values)
        self.table = nn.Embedding(max(items.size, users.size), width, padding_idx=0)
        self.levels = nn.Embedding(n_levels + 1, width)
        self.numbers = nn.Parameter(torch.empty(n_numbers, width))
        self.missing = nn.Parameter(torch.empty(n_numbers, width))
        for parameter in (self.table.weight, self.levels.weight, self.numbers, self.missing):
            nn.init.normal_(parameter, std=INITIAL_SPREAD)
        with torch.no_grad():
            self.table.weight[0] = 0
        self.register_buffer("sides", torch.from_numpy(features.number_sides).float(), persistent=False)
        self.n_fields = len(items.names) + len(users.names) + len(features.number_sides) + 1 + (n_levels > 1)
        for name, fields in (("item", items), ("user", users)):
            slots, means = _pooling(fields)
            self.register_buffer(f"{name}_slots", slots, persistent=False)
            self.register_buffer(f"{name}_means", means, persistent=False)
        self.worth = nn.Parameter(_first_worth(features)) if n_levels > 1 else None

    def forward(self, batch: Batch) -> Encoded:
        mask = batch.history != PADDING
        wanted = torch.cat([batch.items[:, None], batch.history], 1)
        met, places = torch.unique(wanted, return_inverse=True)
        known = self._pooled("item", met)  # [u, f, d]
        sums = known.sum(1) * (met != PADDING)[:, None]
        together = F.embedding(places, sums)  # [b, 1 + t, d]
        target, past, own = together[:, 0], together[:, 1:], F.embedding(places[:, 0], known.flatten(1))
        fields = [
            own.view(len(own), *known.shape[1:]),
            self._pooled("user", batch.users),
            self._numbers(batch.numbers),
            self._means(past, batch.levels, mask),
        ]
        history = past + self.levels(batch.levels) * mask[:, :, None]
        return Encoded(torch.cat(fields, 1), history, mask, target)

    def _pooled(self, name: str, entities: Tensor) -> Tensor:
        """The fields of `entities` [u]: [u, f, d]."""
        slots, means = getattr(self, f"{name}_slots"), getattr(self, f"{name}_means")
        return torch.bmm(means[entities], self.table(slots[entities].long()))

    def _numbers(self, numbers: Tensor) -> Tensor:
        """One field for each side, [b, 1 or 2, d]."""
        sides: Tensor = self.sides  # type: ignore[assignment]
        missing = torch.isnan(numbers)
        given = (sides * numbers.nan_to_num()[:, None]) @ self.numbers
        return given + (sides * missing[:, None]) @ self.missing

    def _means(self, past: Tensor, levels: Tensor, mask: Tensor) -> Tensor:
        """Plain and valued mean of the history, [b, 1 or 2, d]; zeros without a history."""
        weights = [mask.to(past.dtype)]
        if self.worth is not None:
            weights.append(self.worth[levels] * mask)
        return torch.bmm(torch.stack(weights, 1), past) / mask.sum(1).clamp(min=1)[:, None, None]


def _pooling(fields: Fields) -> tuple[Tensor, Tensor]:
    """Slots [n, S], and the matrix [n, f, S] that takes the mean over the filled slots of each field."""
    slots = torch.from_numpy(fields.slots)
    member = torch.from_numpy(fields.field_of)[None, :] == torch.arange(len(fields.names))[:, None]
    filled = member[None] & (slots != 0)[:, None, :]
    return slots, filled / filled.sum(2, keepdim=True).clamp(min=1)


def _first_worth(features: Features) -> Tensor:
    """The levels, standardised; an unknown one is worth nothing."""
    values = torch.from_numpy(features.level_values).float()
    return torch.cat([torch.zeros(1), (values - features.prior) / values.std()])
