"""What knowledge is worth: one recommender with it, without it, and with each control in its place.

The recommender is fixed: a base model's scores plus a weight times how near an item's knowledge is to the mean
knowledge of the history. Only the knowledge changes. The weight is chosen on validation for each kind of
knowledge, zero included, so that useless knowledge can be turned down; the test is looked at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray
from palate.data.splits import Holdout
from palate.evaluation.bootstrap import Interval, bootstrap_mean, paired_difference
from palate.evaluation.ranking import mask_seen, ndcg, recall, top_n
from palate.models.recommender import Recommender

WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)  # standard deviations of the base score for one of nearness
_BATCH = 500
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Worth:
    """One kind of knowledge. `against_off` is the paired difference to the base model alone."""

    knowledge: str
    weight: float
    ndcg: Interval
    recall: Interval
    against_off: Interval
    tokens: int | None  # None: not recorded


class _Base:
    """A model's scores for a holdout, standardised row by row, kept for all weights and kinds."""

    def __init__(self, model: Recommender, held: Holdout) -> None:
        self.held = held
        self.batches: list[tuple[slice, FloatArray]] = []
        for start in range(0, len(held.queries), _BATCH):
            part = slice(start, start + _BATCH)
            raw = model.score(held.queries[part])
            scores = raw - raw.mean(axis=1, keepdims=True)
            spread = scores.std(axis=1, keepdims=True)
            self.batches.append((part, (scores / np.where(spread > 0, spread, 1)).astype(np.float32)))

    def judge(self, items: FloatArray, weight: float, n: int) -> tuple[Values, Values]:
        """NDCG@n and recall@n of each query with the item vectors `items` [n_items, d] at `weight`."""
        found: list[tuple[Values, Values]] = []
        for part, base in self.batches:
            queries, targets = self.held.queries[part], self.held.targets[part]
            scores: FloatArray = base
            if weight and items.shape[1]:
                users = np.stack([items[query.history].mean(axis=0) for query in queries])
                scores = np.asarray(base + weight * (_unit(users) @ items.T), dtype=np.float32)
            top = top_n(mask_seen(scores, [query.history for query in queries]), n)
            found.append((ndcg(top, targets, n), recall(top, targets, n)))
        return np.concatenate([a for a, _ in found]), np.concatenate([b for _, b in found])


def worth(
    model: Recommender,
    validation: Holdout,
    test: Holdout,
    kinds: Mapping[str, tuple[FloatArray, int | None]],
    n: int = 10,
    seed: int = 0,
) -> list[Worth]:
    """Each kind of knowledge on the same queries.

    Args:
        model: The fitted base recommender.
        validation, test: Queries with at least one event in their history.
        kinds: Name to (item vectors [n_items, d], tokens it cost); `d = 0` is "off", which must be there.

    Returns:
        One row a kind, in order. Intervals are over users.
    """
    chosen_on, judged_on = _Base(model, validation), _Base(model, test)
    users = [query.user_id for query in test.queries]
    values: dict[str, tuple[float, Values, Values]] = {}
    for name, (vectors, _) in kinds.items():
        items = _unit(_standard(vectors))
        weights = WEIGHTS if items.shape[1] else (0.0,)
        best = max(weights, key=lambda weight: float(np.nanmean(chosen_on.judge(items, weight, n)[0])))
        values[name] = (best, *judged_on.judge(items, best, n))
    off = values["off"][1]
    return [
        Worth(
            name,
            weight,
            bootstrap_mean(gains, users, seed=seed),
            bootstrap_mean(hits, users, seed=seed),
            paired_difference(gains, off, users, seed=seed),
            kinds[name][1],
        )
        for name, (weight, gains, hits) in values.items()
    ]


def _standard(vectors: FloatArray) -> FloatArray:
    """Columns with mean 0 and spread 1, so that rare attributes count as much as common ones."""
    if not vectors.shape[1]:
        return vectors
    spread = vectors.std(axis=0)
    return np.asarray((vectors - vectors.mean(axis=0)) / np.where(spread > 0, spread, 1), dtype=np.float32)


def _unit(vectors: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)
