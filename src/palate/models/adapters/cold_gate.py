"""A gate by coldness: an item's knowledge counts the more, the less often the item was met in training.

g = σ(a − softplus(s) · log(1 + count)); user fields pass as they are. The last column of the item's vectors is the
count (`counted`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from palate.data.dataset import FloatArray
from palate.errors import InputError
from palate.models.adapters.adapter import AdapterConfig, Mapped


class ColdGateConfig(AdapterConfig):
    """Gate by coldness."""

    hidden: int = Field(default=128, ge=1, description="units of the hidden layer")
    half: float = Field(default=20.0, gt=0, description="training rows at which the gate is half open, before training")


class ColdGate(Mapped):
    Config = ColdGateConfig

    def __init__(self, du: int, di: int, width: int, config: ColdGateConfig) -> None:
        if di < 2:
            raise InputError("A gate by coldness needs vectors of items, with their counts behind", got=f"{di} columns")
        super().__init__(du, di - 1, config.hidden, width)
        self.slope = nn.Parameter(torch.tensor(0.5413))  # softplus of it is 1
        self.bias = nn.Parameter(torch.tensor(float(np.log1p(config.half))))

    def side(self, name: str, x: Tensor) -> Tensor:
        if name == "user":
            return super().side(name, x)
        return super().side(name, x[:, :-1]) * self.gate(x[:, -1])[:, None, None]

    def gate(self, counts: Tensor) -> Tensor:
        """[b] counts to [b] shares, falling."""
        return torch.sigmoid(self.bias - nn.functional.softplus(self.slope) * counts.log1p())

    @staticmethod
    def counted(items: FloatArray, counts: npt.ArrayLike) -> FloatArray:
        """[n, di] to [n, di + 1]: the training count of each item behind its vector."""
        return np.hstack([items, np.asarray(counts, dtype=np.float32)[:, None]])
