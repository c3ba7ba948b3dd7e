"""`Asked` and `Candidates`: what a source of candidates is given, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from palate.data.dataset import FloatArray, IntArray
from palate.data.query import Query
from palate.serving.columns import Positions
from palate.serving.opened import Snapshot
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

    def pool(self, source: str) -> int:
        """Candidates of a list: more than its places, for the same item may come from several sources, or none at all
        from others; of the source with the greatest share twice as many as are wanted in all."""
        shares = self.config.sources
        most = max(shares.values())
        if shares.get(source, 0.0) >= most or self.config.rank == "across":
            return 2 * self.n
        return min(2 * self.n, 5 + int(3 * self.n * shares[source] / sum(shares.values())))

    def is_about(self, *fields: str) -> bool:
        """Whether the restrict says anything of the fields."""
        return self.query.restrict is not None and self.query.restrict.is_about(*fields)

    @cached_property
    def seen(self) -> tuple[IntArray | None, dict[str, IntArray]]:
        """What is left out, and the sets that the restrict names. One that speaks of `seen` decides of it alone."""
        return (None, {"seen": self.away}) if self.is_about("seen") else (self.away, {})

    @cached_property
    def away_places(self) -> Positions:
        """Of what is left out, in leaf order."""
        return self.snapshot.index.places(self.seen[0])

    @cached_property
    def left_out(self) -> frozenset[int]:
        """item_nums that are not shown again, and those that are gone."""
        return frozenset([*([] if self.seen[0] is None else self.seen[0].tolist()), *self.snapshot.index.gone.tolist()])


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
    away, (exclude, sets) = asked.away_places, asked.seen
    items, scores = asked.snapshot.index.search(asked.vectors, query.restrict, n, exclude, sets, probe, away)
    found = int((items[0] >= 0).sum())
    return Candidates(source, items[0, :found], scores[0, :found], why)
