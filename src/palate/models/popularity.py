"""Popularity: every query gets the items most met in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from palate.data.dataset import Dataset, FloatArray, IntArray
from palate.data.query import Query
from palate.data.splits import Holdout
from palate.errors import PalateError
from palate.knowledge.tables import Knowledge
from palate.models.search_space import SearchSpace


class PopularityConfig(BaseModel):
    """Of `Popularity`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    search: ClassVar[SearchSpace] = {"half_life": (None, 1.0, 7.0, 30.0, 90.0, 365.0)}

    half_life: float | None = Field(
        default=None, gt=0, description="days after which an event counts half, from the newest one; None: all alike"
    )


class Popularity:
    """A `Recommender` that scores an item by its (perhaps fading) number of events."""

    name = "popularity"

    def __init__(self, config: PopularityConfig | None = None) -> None:
        self.config = config or PopularityConfig()
        self._counts: FloatArray | None = None

    def fit(self, dataset: Dataset, knowledge: Knowledge | None = None, validation: Holdout | None = None) -> Self:
        histories = dataset.histories
        weights = None
        if self.config.half_life is not None and len(histories.times):
            days = (histories.times.max() - histories.times) / 86_400e6
            weights = 0.5 ** (days / self.config.half_life)
        self._counts = np.bincount(histories.items, weights, dataset.n_items).astype(np.float32)
        return self

    def score(self, queries: Sequence[Query], items: IntArray | None = None) -> FloatArray:
        if self._counts is None:
            raise PalateError("The model has not been fitted", where=self.name, hint="call fit first")
        counts = self._counts if items is None else self._counts[items]
        return np.tile(counts, (len(queries), 1))
