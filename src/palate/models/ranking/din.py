"""DIN: the history is summed with weights that the target item asks for (Zhou et al., KDD 2018, 1706.06978).

v = Σ_j a(e_j, t) e_j,  a = MLP([e_j, t, e_j − t, e_j · t])   (equation 3, figure 2; no softmax, as in the paper)
y = MLP([fields, v, t, v · t])
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from palate.models.ranking.blocks import BackboneConfig, Mlp, squeezed


class DinConfig(BackboneConfig):
    """DIN."""

    attention: tuple[int, ...] = Field(default=(80, 40), description="hidden layers of the attention unit")


class TargetAttention(nn.Module):
    """Weight of each event for the target, [b, t]: 0 where there is no event."""

    def __init__(self, width: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.unit = Mlp(4 * width, hidden, 0.0, 1)

    def forward(self, history: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        wanted = target[:, None, :].expand_as(history)[mask]
        events = history[mask]
        scores = self.unit(torch.cat([events, wanted, events - wanted, events * wanted], 1))[:, 0]
        return torch.zeros(mask.shape, dtype=scores.dtype, device=scores.device).masked_scatter(mask, scores)


class Din(nn.Module):
    Config = DinConfig

    def __init__(self, n_fields: int, width: int, config: DinConfig) -> None:
        super().__init__()
        self.attention = TargetAttention(width, config.attention)
        self.deep = Mlp((n_fields + 3) * width, config.hidden, config.dropout, config.outputs)

    def forward(self, fields: Tensor, history: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        weights = self.attention(history, mask, target)
        interest = torch.bmm(weights[:, None, :], history)[:, 0]
        return squeezed(self.deep(torch.cat([fields.flatten(1), interest, target, interest * target], 1)))
