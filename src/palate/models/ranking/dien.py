"""DIEN: interests evolve, and only those near the target matter (Zhou et al., AAAI 2019, 1809.03672).

h_t = GRU(e_t, h_{t-1});  a_t = softmax_t(h_t W e_a)   (equation 7)
AUGRU: ũ_t = a_t u_t, h'_t = (1 − ũ_t) h'_{t-1} + ũ_t h̃'_t   (equations 15 and 16)
auxiliary loss: −log σ(<h_t, e_{t+1}>) − log(1 − σ(<h_t, ê>)), ê some other row's event   (equation 5)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from palate.models.ranking.blocks import BackboneConfig, Mlp, squeezed


class DienConfig(BackboneConfig):
    """DIEN."""

    auxiliary: float = Field(default=0.1, ge=0, description="weight of the auxiliary loss (paper's code: 1)")


class Augru(nn.Module):
    """A GRU whose update gate is scaled by the attention of each event; the last state, [b, d]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read, self.recur = nn.Linear(width, 3 * width), nn.Linear(width, 3 * width)

    def forward(self, states: Tensor, attention: Tensor) -> Tensor:
        read, evolved = self.read(states), torch.zeros_like(states[:, 0])
        for t in range(states.shape[1]):
            (r, u, n), (hr, hu, hn) = read[:, t].chunk(3, -1), self.recur(evolved).chunk(3, -1)
            update = attention[:, t, None] * torch.sigmoid(u + hu)
            evolved = evolved + update * (torch.tanh(n + torch.sigmoid(r + hr) * hn) - evolved)
        return evolved


class Dien(nn.Module):
    Config = DienConfig

    def __init__(self, n_fields: int, width: int, config: DienConfig) -> None:
        super().__init__()
        self.weight = config.auxiliary
        self.extract = nn.GRU(width, width, batch_first=True)
        self.near = nn.Linear(width, width, bias=False)
        self.evolve = Augru(width)
        self.deep = Mlp((n_fields + 2) * width, config.hidden, config.dropout, config.outputs)
        self.loss = torch.zeros(())

    def forward(self, fields: Tensor, history: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        states = self.extract(history)[0]
        scores = (states @ self.near(target)[:, :, None])[:, :, 0]
        attention = torch.softmax(scores.masked_fill(~mask, -1e9), 1) * mask
        if self.training:
            self.loss = self.weight * _next_event_loss(states, history, mask)
        evolved = self.evolve(states, attention)
        return squeezed(self.deep(torch.cat([fields.flatten(1), evolved, target], 1)))

    def auxiliary(self) -> Tensor:
        """Of the last forward pass in training."""
        return self.loss


def _next_event_loss(states: Tensor, history: Tensor, mask: Tensor) -> Tensor:
    """Each state should point at its row's next event rather than at one of the row before it in the batch."""
    followed = mask[:, 1:]
    state, following = states[:, :-1][followed], history[:, 1:][followed]
    if len(state) < 2:
        return state.sum() * 0
    other = following[torch.randperm(len(following))]
    loss = F.softplus(-(state * following).sum(1)) + F.softplus((state * other).sum(1))
    return loss.mean()
