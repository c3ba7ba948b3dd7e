"""What exploration is worth: is the next new interest found, how even are the answers, what does a slate gain and cost.

Pure functions on arrays. Wang et al. 2024 (arXiv 2405.16363), section 4, measured there on live traffic, is measured
here on what people did later: an impression is an item of a slate, positive if the person took it afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray, IntArray
from palate.data.query import Query
from palate.evaluation.ranking import NOBODY, mask_seen, top_n
from palate.interests.next_interest import best
from palate.interests.policy import interleave, restricted_softmax

Values = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
SLATE = 10


def found_interest(scores: FloatArray, known: Flags, labels: IntArray, k: int) -> Values:
    """1 where the interest met next is among the `k` best not yet known, else 0; [n]."""
    return np.asarray((best(scores, known, k) == labels[:, None]).any(axis=1), dtype=np.float64)


def gini(counts: npt.NDArray[np.integer] | Values) -> float:
    """How unevenly `counts` [n] are shared: 0 all alike, towards 1 one has all."""
    ordered = np.sort(np.asarray(counts, dtype=np.float64))
    if ordered.sum() == 0:
        return 0.0
    n = len(ordered)
    return float(((2 * np.arange(1, n + 1) - n - 1) * ordered).sum() / (n * ordered.sum()))


@dataclass(frozen=True)
class Evenness:
    """Of the first answers: Gini of how often each interest is one, and the share that never is."""

    gini: float
    never: float


def evenness(answers: Numbers, n_interests: int) -> Evenness:
    """`answers` are interests; -1 is none."""
    counts = np.bincount(answers[answers >= 0], minlength=n_interests)
    return Evenness(gini(counts), float((counts == 0).mean()))


def resampled_evenness(
    a: Numbers, b: Numbers, n_interests: int, n_resamples: int = 1000, seed: int = 0
) -> tuple[Values, Values]:
    """Differences a - b of Gini and of the never-answered share, [n_resamples] each, over the same drawn pairs."""
    rng, differences = np.random.default_rng(seed), []
    for _ in range(n_resamples):
        rows = rng.integers(0, len(a), len(a))
        first, second = evenness(a[rows], n_interests), evenness(b[rows], n_interests)
        differences.append((first.gini - second.gini, first.never - second.never))
    found = np.array(differences).reshape(-1, 2)
    return found[:, 0], found[:, 1]


@dataclass(frozen=True)
class Lists:
    """Best first for each query: by the sequence model, and by it within the interests explored; -1 fills up."""

    plain: Numbers  # [q, n]
    within: Numbers  # [q, n]

    def slates(self, share: float, n: int = SLATE) -> Numbers:
        """[q, n]: both mixed as serving mixes them, `share` of the places explored."""
        # A hair for the sequence, so that it fills what the explored interests are too small for.
        shares = {"sequence": max(1 - share, 1e-9), "exploration": share}
        result = np.full((len(self.plain), n), NOBODY, dtype=np.int64)
        for row, lists in enumerate(zip(self.plain.tolist(), self.within.tolist(), strict=True)):
            scored = [[(item, 0.0) for item in items if item >= 0] for items in lists]
            mixed = interleave(dict(zip(shares, scored, strict=True)), shares, n)
            result[row, : len(mixed)] = [item for item, _, _ in mixed]
        return result


def ranked(scores: FloatArray, queries: Sequence[Query], n: int = SLATE) -> Numbers:
    """The `n` best items that the person has not met, [q, n]."""
    return top_n(mask_seen(scores, [query.history for query in queries]), n)


def ranked_within(
    scores: FloatArray,
    queries: Sequence[Query],
    interest_of: IntArray,
    interests: Numbers,
    n: int = SLATE,
    temperature: float = 0.0,
    seed: int = 0,
) -> Numbers:
    """The restricted softmax of `scores` [q, n_items] over the items of `interests` [q, s] (-1: none), [q, n]."""
    result = np.full((len(queries), n), NOBODY, dtype=np.int64)
    rng = np.random.default_rng(seed)
    for row, (query, wanted) in enumerate(zip(queries, interests, strict=True)):
        allowed = np.isin(interest_of, wanted[wanted >= 0])
        allowed[query.history] = False
        items = np.flatnonzero(allowed).astype(np.int32)
        taken, _ = restricted_softmax(items, scores[row, items], n, temperature, rng)
        result[row, : len(taken)] = taken
    return result


def novelty(slates: Numbers, known: Flags, interest_of: IntArray) -> Values:
    """Share of a slate in interests that the person has not met (novel impression ratio), [q]; NaN for none."""
    shown = slates >= 0
    new = shown & ~np.take_along_axis(known, interest_of[np.maximum(slates, 0)], axis=1)
    total = shown.sum(axis=1)
    return np.where(total > 0, new.sum(axis=1) / np.maximum(total, 1), np.nan)


def taken(slates: Numbers, targets: Sequence[IntArray]) -> Flags:
    """Which items of each slate the person took later, [q, n]."""
    return np.stack([np.isin(row, items) & (row >= 0) for row, items in zip(slates, targets, strict=True)])


def interests_taken(slates: Numbers, hits: Flags, interest_of: IntArray) -> Numbers:
    """Of how many different interests each person took something out of the slate (UCI), [q]."""
    return np.array(
        [len(set(interest_of[row[hit]].tolist())) for row, hit in zip(slates, hits, strict=True)], dtype=np.int64
    )
