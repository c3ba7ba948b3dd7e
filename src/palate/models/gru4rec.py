"""GRU4Rec: a recurrent network reads the history (Hidasi et al., ICLR 2016, arXiv 1511.06939).

With the softmax over the catalogue of the shared scaffolding instead of the paper's sampled ranking losses, which is
what makes it strong (Petrov & Macdonald 2022; Klenitskiy & Vasilev 2023).
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from palate.models.dropout import Dropout
from palate.models.sequence_retriever import SequenceConfig, SequenceNetwork, SequenceRetriever


class Gru4RecConfig(SequenceConfig):
    """Sizes of the network; the rest stands in `SequenceConfig`."""

    units: int = Field(default=128, ge=1, description="of the recurrent state (paper: 100-1000)")
    layers: int = Field(default=1, ge=1, description="of recurrent units (paper: 1)")


class Network(SequenceNetwork):
    """Item vectors, GRU, and back to the width of item vectors. Times are not read."""

    def __init__(self, items: nn.Module, config: Gru4RecConfig) -> None:
        super().__init__(items)
        self.dropout = Dropout(config.dropout)
        between = config.dropout if config.layers > 1 else 0.0
        self.gru = nn.GRU(config.dimensions, config.units, config.layers, batch_first=True, dropout=between)
        self.out = nn.Linear(config.units, config.dimensions)
        nn.init.normal_(self.items.rows.weight, std=0.1)

    def hidden(self, tokens: Tensor, times: Tensor) -> Tensor:
        states, _ = self.gru(self.dropout(self.items(tokens)))
        return self.out(self.dropout(states))  # type: ignore[no-any-return]


class Gru4Rec(SequenceRetriever[Gru4RecConfig]):
    """A `Retriever`."""

    name = "gru4rec"
    config_kind = Gru4RecConfig

    def network(self, items: nn.Module) -> SequenceNetwork:
        return Network(items, self.config)
