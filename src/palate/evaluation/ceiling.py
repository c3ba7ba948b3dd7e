"""How well people agree with each other, item by item: what a model can be asked to reach, and whether it does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.errors import InputError
from palate.evaluation.bootstrap import Interval

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ceiling:
    """A person against the majority of the others, and a model in that person's place, on the same `n` ratings."""

    n: int
    people_f1: Interval
    people_kappa: Interval
    model_f1: Interval
    model_kappa: Interval
    f1_lead: Interval  # model less people, paired
    kappa_lead: Interval


def against_others(
    humans: npt.ArrayLike, model: npt.ArrayLike, n_resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Ceiling:
    """Every person is held out in turn; person and model are both judged by the majority of the others.

    Counts are pooled over people. A rating does not count where the others are split or absent, or the model said
    nothing. Intervals are percentile bootstraps over items. Undefined figures are NaN.

    Args:
        humans: [n_people, n_items] of 1 and 0, NaN where a person left an item out.
        model: [n_items], the same.

    Raises:
        InputError: Shapes do not fit.
    """
    people, said = np.asarray(humans, dtype=np.float64), np.asarray(model, dtype=np.float64)
    if people.ndim != 2 or said.shape != people.shape[1:]:
        raise InputError("Ratings of people and model do not fit", got=f"{people.shape} and {said.shape}")
    known = ~np.isnan(people)
    yes = np.nansum(people, axis=0)[None, :] - np.where(known, people, 0.0)  # of the others, [n_people, n_items]
    voters = known.sum(axis=0)[None, :] - known
    counts = known & (voters > 0) & (2 * yes != voters) & ~np.isnan(said)[None, :]
    truth = (2 * yes > voters).astype(np.float64)
    own, its = np.where(counts, people, 0.0), np.where(counts, said[None, :], 0.0)
    drawn = _weights(people.shape[1], n_resamples, seed)
    person, machine = (_figures(truth * counts, each, counts, drawn) for each in (own, its))
    rows = (*person.T, *machine.T, *(machine - person).T)
    f1, kappa, model_f1, model_kappa, f1_lead, kappa_lead = (_interval(row, level) for row in rows)
    return Ceiling(int(counts.sum()), f1, kappa, model_f1, model_kappa, f1_lead, kappa_lead)


def _weights(n: int, n_resamples: int, seed: int) -> Array:
    """How often each item is drawn: ones first (the point), then resamples. [1 + n_resamples, n]."""
    rng = np.random.default_rng(seed)
    drawn = [np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(n_resamples if n > 1 else 0)]
    return np.stack([np.ones(n), *drawn]).astype(np.float64)


def _figures(truth: Array, said: Array, counts: npt.NDArray[np.bool_], weights: Array) -> Array:
    """F1 and kappa under each row of `weights`: [b, 2]."""
    both, yes, true, n = (weights @ cells.sum(axis=0) for cells in (truth * said, said, truth, counts))
    by_chance = (yes * true + (n - yes) * (n - true)) / np.maximum(n, 1) ** 2
    agreed = (n - yes - true + 2 * both) / np.maximum(n, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([2 * both / (yes + true), (agreed - by_chance) / (1 - by_chance)], axis=1)


def _interval(values: Array, level: float) -> Interval:
    point, drawn = float(values[0]), values[1:][~np.isnan(values[1:])]
    if np.isnan(point) or not len(drawn):
        return Interval(point, np.nan, np.nan)
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(point, float(low), float(high))
