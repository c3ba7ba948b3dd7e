"""Does what was measured with knowledge beat what was measured with each control in its place?

Everything is a statistic of weighted rows: a bootstrap draws users (all rows of a user together) and seeds, the same
for every arm, so that differences are paired; Holm's correction holds over all comparisons of a suite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.errors import InputError
from palate.evaluation.bootstrap import Groups, Interval, group_codes
from palate.evaluation.paired import holm

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Statistic = Callable[[Array, Array], Array]  # values [n], weights [draws, n] -> [draws]
_CHUNK = 4_000_000  # weights held at a time
_PAIRED = 500  # users up to which pairs of them are counted once for an AUC; more would be slower than row by row


@dataclass(frozen=True)
class Contrast:
    """`arm` less `against`. `p_value` is two-sided, adjusted over the claims of its suite (Holm 1979)."""

    arm: str
    against: str
    difference: Interval
    p_value: float

    @property
    def better(self) -> bool:
        """Above, and not by chance."""
        return self.difference.low > 0 and self.p_value < 0.05

    @property
    def worse(self) -> bool:
        return self.difference.high < 0 and self.p_value < 0.05


@dataclass(frozen=True)
class Judged:
    """The figure of each arm, and the contrasts that were asked for, in order."""

    figures: dict[str, Interval]
    contrasts: list[Contrast]


def weighted_mean(values: Array, weights: Array) -> Array:
    """The mean of `values` [n] under each row of `weights` [draws, n]; NaN values count for nothing."""
    known = ~np.isnan(values)
    total = weights[:, known].sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(weights[:, known] @ values[known] / total)


class _Auc:
    """See `weighted_auc`."""

    def __init__(self, labels: npt.ArrayLike) -> None:
        self.truth = np.asarray(labels, dtype=np.float64)

    def __call__(self, scores: Array, weights: Array) -> Array:
        order = np.argsort(scores, kind="stable")
        begins = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)  # of each run of equal scores
        true = weights[:, order] * self.truth[order]
        positives = np.add.reduceat(true, begins, axis=1)
        negatives = np.add.reduceat(weights[:, order] - true, begins, axis=1)
        below = np.cumsum(negatives, axis=1) - negatives / 2
        pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((positives * below).sum(axis=1) / pairs)

    def by_user(self, scores: Array, codes: npt.NDArray[np.int64], n_users: int) -> Callable[[Array], Array]:
        """The statistic of how often each user counts, [draws, n_users] to [draws].

        The pairs that are in order are a form of two users, p' C n: counted once, not for each draw.
        """
        counted = codes >= 0
        of, truth = codes[counted], self.truth[counted]
        run = np.unique(scores[counted], return_inverse=True)[1]
        positives, negatives = (np.zeros((int(run.max(initial=-1)) + 1, n_users)) for _ in range(2))
        np.add.at(positives, (run, of), truth)
        np.add.at(negatives, (run, of), 1 - truth)
        ordered = positives.T @ (np.cumsum(negatives, axis=0) - negatives / 2)
        all_positive, all_negative = positives.sum(axis=0), negatives.sum(axis=0)

        def statistic(times: Array) -> Array:
            pairs = (times @ all_positive) * (times @ all_negative)
            with np.errstate(invalid="ignore", divide="ignore"):
                return np.asarray(((times @ ordered) * times).sum(axis=1) / pairs)

        return statistic


def weighted_auc(labels: npt.ArrayLike) -> Statistic:
    """The statistic "area under the ROC curve" of scores for `labels` [n] (0 or 1): ties count half."""
    return _Auc(labels)


def judge_arms(
    arms: Mapping[str, npt.ArrayLike],
    users: Groups,
    pairs: Sequence[tuple[str, str]],
    statistic: Statistic = weighted_mean,
    *,
    beside: Sequence[tuple[str, str]] = (),
    within: Flags | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Judged:
    """Figures with 95% intervals and paired contrasts.

    Args:
        arms: Name to what was measured: values (or scores) [seeds, n], row i of every arm about the same thing. Arms
            with as many seeds share the draws of seeds; a single one stands for all.
        users: Whose each of the n rows is.
        pairs: (arm, against): the claims, whose p-values are corrected for their number.
        beside: More of them, to look at only: not corrected.
        statistic: Of one seed's values.
        within: Only these rows count.
        n_resamples: Draws of users and seeds.

    Raises:
        InputError: Shapes differ, or a pair names an arm that is not there.
    """
    values = {name: np.atleast_2d(np.asarray(found, dtype=np.float64)) for name, found in arms.items()}
    codes, kept = _rows(values, users, within)
    missing = {name for pair in (*pairs, *beside) for name in pair} - set(values)
    if missing:
        raise InputError("A comparison names an arm that was not measured", got=", ".join(sorted(missing)))
    plain, drawn = {}, {}
    for name, found in values.items():
        plain[name] = float(np.mean([statistic(row, kept[None].astype(np.float64))[0] for row in found]))
        drawn[name] = _drawn(found, codes, statistic, n_resamples, seed)
    differences = [(plain[arm] - plain[other], drawn[arm] - drawn[other]) for arm, other in (*pairs, *beside)]
    raw = [_p_value(found) for _, found in differences]
    adjusted = [*holm(raw[: len(pairs)]).tolist(), *raw[len(pairs) :]]
    contrasts = [
        Contrast(arm, other, _interval(*difference), p)
        for (arm, other), difference, p in zip((*pairs, *beside), differences, adjusted, strict=True)
    ]
    return Judged({name: _interval(plain[name], drawn[name]) for name in values}, contrasts)


def _rows(values: Mapping[str, Array], users: Groups, within: Flags | None) -> tuple[npt.NDArray[np.int64], Flags]:
    shapes = {row.shape[1] for row in values.values()}
    if shapes != {len(users)} or (within is not None and len(within) != len(users)):
        raise InputError("Arms, users and slices differ in length", got=f"{sorted(shapes)} values, {len(users)} users")
    kept = np.ones(len(users), dtype=np.bool_) if within is None else np.asarray(within, dtype=np.bool_)
    codes = np.full(len(users), -1, dtype=np.int64)
    codes[kept] = np.unique(group_codes(users)[kept], return_inverse=True)[1]
    return codes, kept


def _drawn(values: Array, codes: npt.NDArray[np.int64], statistic: Statistic, n_resamples: int, seed: int) -> Array:
    """The statistic of each draw of users (-1: a row that never counts), averaged over as many drawn seeds."""
    of_users, of_seeds = np.random.default_rng((seed, 0)), np.random.default_rng((seed, 1))
    n_users, seeds = int(codes.max(initial=-1)) + 1, len(values)
    if n_users < 2:
        return np.full(n_resamples, np.nan)
    by_user = [_by_user(statistic, row, codes, n_users) for row in values]
    found, step = [], max(1, _CHUNK // max(1, values.shape[1]))
    for start in range(0, n_resamples, step):
        draws = min(step, n_resamples - start)
        times = of_users.multinomial(n_users, np.full(n_users, 1 / n_users), size=draws)
        shares = of_seeds.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
        each = np.stack([of_times(times.astype(np.float64)) for of_times in by_user], axis=1)
        found.append((shares * each).sum(axis=1))
    return np.concatenate(found)


def _by_user(
    statistic: Statistic, values: Array, codes: npt.NDArray[np.int64], n_users: int
) -> Callable[[Array], Array]:
    """The statistic of how often each user is drawn, [draws, n_users]."""
    if isinstance(statistic, _Auc) and n_users <= _PAIRED:
        return statistic.by_user(values, codes, n_users)
    return lambda times: statistic(values, np.where(codes < 0, 0, times[:, codes]))


def _interval(plain: float, drawn: Array) -> Interval:
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return Interval(plain, np.nan, np.nan)
    low, high = np.quantile(known, [0.025, 0.975])
    return Interval(plain, float(low), float(high))


def _p_value(differences: Array) -> float:
    """Two-sided, of a bootstrap: how far into a tail zero lies (Efron & Tibshirani 1993, chapter 15)."""
    known = differences[~np.isnan(differences)]
    if not len(known) or not known.any():
        return 1.0
    tail = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(known) + 1)))
