"""Similarity encoding (Tencent, KDD 2024, arXiv 2403.00793): how near user and item are in the source's own space.

w = cos(v_u, v_i), quantised to an integer and written in several bases (MNSE); each digit at each place of a base has
an embedding, those of a base are summed to one field. The ID embeddings are left alone: no vector is mapped at all.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from palate.models.adapters.adapter import AdapterConfig, known, one_space


class SimilarityConfig(AdapterConfig):
    """Similarity encoding."""

    bases: tuple[int, ...] = Field(default=(2, 3, 10), min_length=1, description="of the numeral systems, a field each")
    steps: int = Field(default=1000, ge=2, description="between cosines of -1 and 1")


class Similarity(nn.Module):
    Config = SimilarityConfig

    def __init__(self, du: int, di: int, width: int, config: SimilarityConfig) -> None:
        super().__init__()
        one_space("similarity", du, di)
        self.steps, self.bases = config.steps, config.bases
        self.places = [n_digits(config.steps - 1, base) for base in config.bases]
        self.tables = nn.ModuleList(
            nn.Embedding(base * places, width) for base, places in zip(self.bases, self.places, strict=True)
        )
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.01)  # type: ignore[arg-type]

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        steps = quantised(F.cosine_similarity(user, item, dim=1), self.steps)
        fields = []
        for base, places, table in zip(self.bases, self.places, self.tables, strict=True):
            slots = digits(steps, base, places) + base * torch.arange(places, device=steps.device)
            fields.append(table(slots).sum(1))
        both = known(user) * known(item)
        return torch.stack(fields, 1) * both[:, None, None]


def quantised(cosines: Tensor, steps: int) -> Tensor:
    """-1..1 to whole numbers 0..steps - 1."""
    return ((cosines.clamp(-1, 1) + 1) / 2 * (steps - 1)).round().long()


def n_digits(largest: int, base: int) -> int:
    """Digits that numbers up to `largest` need."""
    places = 1
    while largest >= base**places:
        places += 1
    return places


def digits(numbers: Tensor, base: int, places: int) -> Tensor:
    """[b] to [b, places], the lowest place first."""
    powers = torch.tensor([base**place for place in range(places)], device=numbers.device)
    return numbers[:, None] // powers % base
