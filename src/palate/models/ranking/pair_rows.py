"""Rows for a `PairRanker`: what people chose after the retriever's training, beside what it would have proposed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from palate.data.dataset import FloatArray, IntArray
from palate.data.query import Query
from palate.models.ranking.pairs import Items, Pairs, joined, pairs

OTHERS = 9  # items beside each chosen one
_NEAR = 200  # best by inner product, which candidates are drawn from


def group_rows(
    queries: Sequence[Query],
    chosen: IntArray,
    vectors: FloatArray,
    items: Items,
    base: FloatArray,
    recent: int = 50,
    others: int = OTHERS,
    seed: int = 0,
) -> Pairs:
    """Groups of one chosen item and `others`: two in three of the `_NEAR` nearest to the query, the rest by popularity.

    Take queries that the retriever did not learn from: on those that it did, its scores say too much.

    Args:
        chosen: [q] item_nums, of each query the item that was chosen.
        vectors: [q, d], of the queries.
        items: Of the whole catalogue, by item_num.
        base: [A], mean labels of the catalogue.
        recent: Events of a history that are read.
    """
    rng = np.random.default_rng(seed)
    weights = items.popularity.astype(np.float64) + 1
    popular = np.cumsum(weights / weights.sum())
    parts = []
    for query, item, vector in zip(queries, chosen.tolist(), vectors, strict=True):
        scores = items.vectors @ vector
        scores[query.history] = -np.inf
        near = np.argpartition(-scores, min(_NEAR, len(scores) - 1))[:_NEAR]
        drawn = np.append(
            rng.choice(near, min(2 * others // 3, len(near)), replace=False),
            np.minimum(np.searchsorted(popular, rng.random(4 * others)), len(popular) - 1),
        )
        beside = [other for other in dict.fromkeys(drawn.tolist()) if other != item][:others]
        if len(beside) == others:
            rows = np.array([item, *beside], dtype=np.int32)
            parts.append(pairs(vector, items.take(query.history[-recent:]), items.take(rows), base))
    return joined(parts)
