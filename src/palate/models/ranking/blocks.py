"""What backbones are made of. Shapes: b rows, f fields, d width."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from palate.errors import InputError


class BackboneConfig(BaseModel):
    """What all backbones share; KAR's sizes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden: tuple[int, ...] = Field(default=(200, 80), description="widths of the hidden layers of the deep part")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="after each hidden layer")
    outputs: int = Field(default=1, ge=1, description="numbers a row comes to: 1 logit, or the width of an expert")


class Factory(Protocol):
    """A class of backbones. `Config` holds what can be set."""

    Config: ClassVar[type[BackboneConfig]]

    def __call__(self, n_fields: int, width: int, config: Any) -> nn.Module: ...


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


def auxiliary_of(modules: Iterable[nn.Module]) -> Tensor | float:
    """The sum of what the modules that have `auxiliary` add to the loss of their last forward pass."""
    terms: list[Tensor] = [module.auxiliary() for module in modules if hasattr(module, "auxiliary")]  # type: ignore[operator]
    return sum(terms)


class FieldAttention(nn.Module):
    """Fields attend to each other (AutoInt, 1810.11921, equations 5 to 8): [b, f, d] to [b, f, d]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = divided(width, heads)
        self.project = nn.Linear(width, 4 * width, bias=False)  # query, key, value, residual

    def forward(self, fields: Tensor) -> Tensor:
        b, f, d = fields.shape
        query, key, value, own = self.project(fields).chunk(4, -1)
        query, key, value = (x.view(b, f, self.heads, -1).transpose(1, 2) for x in (query, key, value))
        attention = torch.softmax(query @ key.transpose(2, 3), -1)
        return torch.relu((attention @ value).transpose(1, 2).reshape(b, f, d) + own)


def divided(width: int, heads: int) -> int:
    """`heads`; raises `InputError` where they do not divide the width."""
    if width % heads:
        raise InputError("The heads of the attention do not divide the width", got=f"{heads} heads, width {width}")
    return heads
