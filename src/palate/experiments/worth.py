"""What knowledge is worth: one recommender with it, without it, and with each control in its place.

The recommender is fixed: a base model's scores plus a weight times how near an item's knowledge is to the mean
knowledge of the history. Only the knowledge changes. The weight is chosen on validation for each arm of the control
suite, zero included, so that useless knowledge can be turned down; the test is looked at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray, IntArray
from palate.data.splits import Holdout
from palate.evaluation.bootstrap import Interval, bootstrap_mean
from palate.evaluation.ranking import mask_seen, ndcg_at, ranks, recall_at
from palate.experiments.controls import OFF, Arm, ControlSuite, run_controls
from palate.knowledge.clusters import unit
from palate.models.recommender import Recommender

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)  # standard deviations of the base score for one of nearness
_BATCH = 500
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Worth:
    """The suite of NDCG, and of each arm recall and the weight that validation chose (of the first seed)."""

    suite: ControlSuite
    recall: dict[str, Interval]
    weight: dict[str, float]

    def rows(self) -> list[dict[str, object]]:
        """One row an arm. `against_off` is the paired difference to the base model alone."""
        return [
            {
                "knowledge": name,
                "weight": self.weight[name],
                "ndcg": figure,
                "recall": self.recall[name],
                "against_off": Interval(0.0, 0.0, 0.0) if name == OFF else self.suite.contrast(name, OFF).difference,
                "tokens": self.suite.tokens[name],
                "survives": self.suite.survives.get(name),
            }
            for name, figure in self.suite.judged.figures.items()
        ]


class _Base:
    """A model's scores for a holdout, standardised row by row, seen items masked, kept for all weights and arms."""

    def __init__(self, model: Recommender, held: Holdout) -> None:
        self.held = held
        self.batches: list[tuple[slice, FloatArray, csr_matrix]] = []
        for start in range(0, len(held.queries), _BATCH):
            part = slice(start, start + _BATCH)
            queries = held.queries[part]
            raw = model.score(queries)
            scores = raw - raw.mean(axis=1, keepdims=True)
            spread = scores.std(axis=1, keepdims=True)
            standard = scores / np.where(spread > 0, spread, 1)
            histories = [query.history for query in queries]
            self.batches.append((part, mask_seen(standard, histories), _means(histories, raw.shape[1])))

    def judge(self, items: FloatArray, weight: float, n: int) -> tuple[Values, Values]:
        """NDCG@n and recall@n of each query with the item vectors `items` [n_items, d] at `weight`."""
        found: list[tuple[Values, Values]] = []
        for part, base, means in self.batches:
            scores: FloatArray = base
            if weight and items.shape[1]:
                scores = np.asarray(base + weight * (unit(means @ items) @ items.T), dtype=np.float32)
            places = ranks(scores, self.held.targets[part])
            found.append((ndcg_at(places, n), recall_at(places, n)))
        return np.concatenate([a for a, _ in found]), np.concatenate([b for _, b in found])


def worth(
    model: Recommender,
    validation: Holdout,
    test: Holdout,
    knowledge: Sequence[Arm],
    raw: Arm | None,
    n: int = 10,
    seeds: int = 5,
) -> Worth:
    """Each kind of knowledge, and its controls, on the same queries.

    Args:
        model: The fitted base recommender.
        validation, test: Queries with at least one event in their history.
        knowledge, raw: Item vectors; see `run_controls`.
        seeds: Of noise and permutations; all else is the same for each.
    """
    chosen_on, judged_on = _Base(model, validation), _Base(model, test)
    users = [query.user_id for query in test.queries]
    hits: dict[str, Values] = {}
    chosen: dict[str, float] = {}
    known: dict[bytes, Values] = {}

    def judge(arm: Arm, seed: int) -> Values:
        items = np.zeros((0, 0), np.float32) if arm.item is None else unit(_standard(arm.item))
        key = items.tobytes()
        if key not in known:  # all but noise and permutations are the same for every seed
            weights = WEIGHTS if items.size else (0.0,)
            best = max(weights, key=lambda weight: float(np.nanmean(chosen_on.judge(items, weight, n)[0])))
            known[key], found = judged_on.judge(items, best, n)
            hits.setdefault(arm.name, found)
            chosen.setdefault(arm.name, best)
        return known[key]

    suite = run_controls(knowledge, raw, judge, users, f"NDCG@{n}", seeds=seeds)
    return Worth(suite, {name: bootstrap_mean(found, users) for name, found in hits.items()}, chosen)


def _means(histories: Sequence[IntArray], n_items: int) -> csr_matrix:
    """[q, n_items]: its product with item vectors is the mean vector of each history."""
    from scipy.sparse import csr_matrix

    counts = np.array([len(history) for history in histories])
    shares = np.repeat(1 / np.maximum(counts, 1), counts).astype(np.float32)
    columns = np.concatenate([*histories, np.zeros(0, np.int32)])
    return csr_matrix((shares, columns, np.cumsum([0, *counts])), (len(histories), n_items))


def _standard(vectors: FloatArray) -> FloatArray:
    """Columns with mean 0 and spread 1, so that rare attributes count as much as common ones."""
    if not vectors.shape[1]:
        return vectors
    spread = vectors.std(axis=0)
    return np.asarray((vectors - vectors.mean(axis=0)) / np.where(spread > 0, spread, 1), dtype=np.float32)
