"""Adapters by name. Other packages add theirs as entry points of the group `palate.adapters`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy.typing as npt
from torch import nn

from palate.data.dataset import FloatArray
from palate.models.adapters.adapter import Adapter
from palate.models.parts import configured, named

GROUP = "palate.adapters"
# name -> "module:Class"
ADAPTERS = {
    "hybrid-expert": "palate.models.adapters.hybrid_expert:HybridExpert",
    "mlp": "palate.models.adapters.plain:Plain",
    "contrastive": "palate.models.adapters.contrastive:Contrastive",
    "similarity": "palate.models.adapters.similarity:Similarity",
    "discrete": "palate.models.adapters.discrete:Discrete",
    "learn": "palate.models.adapters.learn:LearnAdapter",
    "cold-gate": "palate.models.adapters.cold_gate:ColdGate",
}
MakeAdapter = Callable[[int, int, int], nn.Module]


def adapter(name: str) -> Adapter:
    """The class of that name. Raises `InputError` where there is none."""
    return cast(Adapter, named(name, ADAPTERS, GROUP, "adapter"))


def fitted(
    name: str, users: FloatArray, items: FloatArray, counts: npt.ArrayLike, params: Mapping[str, Any] | None = None
) -> tuple[MakeAdapter, FloatArray, FloatArray]:
    """An adapter for these vectors: how it is made, and what it is to be given of users and of items.

    Args:
        users, items: [n_users, du] and [n_items, di]; rows of zeros say that nothing is known.
        counts: Training rows of each item, [n_items].

    Raises:
        InputError: No such adapter, or parameters that it does not have.
    """
    kind = adapter(name)
    config = configured(kind, params or {})
    if hasattr(kind, "prepared"):
        users, items = kind.prepared(users, config), kind.prepared(items, config)
    if hasattr(kind, "counted"):
        items = kind.counted(items, counts)
    return lambda du, di, width: kind(du, di, width, config), users, items
