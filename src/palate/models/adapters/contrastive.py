"""TRAWL's contrastive adapter (arXiv 2403.06642): knowledge is drawn to the behaviour of the same user and item.

L = L_CTR + λ Σ_t InfoNCE(k_t, z_t): of all rows of the batch the own behaviour z (the mean of the user's history, the
item's ids) is to be told by the knowledge k; rows of the same item or with nothing known are no negatives. The paper's
equations could not be read: this is the usual InfoNCE (van den Oord et al. 2018) over cosines.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from palate.models.adapters.adapter import AdapterConfig, Mapped, known


class ContrastiveConfig(AdapterConfig):
    """Contrastive adapter."""

    hidden: int = Field(default=128, ge=1, description="units of the hidden layer")
    weight: float = Field(default=0.02, ge=0, description="λ, of the contrastive term in the loss")
    temperature: float = Field(default=0.1, gt=0, description="by which cosines are divided")


class Contrastive(Mapped):
    Config = ContrastiveConfig

    def __init__(self, du: int, di: int, width: int, config: ContrastiveConfig) -> None:
        super().__init__(du, di, config.hidden, width)
        self.config = config
        self._made: dict[str, tuple[Tensor, Tensor]] = {}  # fields, and whether anything was known
        self._behaviour: dict[str, Tensor] = {}

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        fields, given = super().forward(user, item), {"user": user, "item": item}
        self._made = {name: (fields[:, place], known(given[name])) for place, name in enumerate(self.widths)}
        self._behaviour = {}
        return fields

    def beside(self, user: Tensor, item: Tensor) -> None:
        """The behaviour of the rows of the last forward pass, [b, d] each."""
        self._behaviour = {"user": user, "item": item}

    def auxiliary(self) -> Tensor:
        terms = [
            info_nce(fields, self._behaviour[name], there, self.config.temperature)
            for name, (fields, there) in self._made.items()
            if name in self._behaviour
        ]
        return self.config.weight * torch.stack(terms).sum() if terms else torch.zeros(())


def info_nce(knowledge: Tensor, behaviour: Tensor, known: Tensor, temperature: float) -> Tensor:
    """Mean over known rows of −log softmax_j(cos(k_i, z_j) / τ) at j = i; rows with the behaviour of i are left out."""
    rows = (known > 0) & behaviour.ne(0).any(1)
    if int(rows.sum()) < 2:
        return knowledge.sum() * 0.0
    k, z = F.normalize(knowledge[rows], dim=1), F.normalize(behaviour[rows], dim=1)
    cosines = k @ z.T / temperature
    same = torch.unique(z.detach(), dim=0, return_inverse=True)[1]
    twins = (same[:, None] == same[None, :]) & ~torch.eye(len(k), dtype=torch.bool, device=k.device)
    return F.cross_entropy(cosines.masked_fill(twins, -torch.inf), torch.arange(len(k), device=k.device))
