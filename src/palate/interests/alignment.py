"""Which of several candidates will be liked? A small model of people's feedback re-ranks what a novelty model names.

User Feedback Alignment (Wang et al. 2025, arXiv 2504.05522): a model of its own, pointwise, over feedback aggregated
over the people who share the interests; the best of n goes into the table. The published one is a language model;
here a ridge regression reads the names' vectors and counts, so that it costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from palate.data.dataset import FloatArray, IntArray
from palate.errors import InputError

Numbers = npt.NDArray[np.integer]


class AlignmentConfig(BaseModel):
    """How feedback is aggregated and how much is learnt from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    least: int = Field(default=1, ge=1, description="people who share the interests; rows of fewer are left out")
    step: float = Field(default=0.1, gt=0, description="labels are rounded to multiples of this")
    ridge: float = Field(default=100.0, gt=0, description="weight of the squared coefficients, features of unit spread")


@dataclass(frozen=True)
class Feedback:
    """Aggregated rows: interests [n, k] (sorted) and a candidate [n], a label in 0..1, and how many people it is of."""

    tuples: IntArray
    candidate: IntArray
    label: FloatArray
    people: IntArray

    def __len__(self) -> int:
        return len(self.label)


def aggregated(tuples: Numbers, candidate: Numbers, signal: FloatArray, config: AlignmentConfig) -> Feedback:
    """Rows of the same interests and candidate become one: the mean of their signals, as its rank among all rows.

    Args:
        tuples: [n, k] the interests of a person when the candidate was met.
        candidate: [n] the interest met.
        signal: [n] what came of it, larger is better: a rating, dwell, or further events with the interest. NaN: not
            known.

    Raises:
        InputError: Columns of different lengths.
    """
    if not len(tuples) == len(candidate) == len(signal):
        got = f"{len(tuples)}, {len(candidate)}, {len(signal)} rows"
        raise InputError("The columns of the feedback differ in length.", got=got)
    known = np.isfinite(signal)
    keys = np.column_stack([np.sort(np.asarray(tuples), axis=1), candidate])[known]
    rows, place, count = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    mean = np.bincount(place.reshape(-1), signal[known], len(rows)) / np.maximum(count, 1)
    keep = count >= config.least
    label = np.round(_ranks(mean[keep]) / config.step) * config.step
    kept = rows[keep].astype(np.int32)
    return Feedback(kept[:, :-1], kept[:, -1], label.astype(np.float32), count[keep].astype(np.int32))


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mid-ranks in 0..1: the scale of a signal does not matter."""
    ordered = np.sort(values)
    both = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return np.asarray(both / (2 * max(1, len(values))))


@dataclass(frozen=True)
class Alignment:
    """The fitted model. `prior` is the mean label of each interest, shrunk to the mean of all."""

    vectors: FloatArray  # [C, d] of the names, unit length
    prior: FloatArray  # [C]
    weights: npt.NDArray[np.float64]
    centre: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]

    def scores(self, tuples: Numbers, candidates: Numbers) -> FloatArray:
        """How well candidates [n, m] will be liked after interests [n, k]; -1 scores -inf."""
        candidates = np.asarray(candidates)
        rows, places = np.nonzero(candidates >= 0)
        result = np.full(candidates.shape, -np.inf, dtype=np.float32)
        found = _features(self.vectors, self.prior, np.asarray(tuples)[rows], candidates[rows, places])
        result[rows, places] = ((found - self.centre) / self.spread) @ self.weights
        return result


def fit_alignment(feedback: Feedback, name_vectors: FloatArray, config: AlignmentConfig | None = None) -> Alignment:
    """Ridge regression of the labels, rows weighted by their people.

    Raises:
        InputError: No row of feedback is left.
    """
    config = config or AlignmentConfig()
    if not len(feedback):
        hint = f"Lower `least` (now {config.least}), or leave the candidates as they are."
        raise InputError("There is no feedback to align with.", hint=hint)
    weight = feedback.people.astype(np.float64)
    mean = float(np.average(feedback.label, weights=weight))
    n_interests, shrink = len(name_vectors), 5 * config.least
    total = np.bincount(feedback.candidate, weight * feedback.label, n_interests)
    counts = np.bincount(feedback.candidate, weight, n_interests)
    prior = ((total + shrink * mean) / (counts + shrink)).astype(np.float32)
    found = _features(name_vectors, prior, feedback.tuples, feedback.candidate)
    centre = np.asarray(np.average(found, axis=0, weights=weight), dtype=np.float64)
    spread = np.sqrt(np.asarray(np.average((found - centre) ** 2, axis=0, weights=weight), dtype=np.float64)) + 1e-9
    scaled = (found - centre) / spread
    gram = (scaled * weight[:, None]).T @ scaled + config.ridge * np.eye(found.shape[1])
    wanted = (scaled * weight[:, None]).T @ (feedback.label - mean)
    weights = np.asarray(np.linalg.solve(gram, wanted), dtype=np.float64)
    return Alignment(name_vectors, prior, weights, centre, spread)


def _features(vectors: FloatArray, prior: FloatArray, tuples: Numbers, candidate: Numbers) -> npt.NDArray[np.float64]:
    """Of each row: the candidate's prior, its name's likeness to each interest, and where the two agree."""
    known, new = vectors[tuples], vectors[candidate]  # [n, k, d], [n, d]
    likeness = np.einsum("nkd,nd->nk", known, new)
    product = known.mean(axis=1) * new
    near, far = likeness.max(axis=1), likeness.min(axis=1)
    columns = [prior[candidate], prior[tuples].mean(axis=1), near, far, near * prior[candidate]]
    return np.column_stack([*columns, product]).astype(np.float64)


def best_of(
    alignment: Alignment, tuples: Numbers, candidates: Numbers, probabilities: FloatArray, share: float = 1.0
) -> tuple[IntArray, FloatArray]:
    """The candidates of each row [n, m] re-ranked, the best first, with their probabilities as they were.

    Args:
        share: How much alignment counts against the novelty model: 1 alignment alone, 0 the order as it was. Both
            are compared as ranks within the row.
    """
    candidates = np.asarray(candidates)
    liked = _places(alignment.scores(tuples, candidates))
    likely = _places(np.where(candidates >= 0, np.nan_to_num(probabilities), -np.inf).astype(np.float32))
    order = np.argsort(share * liked + (1 - share) * likely, axis=1, kind="stable")
    return (
        np.take_along_axis(candidates, order, axis=1).astype(np.int32),
        np.take_along_axis(probabilities, order, axis=1),
    )


def _places(scores: FloatArray) -> IntArray:
    """The place of each in its row, 0 for the largest."""
    order = np.argsort(-scores, axis=1, kind="stable")
    places = np.empty(order.shape, dtype=np.int32)
    np.put_along_axis(places, order, np.arange(order.shape[1], dtype=np.int32)[None].repeat(len(order), 0), axis=1)
    return places
