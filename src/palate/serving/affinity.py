"""What a person is drawn to: which attributes a history has more often than the catalogue, and by how much for sure.

The trigger of personalised restricted retrieval (Long et al., "LLM-as-annotators", RecSys 2025, arXiv 2510.06657, step
5): history and labels decide which attribute restricts a person's retrieval. The paper does not say how; this is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from palate.data.dataset import IntArray
from palate.serving.columns import ItemColumns

Floats = npt.NDArray[np.float64]


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
    names, measured = _measured(columns, history, config)
    return {name: Affinity(*row) for name, row in zip(names, np.stack(measured, axis=1).tolist(), strict=True)}


def triggered(columns: ItemColumns, history: IntArray, config: AffinityConfig) -> dict[str, Affinity]:
    """The attributes that restrict the person's retrieval, the strongest first, at most `restricts`."""
    names, measured = _measured(columns, history, config)
    _, _, lift, surprise = measured
    strong = np.flatnonzero((lift >= config.least_lift) & (surprise >= config.least_surprise))
    best = strong[np.argsort(-lift[strong], kind="stable")[: config.restricts]].tolist()
    return {names[row]: Affinity(*(float(values[row]) for values in measured)) for row in best}


def _measured(columns: ItemColumns, history: IntArray, config: AffinityConfig) -> tuple[list[str], tuple[Floats, ...]]:
    """Names of attributes, and the four numbers of `Affinity` of each."""
    names, bits, base, chance = columns.attribute_bits
    places = columns.tree.position[history]
    having = bits[:, places >> 3] >> (places & 7).astype(np.uint8) & 1  # [A, t]
    if config.half_life:
        weights = 0.5 ** (np.arange(len(history))[::-1] / config.half_life)
        hits, events, spread = having @ weights, float(weights.sum()), math.sqrt((weights * weights).sum())
    else:
        hits, events, spread = having.sum(axis=1, dtype=np.float64), float(len(history)), math.sqrt(len(history))
    smoothed, deviation = events + config.prior_events, spread * chance
    lift = (hits + config.prior_events * base) / smoothed / base if smoothed > 0 else np.ones(len(names))
    surprise = (hits - events * base) / np.where(deviation > 0, deviation, np.inf)
    return names, (hits / max(events, 1e-9), base, lift, surprise)
