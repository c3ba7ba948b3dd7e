"""First-order transition counts: what did people meet next after this item?

On several public sets plain counts beat published neural results, so they are a bar for every sequence model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_matrix, diags_array

from palate.data.dataset import Dataset, FloatArray, IntArray
from palate.data.query import Query
from palate.data.splits import Holdout
from palate.errors import PalateError
from palate.knowledge.tables import Knowledge
from palate.models.search_space import Between, SearchSpace


class MarkovConfig(BaseModel):
    """Of `Markov`. The defaults are the plain chain: one step, the last item only."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    search: ClassVar[SearchSpace] = {
        "window": Between(1, 5),
        "recent": (1, 2, 3, 5, 10),
        "decay": Between(0.3, 1.0),
        "prior": Between(0.1, 20.0, log=True),
    }

    window: int = Field(default=1, ge=1, description="events ahead that count as next, the k-th with weight 1/k")
    recent: int = Field(default=1, ge=1, description="newest events that vote, each with `decay` of the next newer")
    decay: float = Field(default=0.5, gt=0, le=1, description="weight of a vote relative to the next newer event")
    prior: float = Field(
        default=1.0, gt=0, description="events' worth of popularity mixed into each row (Dirichlet smoothing)"
    )


class Markov:
    """A `Recommender`: score(j | ..., i) = (count(i -> j) + prior · share(j)) / (count(i) + prior).

    `share` is the item's share of all training events: the back-off where the last item was never followed by
    anything, and for an empty history. With `recent` > 1 the rows of several last items are averaged, the
    weights falling by `decay`.
    """

    name = "markov"

    def __init__(self, config: MarkovConfig | None = None) -> None:
        self.config = config or MarkovConfig()
        self._rows: csr_matrix | None = None

    def fit(self, dataset: Dataset, knowledge: Knowledge | None = None, validation: Holdout | None = None) -> Self:
        n, histories = dataset.n_items, dataset.histories
        owner = np.repeat(np.arange(dataset.n_users), np.diff(histories.offsets))
        counts = csr_matrix((n, n), dtype=np.float32)
        for step in range(1, self.config.window + 1):
            same = owner[step:] == owner[:-step]
            pair = histories.items[:-step][same], histories.items[step:][same]
            counts += csr_matrix((np.full(len(pair[0]), 1 / step, np.float32), pair), (n, n))
        mass = np.asarray(counts.sum(axis=1)).ravel() + self.config.prior
        self._rows = csr_matrix(diags_array((1 / mass).astype(np.float32)) @ counts)
        self._backoff = (self.config.prior / mass).astype(np.float32)  # [n]: weight of the shares after each item
        self._shares = (dataset.item_counts / max(1, dataset.events.height)).astype(np.float32)
        return self

    def score(self, queries: Sequence[Query], items: IntArray | None = None) -> FloatArray:
        if self._rows is None:
            raise PalateError("The model has not been fitted", where=self.name, hint="call fit first")
        votes = self._votes(queries)
        rest = 1.0 - np.asarray(votes.sum(axis=1)).ravel()  # 1 for an empty history, else 0
        backoff = votes @ self._backoff + rest
        rows, shares = (self._rows, self._shares) if items is None else (self._rows[:, items], self._shares[items])
        scores: FloatArray = (votes @ rows).toarray()
        scores += backoff[:, None].astype(np.float32) * shares
        return scores

    def _votes(self, queries: Sequence[Query]) -> csr_matrix:
        """[n_queries, n_items]; rows sum to 1, or to 0 without history."""
        recent = [query.history[-self.config.recent :] for query in queries]
        weights = [self.config.decay ** np.arange(len(items))[::-1] for items in recent]
        values = [w / w.sum() for w in weights]
        offsets = np.cumsum([0, *map(len, recent)])
        data = np.concatenate([*values, np.zeros(0)]).astype(np.float32)
        columns = np.concatenate([*recent, np.zeros(0, np.int32)])
        return csr_matrix((data, columns, offsets), (len(queries), len(self._shares)))
