"""`Asked` and `Candidates`: what a source of candidates is given, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from palate.data.dataset import FloatArray, IntArray
from palate.data.query import Query
from palate.serving.load import Snapshot
from palate.serving.pipeline_config import PipelineConfig
from palate.serving.reasons import Reason


@dataclass(frozen=True)
class Asked:
    """A question. `query` has the history that models can read, `away` all that is not to be shown again."""

    snapshot: Snapshot
    query: Query
    vectors: FloatArray  # [1, d], of the query; zeros without a history
    n: int  # items of the slate
    away: IntArray
    rng: np.random.Generator
    moment: int | None  # microseconds since the epoch
    config: PipelineConfig

    @property
    def pool(self) -> int:
        """Candidates of a list: twice as many as wanted, for the same item may come from several sources."""
        return 2 * self.n

    def is_about(self, *fields: str) -> bool:
        """Whether the restrict says anything of the fields."""
        return self.query.restrict is not None and self.query.restrict.is_about(*fields)

    def seen(self) -> tuple[IntArray | None, dict[str, IntArray]]:
        """What is left out, and the sets a restrict may name. One that speaks of `seen` decides of it alone."""
        return None if self.is_about("seen") else self.away, {"seen": self.away}


@dataclass(frozen=True)
class Candidates:
    """Of one source, best first, with a way to say why.

    `chance` is that of these being the source's candidates at all (None: not known), where that is drawn. `weights`
    are given where their order is drawn: the chance that an item is the first of some of them is its share of theirs.
    """

    source: str
    items: IntArray
    scores: FloatArray
    why: Callable[[int], Reason]
    chance: float | None = 1.0
    weights: Mapping[int, float] | None = None


Source = Callable[[Asked], list[Candidates]]
"""Each list gets an equal part of the source's share."""


def retrieved(
    asked: Asked, source: str, query: Query, n: int, why: Callable[[int], Reason], probe: int = 0
) -> Candidates:
    """The `n` items nearest to the query vector under the restrict of `query`, seen items left out."""
    exclude, sets = asked.seen()
    items, scores = asked.snapshot.index.search(asked.vectors, query.restrict, n, exclude, sets, probe)
    found = items[0] >= 0
    return Candidates(source, items[0][found], scores[0][found], why)
