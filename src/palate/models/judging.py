"""How an epoch is judged: NDCG@10 over held-out queries, seen items masked."""

from __future__ import annotations

import numpy as np

from palate.data.splits import Holdout
from palate.evaluation.ranking import mask_seen, ndcg, top_n
from palate.models.recommender import Recommender

_BATCH = 512  # queries scored at a time: bounds the memory


def thinned(held: Holdout | None, most: int) -> Holdout | None:
    """At most `most` queries, evenly over time; None where there are none."""
    if held is None or not held.queries:
        return None
    picked = np.linspace(0, len(held.queries) - 1, min(len(held.queries), most)).astype(int)
    return Holdout([held.queries[i] for i in picked], [held.targets[i] for i in picked])


def mean_ndcg(model: Recommender, held: Holdout) -> float:
    """The mean NDCG@10 of `model` over `held`."""
    total = 0.0
    for start in range(0, len(held.queries), _BATCH):
        queries, targets = held.queries[start : start + _BATCH], held.targets[start : start + _BATCH]
        scores = mask_seen(model.score(queries), [query.history for query in queries])
        total += float(np.nansum(ndcg(top_n(scores, 10), targets, 10)))
    return total / len(held.queries)
