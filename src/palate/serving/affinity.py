"""What a person is drawn to: which attributes a history has more often than the catalogue, and by how much for sure.

The trigger of personalised restricted retrieval (Long et al., "LLM-as-annotators", RecSys 2025, arXiv 2510.06657, step
5): history and labels decide which attribute restricts a person's retrieval. The paper does not say how; this is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from palate.data.dataset import IntArray
from palate.serving.columns import ItemColumns


class AffinityConfig(BaseModel):
    """When a person counts as drawn to an attribute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    least_lift: float = Field(default=1.2, gt=0, description="attribute's share of the history over its base rate")
    prior_events: float = Field(default=5.0, ge=0, description="events at the base rate added to each history")
    least_surprise: float = Field(
        default=0.0, description="standard deviations by which the history must exceed what chance gives"
    )
    half_life: float = Field(default=0.0, ge=0, description="events after which one weighs half as much; 0: all alike")
    restricts: int = Field(
        default=1, ge=1, description="attributes that restrict at once, each with its own candidates"
    )


@dataclass(frozen=True)
class Affinity:
    """How much a history is drawn to an attribute. `lift` has `prior_events` at the base rate added."""

    share: float  # of the history
    base: float  # of the catalogue
    lift: float  # share over base, smoothed
    surprise: float = 0.0  # standard deviations above what a history drawn from the catalogue would have


def affinities(columns: ItemColumns, history: IntArray, config: AffinityConfig) -> dict[str, Affinity]:
    """For each attribute that any item has; an empty history has a lift of 1."""
    n_items = len(columns.tree.order)
    having = columns.attributes_of(columns.tree.position[history].astype(np.int64))
    weights = None
    events, spread = float(len(history)), math.sqrt(len(history))
    if config.half_life:
        weights = 0.5 ** (np.arange(len(history))[::-1] / config.half_life)
        events, spread = float(weights.sum()), math.sqrt((weights * weights).sum())
    found = {}
    for name, column in columns.values.get("attr", {}).items():
        base = column.count / n_items
        if base == 0:
            continue
        hits = float(np.count_nonzero(having[name]) if weights is None else weights @ having[name])
        smoothed = events + config.prior_events
        lift = (hits + config.prior_events * base) / smoothed / base if smoothed > 0 else 1.0
        deviation = spread * math.sqrt(base * (1 - base))
        surprise = (hits - events * base) / deviation if deviation > 0 else 0.0
        found[name] = Affinity(hits / max(events, 1e-9), base, lift, surprise)
    return found


def triggered(found: Mapping[str, Affinity], config: AffinityConfig) -> list[str]:
    """The attributes that restrict the person's retrieval, the strongest first, at most `restricts`."""
    strong = [
        name
        for name, each in found.items()
        if each.lift >= config.least_lift and each.surprise >= config.least_surprise
    ]
    return sorted(strong, key=lambda name: -found[name].lift)[: config.restricts]
