"""xDeepFM: crosses of whole vectors, compressed layer by layer, and a deep network (Lian et al., KDD 2018, 1803.05170).

X^k_h = Σ_{i,j} W^{k,h}_{ij} (X^{k-1}_i ⊙ X^0_j)   (equation 6),   p^k = Σ over the width,
y = <w, x> + <w_c, [p^1 .. p^K]> + MLP(x)
"""

from __future__ import annotations

from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn

from palate.models.ranking.blocks import BackboneConfig, Mlp, squeezed


class XDeepFMConfig(BackboneConfig):
    """xDeepFM."""

    maps: tuple[int, ...] = Field(default=(16, 16), description="feature maps of each layer (paper: 200 on Criteo)")


class Cin(nn.Module):
    """The compressed interaction network: [b, f, d] to [b, all maps]."""

    def __init__(self, n_fields: int, maps: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(n_fields * a, b, bias=False) for a, b in pairwise((n_fields, *maps)))

    def forward(self, fields: Tensor) -> Tensor:
        first = x = fields.transpose(1, 2)  # [b, d, f]
        sums = []
        for layer in self.layers:
            x = layer((x[:, :, :, None] * first[:, :, None, :]).flatten(2))  # [b, d, maps]
            sums.append(x.sum(1))
        return torch.cat(sums, 1)


class XDeepFM(nn.Module):
    Config = XDeepFMConfig

    def __init__(self, n_fields: int, width: int, config: XDeepFMConfig) -> None:
        super().__init__()
        self.first = nn.Linear(n_fields * width, config.outputs)
        self.cin = Cin(n_fields, config.maps)
        self.crossed = nn.Linear(sum(config.maps), config.outputs, bias=False)
        self.deep = Mlp(n_fields * width, config.hidden, config.dropout, config.outputs)

    def forward(self, fields: Tensor, history: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        flat = fields.flatten(1)
        return squeezed(self.first(flat) + self.crossed(self.cin(fields)) + self.deep(flat))
