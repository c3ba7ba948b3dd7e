"""LEARN's adapter into ranking (arXiv 2405.03988): a user and an item vector, joined by an MLP with a head of its own.

Fields: the user's vector, the item's, and the last hidden layer of the MLP over both. The MLP learns from the labels
by the auxiliary head, besides what comes back from the ranking model. The vectors are those of `palate.models.learn`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from palate.models.adapters.adapter import AdapterConfig, mlp


class LearnConfig(AdapterConfig):
    """LEARN's adapter."""

    hidden: int = Field(default=128, ge=1, description="units of the first hidden layer")
    weight: float = Field(default=0.1, ge=0, description="of the auxiliary head's loss")


class LearnAdapter(nn.Module):
    Config = LearnConfig

    def __init__(self, du: int, di: int, width: int, config: LearnConfig) -> None:
        super().__init__()
        self.config = config
        self.sides = nn.ModuleDict({name: nn.Linear(n, width) for name, n in (("user", du), ("item", di)) if n})
        self.joint, self.head = mlp(du + di, config.hidden, width), nn.Linear(width, 1)
        self._logits: Tensor | None = None
        self._labels: Tensor | None = None

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """[b, du] and [b, di] to [b, 3, d]; a side that is 0 wide has no field."""
        joint = self.joint(torch.cat([user, item], 1))
        self._logits, self._labels = self.head(joint)[:, 0], None
        given = {"user": user, "item": item}
        return torch.stack([*(side(given[name]) for name, side in self.sides.items()), joint], 1)

    def labelled(self, labels: Tensor) -> None:
        """What came of the rows of the last forward pass, [b] or [b, tasks] (the first counts)."""
        self._labels = labels.reshape(len(labels), -1)[:, 0]

    def auxiliary(self) -> Tensor:
        if self._logits is None or self._labels is None:
            return torch.zeros(())
        return self.config.weight * F.binary_cross_entropy_with_logits(self._logits, self._labels)
