"""One MLP a side: what KAR's adaptor is measured against in its own ablation (arXiv 2306.10933)."""

from __future__ import annotations

from pydantic import Field

from palate.models.adapters.adapter import AdapterConfig, Mapped


class PlainConfig(AdapterConfig):
    """Plain MLP."""

    hidden: int = Field(default=128, ge=1, description="units of the hidden layer")


class Plain(Mapped):
    """k = max(0, W2 max(0, W1 x + b1) + b2) for each side."""

    Config = PlainConfig

    def __init__(self, du: int, di: int, width: int, config: PlainConfig) -> None:
        super().__init__(du, di, config.hidden, width)
