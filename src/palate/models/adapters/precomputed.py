"""Offline pre-computation: an adapter's fields for every user and item, so that serving reads two small vectors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from palate.data.dataset import FloatArray
from palate.errors import InputError
from palate.models.adapters.adapter import Sided

_ROWS = 4096


def precompute(adapter: nn.Module, users: FloatArray, items: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The fields of each user and of each item, flat: [n_users, k d] and [n_items, k d]; 0 wide for a side without any.

    Raises:
        InputError: The adapter's fields are of the pair and not of either side (`similarity`).
    """
    if not isinstance(adapter, Sided):
        raise InputError(
            "This adapter's fields belong to a user and an item together: they cannot be made beforehand",
            got=type(adapter).__name__,
            hint="take an adapter that has a side for each, or serve the source vectors",
        )
    return _side(adapter, "user", users), _side(adapter, "item", items)


class Precomputed(nn.Module):
    """What stands in the adapter's place when its fields are read: [b, ku d], [b, ki d] to [b, ku + ki, d]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return torch.cat([side.view(len(side), -1, self.width) for side in (user, item)], 1)


def _side(adapter: Sided, name: str, rows: FloatArray) -> FloatArray:
    if name not in adapter.widths:
        return np.zeros((len(rows), 0), dtype=np.float32)
    parts = []
    with torch.inference_mode():
        for start in range(0, max(len(rows), 1), _ROWS):
            part = torch.from_numpy(np.ascontiguousarray(rows[start : start + _ROWS]))
            parts.append(adapter.side(name, part).flatten(1).numpy())
    return np.concatenate(parts)
