"""Fi-GNN: fields are the nodes of a graph and tell each other what they know (Li et al., CIKM 2019, 1910.05552).

h^1 = FieldAttention(e);  w_ij = softmax_j(LeakyReLU(W_w [e_i, e_j]))   (equations 6 and 7)
a_i = Σ_{j≠i} w_ij W_out_j W_in_i h_j;  h' = GRU(a, h) + e   (equations 8 to 10)
y = Σ_i a_i y_i,  y_i = MLP_1(h_i),  a = MLP_2([h_1 .. h_f])   (equations 11 to 13)
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from palate.models.ranking.blocks import BackboneConfig, FieldAttention, Mlp, squeezed


class FiGnnConfig(BackboneConfig):
    """Fi-GNN."""

    heads: int = Field(default=2, ge=1, description="of the attention that makes the first states (paper: 2)")
    steps: int = Field(default=2, ge=1, description="rounds of messages (paper: 3)")


class Edges(nn.Module):
    """How much field i listens to field j, [b, f, f]; nobody to itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.listens, self.speaks = nn.Linear(width, 1, bias=False), nn.Linear(width, 1, bias=False)

    def forward(self, fields: Tensor) -> Tensor:
        scores = nn.functional.leaky_relu(self.listens(fields) + self.speaks(fields).transpose(1, 2))
        itself = torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
        return torch.softmax(scores.masked_fill(itself, -torch.inf), -1)


class FiGnn(nn.Module):
    Config = FiGnnConfig

    def __init__(self, n_fields: int, width: int, config: FiGnnConfig) -> None:
        super().__init__()
        self.steps = config.steps
        self.attention, self.edges = FieldAttention(width, config.heads), Edges(width)
        self.send, self.receive = (nn.Parameter(torch.empty(n_fields, width, width)) for _ in range(2))
        for matrix in (*self.send, *self.receive):
            nn.init.xavier_normal_(matrix)
        self.update = nn.GRUCell(width, width)
        self.node = nn.Linear(width, config.outputs)
        self.weigh = Mlp(n_fields * width, config.hidden, config.dropout, n_fields)

    def forward(self, fields: Tensor, history: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        edges, states = self.edges(fields), self.attention(fields)
        for _ in range(self.steps):
            sent = torch.einsum("bfd,fde->bfe", states, self.send)
            messages = torch.einsum("bfd,fde->bfe", edges @ sent, self.receive)
            states = self.update(messages.flatten(0, 1), states.flatten(0, 1)).view_as(fields) + fields
        return squeezed(torch.einsum("bf,bfo->bo", self.weigh(states.flatten(1)), self.node(states)))
