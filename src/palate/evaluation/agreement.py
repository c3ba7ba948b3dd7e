"""Do raters agree, and may a model stand in for one of them: kappa, alpha, the alternative-annotator test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from palate.errors import InputError
from palate.evaluation.bootstrap import Interval

Level = Literal["nominal", "ordinal", "interval"]
Array = npt.NDArray[np.float64]


def cohen_kappa(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Agreement of two raters beyond chance (Cohen 1960), over the items that both rated (NaN: did not).

    NaN where both use one and the same category only, or nothing is rated by both.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    both = ~(np.isnan(a) | np.isnan(b))
    a, b = a[both], b[both]
    if not len(a):
        return float("nan")
    by_chance = sum(float((a == value).mean() * (b == value).mean()) for value in np.union1d(a, b))
    return float(((a == b).mean() - by_chance) / (1 - by_chance)) if by_chance < 1 else float("nan")


def fleiss_kappa(counts: npt.ArrayLike) -> float:
    """Agreement of equally many raters an item (Fleiss 1971); `counts` [n_items, n_categories] says how many chose.

    Raises:
        InputError: Items with different numbers of ratings, or fewer than two.
    """
    table = np.asarray(counts, dtype=np.float64)
    raters = table.sum(axis=1)
    if table.ndim != 2 or len(table) == 0 or raters.min() < 2 or raters.min() != raters.max():
        raise InputError(
            "Fleiss' kappa needs the same number of ratings, two or more, for each item",
            got=sorted(set(raters.tolist())),
            hint="krippendorff_alpha takes gaps",
        )
    m = raters[0]
    agreed = ((table**2).sum(axis=1) - m) / (m * (m - 1))
    by_chance = float(((table.sum(axis=0) / table.sum()) ** 2).sum())
    return float((agreed.mean() - by_chance) / (1 - by_chance)) if by_chance < 1 else float("nan")


def krippendorff_alpha(ratings: npt.ArrayLike, level: Level = "nominal") -> float:
    """Krippendorff's alpha of `ratings` [n_raters, n_items], NaN where a rater left an item out.

    1 - observed over expected disagreement from the coincidences of values within items (Krippendorff 2011,
    "Computing Krippendorff's Alpha-Reliability"). Items with one rating say nothing and are left out. NaN where no
    item has two ratings, or all ratings are equal.

    Raises:
        InputError: Not a matrix, or an unknown level.
    """
    counts, values = _value_counts(ratings, level)
    return _alpha(counts, values, level, np.ones(len(counts)))


def krippendorff_interval(
    ratings: npt.ArrayLike, level: Level = "nominal", n_resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """`krippendorff_alpha` with a percentile bootstrap interval over items."""
    counts, values = _value_counts(ratings, level)
    rng, n = np.random.default_rng(seed), len(counts)
    point = _alpha(counts, values, level, np.ones(n))
    drawn = np.array(
        [_alpha(counts, values, level, np.bincount(rng.integers(0, n, n), minlength=n)) for _ in range(n_resamples)]
        if n > 1
        else []
    )
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return Interval(point, np.nan, np.nan)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(point, float(low), float(high))


def _value_counts(ratings: npt.ArrayLike, level: Level) -> tuple[Array, Array]:
    """How often each value was given to each item of two or more ratings: [n_items, n_values], and the values."""
    table = np.asarray(ratings, dtype=np.float64)
    if table.ndim != 2:
        raise InputError("Ratings must be a matrix of raters by items", got=f"{table.ndim} dimensions")
    if level not in ("nominal", "ordinal", "interval"):
        raise InputError("Unknown level of measurement", got=level, allowed="nominal, ordinal, interval")
    values = np.unique(table[~np.isnan(table)])
    counts = (table[:, :, None] == values).sum(axis=0).astype(np.float64)
    return counts[counts.sum(axis=1) >= 2], values


def _alpha(counts: Array, values: Array, level: Level, weights: npt.NDArray[np.generic]) -> float:
    """Alpha where item i counts `weights[i]` times."""
    share = np.asarray(weights, dtype=np.float64) / np.maximum(counts.sum(axis=1) - 1, 1)
    coincidences = (counts * share[:, None]).T @ counts - np.diag(share @ counts)
    totals = coincidences.sum(axis=1)
    distance = _distances(values, totals, level)
    expected = float(totals @ distance @ totals)
    if expected <= 0:
        return float("nan")
    return float(1 - (totals.sum() - 1) * (coincidences * distance).sum() / expected)


def _distances(values: Array, totals: Array, level: Level) -> Array:
    """Squared differences of values, [n_values, n_values]."""
    if level == "nominal":
        return 1.0 - np.eye(len(values))
    if level == "interval":
        return np.asarray((values[:, None] - values[None, :]) ** 2)
    # Ordinal: how many ratings lie between two ranks, half of either end.
    middle = np.cumsum(totals) - totals / 2
    return np.asarray((middle[:, None] - middle[None, :]) ** 2)


@dataclass(frozen=True)
class AlternativeAnnotator:
    """Whether a model may replace a person (`winning_rate` at least 0.5), and how often it does at least as well.

    `p_values` of each person tested; `skipped` names those with too few items.
    """

    winning_rate: float
    advantage_probability: float
    p_values: dict[str, float]
    rejected: tuple[str, ...]
    skipped: dict[str, int]

    @property
    def passed(self) -> bool:
        return self.winning_rate >= 0.5


def alternative_annotator_test(
    humans: npt.ArrayLike,
    model: npt.ArrayLike,
    epsilon: float = 0.2,
    names: Sequence[str] | None = None,
    level: Level = "nominal",
    q: float = 0.05,
    min_items: int = 30,
) -> AlternativeAnnotator:
    """The alternative-annotator test (Calderon, Reichart & Dror 2025, arXiv 2501.10970).

    Each person is held out in turn: on each of their items, is the model at least as near to the *other* people as
    they are? A one-sided t-test asks whether the person's lead is below `epsilon`, the advantage a person is granted
    for being cheaper to trust (0.2 experts, 0.15 skilled, 0.1 crowd); Benjamini & Yekutieli 2001 hold the false
    discovery rate at `q`. Nearness is accuracy (nominal) or minus the root mean square error.

    Args:
        humans: [n_people, n_items], NaN where a person left an item out.
        model: [n_items], NaN where the model did.
        min_items: A person with fewer items that others rated too is skipped.

    Raises:
        InputError: Shapes do not fit, or nobody is left to test.
    """
    people, said = np.asarray(humans, dtype=np.float64), np.asarray(model, dtype=np.float64)
    if people.ndim != 2 or said.shape != people.shape[1:]:
        raise InputError("Ratings of people and model do not fit", got=f"{people.shape} and {said.shape}")
    labels = [str(i) for i in range(len(people))] if names is None else [str(name) for name in names]
    near = _accuracy if level == "nominal" else _minus_rmse
    p_values, advantages, skipped = {}, [], {}
    for row, name in enumerate(labels):
        others = np.delete(people, row, axis=0)
        usable = ~np.isnan(people[row]) & ~np.isnan(said) & (~np.isnan(others)).any(axis=0)
        if usable.sum() < min_items:
            skipped[name] = int(usable.sum())
            continue
        model_score, own_score = near(said[usable], others[:, usable]), near(people[row, usable], others[:, usable])
        model_wins, own_wins = model_score >= own_score, own_score >= model_score
        advantages.append(float(model_wins.mean()))
        p_values[name] = _lead_below(own_wins.astype(float) - model_wins, epsilon)
    if not p_values:
        raise InputError(
            "Nobody rated enough items for the test",
            got=skipped,
            allowed=f"{min_items} items or more, others with them",
        )
    rejected = _benjamini_yekutieli(p_values, q)
    return AlternativeAnnotator(len(rejected) / len(p_values), float(np.mean(advantages)), p_values, rejected, skipped)


def _accuracy(own: Array, others: Array) -> Array:
    known = ~np.isnan(others)
    return np.asarray(((own == others) & known).sum(axis=0) / known.sum(axis=0))


def _minus_rmse(own: Array, others: Array) -> Array:
    return np.asarray(-np.sqrt(np.nanmean((own - others) ** 2, axis=0)))


def _lead_below(lead: Array, epsilon: float) -> float:
    """p of a one-sided t-test that the mean of `lead` is below `epsilon`."""
    from scipy import stats

    if lead.std() == 0:
        return 0.0 if lead[0] < epsilon else 1.0
    return float(stats.ttest_1samp(lead, epsilon, alternative="less").pvalue)


def _benjamini_yekutieli(p_values: dict[str, float], q: float) -> tuple[str, ...]:
    """The names whose hypothesis is rejected at a false discovery rate of `q` under any dependence."""
    order = sorted(p_values, key=p_values.__getitem__)
    m = len(order)
    scale = m * sum(1 / k for k in range(1, m + 1))
    passing = [k for k, name in enumerate(order, 1) if p_values[name] <= k * q / scale]
    return tuple(order[: max(passing, default=0)])
