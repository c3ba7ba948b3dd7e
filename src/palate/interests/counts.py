"""Next interests without a language model: the count table, the popularity of interests, the nearest by vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray, IntArray
from palate.interests.meetings import Meetings, pair_numbers
from palate.interests.next_interest import without_own

Counts = npt.NDArray[np.float64]
STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # searched on validation; larger: the pair itself says less


@dataclass(frozen=True)
class InterestPopularity:
    """How often each interest was met at all in training, whatever went before."""

    shares: Counts  # [n_interests]
    name: str = "popularity of interests"

    @classmethod
    def of(cls, meetings: Meetings, n_interests: int) -> InterestPopularity:
        counts = np.bincount(meetings.label, minlength=n_interests) + 1.0
        return cls(counts / counts.sum())

    def scores(self, pairs: IntArray) -> FloatArray:
        return without_own(np.tile(np.log(self.shares), (len(pairs), 1)).astype(np.float32), pairs)


@dataclass(frozen=True)
class NearestInterest:
    """The interest whose mean item vector is nearest by cosine to those of the pair."""

    centres: FloatArray  # [n_interests, d], unit length
    name: str = "nearest by vector"

    @classmethod
    def of(cls, vectors: FloatArray, interest_of: IntArray, n_interests: int) -> NearestInterest:
        """`vectors` [n_items, d]. An interest without items is never near."""
        sums = np.zeros((n_interests, vectors.shape[1]), dtype=np.float32)
        np.add.at(sums, interest_of, vectors)
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        return cls((sums / np.where(length > 0, length, 1)).astype(np.float32))

    def scores(self, pairs: IntArray) -> FloatArray:
        near = self.centres @ self.centres.T
        return without_own(near[pairs].mean(axis=1), pairs)


class CountTable:
    """P(c3 | c1, c2) by counting, backed off to c1 and c2 alone and from there to popularity.

    P(c | pair) = (n(pair, c) + a · P₁(c)) / (n(pair) + a), P₁ the mean over the pair's interests i of
    (n(i, c) + b · P₀(c)) / (n(i) + b), P₀ the interest's share of all meetings, one added to each. `a` and `b` are
    pseudo-counts of the lower order (MacKay & Peto 1995).

    Args:
        meetings: Of training.
        n_interests: How many there are.
        pair_strength: a.
        single_strength: b.
    """

    name = "count table"

    def __init__(
        self, meetings: Meetings, n_interests: int, pair_strength: float = 30.0, single_strength: float = 30.0
    ) -> None:
        self.pair_strength, self.single_strength = pair_strength, single_strength
        self.n_interests = n_interests
        popularity = InterestPopularity.of(meetings, n_interests).shares
        numbers = pair_numbers(meetings.pair, n_interests)
        self._pairs, row = np.unique(numbers, return_inverse=True)
        self._of_pair = np.zeros((len(self._pairs) + 1, n_interests))  # the last row: pairs never met
        np.add.at(self._of_pair, (row, meetings.label), 1.0)
        single = np.zeros((n_interests, n_interests))
        for column in meetings.pair.T:
            np.add.at(single, (column, meetings.label), 1.0)
        self._single = _mixed(single, np.tile(popularity, (n_interests, 1)), single_strength)

    def probabilities(self, pairs: IntArray) -> Counts:
        """[n, n_interests], rows sum to 1; the pair's own interests are not left out."""
        numbers = pair_numbers(pairs, self.n_interests)
        place = np.searchsorted(self._pairs, numbers)
        met = np.append(self._pairs, -1)[place] == numbers
        counts = self._of_pair[np.where(met, place, len(self._pairs))]
        return _mixed(counts, self._single[pairs].mean(axis=1), self.pair_strength)

    def scores(self, pairs: IntArray) -> FloatArray:
        return without_own(np.log(self.probabilities(pairs)).astype(np.float32), pairs)


def chosen_count_table(
    train: Meetings, validation: Meetings, n_interests: int, strengths: Sequence[float] = STRENGTHS
) -> CountTable:
    """The table whose strengths make the validation meetings the likeliest; without any, the strongest back-off."""
    tables = [CountTable(train, n_interests, a, b) for b in strengths for a in strengths]
    if not len(validation):
        return tables[-1]
    rows = np.arange(len(validation))
    likelihood = [float(np.log(t.probabilities(validation.pair)[rows, validation.label]).mean()) for t in tables]
    return tables[int(np.argmax(likelihood))]


def _mixed(counts: Counts, lower: Counts, strength: float) -> Counts:
    return np.asarray((counts + strength * lower) / (counts.sum(axis=1, keepdims=True) + strength))
