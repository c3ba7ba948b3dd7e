"""AutoInt+: fields attend to each other, beside a deep network (Song et al., CIKM 2019, 1810.11921).

ẽ_m = Σ_k softmax_k(<W_Q e_m, W_K e_k>) W_V e_k for each head,  e'_m = ReLU(ẽ_m + W_R e_m)   (equations 5 to 8)
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from palate.models.ranking.blocks import BackboneConfig, FieldAttention, Mlp, squeezed


class AutoIntConfig(BackboneConfig):
    """AutoInt."""

    layers: int = Field(default=2, ge=1, description="interacting layers (paper: 3)")
    heads: int = Field(default=2, ge=1, description="of each layer (paper: 2)")


class AutoInt(nn.Module):
    Config = AutoIntConfig

    def __init__(self, n_fields: int, width: int, config: AutoIntConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(FieldAttention(width, config.heads) for _ in range(config.layers)))
        self.out = nn.Linear(n_fields * width, config.outputs)
        self.deep = Mlp(n_fields * width, config.hidden, config.dropout, config.outputs)

    def forward(self, fields: Tensor, history: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        return squeezed(self.out(self.layers(fields).flatten(1)) + self.deep(fields.flatten(1)))
