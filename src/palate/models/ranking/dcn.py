"""DCN: explicit crosses of bounded degree beside a deep network (Wang et al., ADKDD 2017, 1708.05123).

x_{l+1} = x_0 (x_l^T w_l) + b_l + x_l   (equation 3),   y = <w, [x_L, MLP(x_0)]>
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from palate.models.ranking.blocks import BackboneConfig, Mlp, squeezed


class DcnConfig(BackboneConfig):
    """DCN."""

    crosses: int = Field(default=3, ge=1, description="cross layers (paper: 1-6)")


class Cross(nn.Module):
    """One cross layer: a weight vector and a bias."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Linear(size, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, first: Tensor, x: Tensor) -> Tensor:
        crossed: Tensor = first * self.weight(x) + self.bias + x
        return crossed


class Dcn(nn.Module):
    Config = DcnConfig

    def __init__(self, n_fields: int, width: int, config: DcnConfig) -> None:
        super().__init__()
        size = n_fields * width
        self.crosses = nn.ModuleList(Cross(size) for _ in range(config.crosses))
        self.deep = Mlp(size, config.hidden, config.dropout)
        self.out = nn.Linear(size + self.deep.size, config.outputs)

    def forward(self, fields: Tensor, history: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        first = x = fields.flatten(1)
        for cross in self.crosses:
            x = cross(first, x)
        return squeezed(self.out(torch.cat([x, self.deep(first)], 1)))
