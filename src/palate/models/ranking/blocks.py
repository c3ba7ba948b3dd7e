"""What backbones are made of. Shapes: b rows, f fields, d width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn


class BackboneConfig(BaseModel):
    """What all backbones share; KAR's sizes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden: tuple[int, ...] = Field(default=(200, 80), description="widths of the hidden layers of the deep part")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="after each hidden layer")
    outputs: int = Field(default=1, ge=1, description="numbers a row comes to: 1 logit, or the width of an expert")


class Factory(Protocol):
    """A class of backbones. `Config` holds what can be set."""

    Config: ClassVar[type[BackboneConfig]]

    def __call__(self, n_fields: int, width: int, config: BackboneConfig) -> nn.Module: ...


class Mlp(nn.Module):
    """Hidden layers with ReLU and dropout, [b, n] to [b, last width]; then a linear layer to `outputs`, where given."""

    def __init__(self, n: int, hidden: Sequence[int], dropout: float, outputs: int | None = None) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(n, width), nn.ReLU(), nn.Dropout(dropout)]
            n = width
        if outputs is not None:
            layers.append(nn.Linear(n, outputs))
            n = outputs
        self.layers, self.size = nn.Sequential(*layers), n

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


def squeezed(x: Tensor) -> Tensor:
    """[b, 1] to [b]; wider ones stay."""
    return x[:, 0] if x.shape[1] == 1 else x


def pairs_of(n_fields: int) -> tuple[Tensor, Tensor]:
    """Row and column of each of the f (f - 1) / 2 pairs."""
    both = torch.triu_indices(n_fields, n_fields, 1)
    return both[0], both[1]
