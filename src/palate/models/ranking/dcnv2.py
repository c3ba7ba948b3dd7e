"""DCN-V2: crosses with a weight matrix, of low rank here (Wang et al., WWW 2021, 2008.13535).

x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l,  W_l = U_l V_l^T   (equations 1 and 6, parallel structure)
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from palate.models.ranking.blocks import BackboneConfig, Mlp, squeezed


class DcnV2Config(BackboneConfig):
    """DCN-V2."""

    crosses: int = Field(default=3, ge=1, description="cross layers (paper: 2-4)")
    rank: int = Field(default=64, ge=0, description="of each weight matrix; 0: full (paper: a quarter is as good)")


def matrix(size: int, rank: int) -> nn.Module:
    """W x + b with W of the rank."""
    if not rank:
        return nn.Linear(size, size)
    return nn.Sequential(nn.Linear(size, rank, bias=False), nn.Linear(rank, size))


class DcnV2(nn.Module):
    Config = DcnV2Config

    def __init__(self, n_fields: int, width: int, config: DcnV2Config) -> None:
        super().__init__()
        size = n_fields * width
        self.crosses = nn.ModuleList(matrix(size, config.rank) for _ in range(config.crosses))
        self.deep = Mlp(size, config.hidden, config.dropout)
        self.out = nn.Linear(size + self.deep.size, config.outputs)

    def forward(self, fields: Tensor, history: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        first = x = fields.flatten(1)
        for cross in self.crosses:
            x = first * cross(x) + x
        return squeezed(self.out(torch.cat([x, self.deep(first)], 1)))
