"""SASRec: self-attention over a history predicts the next item (Kang & McAuley, ICDM 2018, arXiv 1808.09781).

Differences from the paper, each common today: softmax cross-entropy over the catalogue at every position instead of
one negative and binary cross-entropy (Klenitskiy & Vasilev 2023, arXiv 2309.07602), normalisation before each
sub-layer, GELU, and a learned bias of the attention for each distance between two events (Raffel et al. 2020, arXiv
1910.10683) instead of vectors of absolute places: windows cut a history anywhere, so a place means nothing. Input and
output share one table of item vectors, as in the paper.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from palate.models.sequence_retriever import SequenceConfig, SequenceNetwork, SequenceRetriever


class SasRecConfig(SequenceConfig):
    """Sizes of the network; the rest stands in `SequenceConfig`."""

    blocks: int = Field(default=2, ge=1, description="of attention and feed-forward (paper: 2)")
    heads: int = Field(default=2, ge=1, description="of each attention (paper: 1)")
    widening: int = Field(default=4, ge=1, description="inner over outer width of the feed-forward part (paper: 1)")


class Block(nn.Module):
    """Causal self-attention and a feed-forward part, each normalised first and added to its input."""

    def __init__(self, config: SasRecConfig) -> None:
        super().__init__()
        d = config.dimensions
        self.heads, self.dropout = config.heads, nn.Dropout(config.dropout)
        self.before_attention, self.before_feed = nn.LayerNorm(d), nn.LayerNorm(d)
        self.mix, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.widen, self.narrow = nn.Linear(d, config.widening * d), nn.Linear(config.widening * d, d)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """`x` [b, t, d]; `bias` [heads, t, t] of the attention, minus infinity where the column comes after the row."""
        (b, t), d = x.shape[:2], self.out.out_features
        mixed = self.mix(self.before_attention(x)).view(b, t, 3, self.heads, d // self.heads)
        q, k, v = mixed.permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) * (d // self.heads) ** -0.5 + bias).softmax(-1)
        read = (self.dropout(weights) @ v).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.out(read))
        inner = F.gelu(self.widen(self.before_feed(x)))
        return x + self.dropout(self.narrow(inner))  # type: ignore[no-any-return]


class Network(SequenceNetwork):
    """Tokens (see `tokens_of`) to hidden states. Times are not read."""

    def __init__(self, items: nn.Module, config: SasRecConfig) -> None:
        super().__init__(items)
        self.distances = nn.Parameter(torch.zeros(config.heads, config.length))  # to attention, by events back
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.last = nn.LayerNorm(config.dimensions)
        self.dropout = nn.Dropout(config.dropout)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1 and name != "distances":
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def hidden(self, tokens: Tensor, times: Tensor) -> Tensor:
        order = torch.arange(tokens.shape[1], device=tokens.device)
        back = order[:, None] - order[None, :]
        bias = torch.where(back < 0, -torch.inf, self.distances[:, back.clamp(min=0)])
        x = self.dropout(self.items(tokens))
        for block in self.blocks:
            x = block(x, bias)
        return self.last(x)  # type: ignore[no-any-return]


class SasRec(SequenceRetriever[SasRecConfig]):
    """A `Retriever`. An item never trained on takes the mean vector of the rarest items, as unknown words do."""

    name = "sasrec"
    config_kind = SasRecConfig

    def network(self, items: nn.Module) -> Network:
        return Network(items, self.config)
