"""KAR's hybrid-expert adaptor (Xi et al., RecSys 2024, arXiv 2306.10933): experts shared by both sides, and own ones.

out_t = Σ_e softmax(W_t x_t)_e · E_e(x_t), over the shared experts and those of side t ∈ {user, item}; each expert is an
MLP n → 128 → d with ReLU after both layers.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from palate.models.adapters.adapter import AdapterConfig, Sided, one_space


class HybridExpertConfig(AdapterConfig):
    """Hybrid-expert adaptor; KAR's sizes."""

    shared: int = Field(default=2, ge=0, description="experts that both sides use (KAR: 2)")
    dedicated: int = Field(default=5, ge=1, description="experts of each side alone (KAR: 5)")
    hidden: int = Field(default=128, ge=1, description="units of an expert's hidden layer (KAR: 128)")


class Experts(nn.Module):
    """`n` MLPs on the same input, computed together: [b, in] to [b, n, out]."""

    def __init__(self, n: int, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.n = n
        self.first = nn.Linear(inputs, n * hidden)
        self.second = nn.Parameter(torch.empty(n, hidden, outputs))
        self.bias = nn.Parameter(torch.zeros(n, outputs))
        nn.init.uniform_(self.second, -(hidden**-0.5), hidden**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.first(x).relu().view(len(x), self.n, -1)
        return (torch.einsum("bnh,nho->bno", inner, self.second) + self.bias).relu()


class HybridExpert(Sided):
    Config = HybridExpertConfig

    def __init__(self, du: int, di: int, width: int, config: HybridExpertConfig) -> None:
        super().__init__(du, di)
        if len(self.widths) == 2 and config.shared:
            one_space("hybrid-expert", du, di)
        n, sizes = config.shared + config.dedicated, self.widths.items()
        self.shared = Experts(config.shared, max(du, di), config.hidden, width) if config.shared else None
        self.own = nn.ModuleDict({name: Experts(config.dedicated, wide, config.hidden, width) for name, wide in sizes})
        self.gates = nn.ModuleDict({name: nn.Linear(wide, n, bias=False) for name, wide in sizes})

    def side(self, name: str, x: Tensor) -> Tensor:
        experts = [self.own[name](x)] if self.shared is None else [self.shared(x), self.own[name](x)]
        shares = self.gates[name](x).softmax(1)
        return torch.bmm(shares[:, None], torch.cat(experts, 1))
