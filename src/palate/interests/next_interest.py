"""Which interest next? What every method answers, and how its scores are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray, IntArray


class NextInterest(Protocol):
    """Scores every interest as the next one after a pair. Asked offline, for the table."""

    @property
    def name(self) -> str: ...

    def scores(self, pairs: IntArray) -> FloatArray:
        """[n, n_interests] for `pairs` [n, 2]; larger is likelier; the pair's own two are minus infinity."""
        ...


@dataclass(frozen=True)
class AtRandom:
    """A `NextInterest` that knows nothing."""

    n_interests: int
    seed: int = 0
    name: str = "at random"

    def scores(self, pairs: IntArray) -> FloatArray:
        drawn = np.random.default_rng(self.seed).random((len(pairs), self.n_interests), dtype=np.float32)
        return without_own(drawn, pairs)


def without_own(scores: FloatArray, pairs: IntArray) -> FloatArray:
    """A copy in which the interests of each pair are never answered."""
    result = np.array(scores, dtype=np.float32)
    np.put_along_axis(result, pairs.astype(np.int64), -np.inf, axis=1)
    return result


def best(scores: FloatArray, known: npt.NDArray[np.bool_], n: int) -> npt.NDArray[np.int64]:
    """The `n` best interests of each row that are not `known` [rows, n_interests]; -1 where there are no more."""
    masked = np.where(known, -np.inf, scores)
    order = np.argsort(-masked, axis=1, kind="stable")[:, :n]
    return np.where(np.isneginf(np.take_along_axis(masked, order, axis=1)), -1, order)


def reciprocal_rank(scores: FloatArray, labels: IntArray) -> float:
    """The mean of 1 / rank of the `labels` [n] by `scores` [n, n_interests].

    Half of what ties with a label comes before it, or a method that tells nothing apart would rank best.
    """
    own = np.take_along_axis(scores, labels[:, None].astype(np.int64), axis=1)
    tied = (scores == own).sum(axis=1) - 1
    return float((1 / (1 + (scores > own).sum(axis=1) + tied / 2)).mean())
