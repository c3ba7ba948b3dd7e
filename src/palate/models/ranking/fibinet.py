"""FiBiNet: fields weighted by importance, pairs crossed bilinearly (Huang et al., RecSys 2019, 1905.09433).

SENet: a = ReLU(W_2 ReLU(W_1 mean_d(e))), v_i = a_i e_i   (equations 3 to 5)
pairs: p_ij = (e_i W_i) ⊙ e_j, of the fields and of the weighted fields   (equation 7, a matrix for each field)
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from palate.models.ranking.blocks import BackboneConfig, Mlp, squeezed


class FiBiNetConfig(BackboneConfig):
    """FiBiNet."""

    reduction: int = Field(default=3, ge=1, description="how much narrower SENet is inside (paper: 3)")


class Senet(nn.Module):
    """How important each field is in this row: [b, f, d] to the weighted fields."""

    def __init__(self, n_fields: int, reduction: int) -> None:
        super().__init__()
        inner = max(1, n_fields // reduction)
        self.squeeze, self.excite = nn.Linear(n_fields, inner), nn.Linear(inner, n_fields)

    def forward(self, fields: Tensor) -> Tensor:
        weights = torch.relu(self.excite(torch.relu(self.squeeze(fields.mean(2)))))
        return fields * weights[:, :, None]


class Bilinear(nn.Module):
    """(e_i W_i) ⊙ e_j for all i < j: [b, f, d] to [b, pairs, d]."""

    def __init__(self, n_fields: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_fields - 1, width, width))
        for matrix in self.weight:
            nn.init.xavier_normal_(matrix)

    def forward(self, fields: Tensor) -> Tensor:
        turned = torch.einsum("bfd,fde->bfe", fields[:, :-1], self.weight)
        rows, columns = torch.triu_indices(fields.shape[1], fields.shape[1], 1, device=fields.device)
        return turned[:, rows] * fields[:, columns]


class FiBiNet(nn.Module):
    Config = FiBiNetConfig

    def __init__(self, n_fields: int, width: int, config: FiBiNetConfig) -> None:
        super().__init__()
        n_pairs = n_fields * (n_fields - 1) // 2
        self.first = nn.Linear(n_fields * width, config.outputs)
        self.senet = Senet(n_fields, config.reduction)
        self.plain, self.weighted = Bilinear(n_fields, width), Bilinear(n_fields, width)
        self.deep = Mlp(2 * n_pairs * width, config.hidden, config.dropout, config.outputs)

    def forward(self, fields: Tensor, history: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        crossed = torch.cat([self.plain(fields), self.weighted(self.senet(fields))], 1)
        return squeezed(self.first(fields.flatten(1)) + self.deep(crossed.flatten(1)))
