"""Off-policy estimates: what another policy would have earned, from a log that kept its propensities.

With w = π(a|x) / μ(a|x), π the target and μ the logging policy: IPS is the mean of w r (Horvitz & Thompson 1952), SNIPS
Σ w r / Σ w (Swaminathan & Joachims 2015), doubly robust the mean of q(x, π) + w (r - q(x, a)) for a model q of rewards
(Dudík et al. 2011, arXiv 1103.4601). Slates are judged by position under the item-position model: what a place earns
depends on its item and the place alone, so that weights are of single places and not of whole slates (Li et al., KDD
2018, arXiv 1804.10488). Where people's answers to a place depend on what stands above it, that is wrong.

Without overlap there is no estimate, and none is given: see `Replay`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from palate.errors import InputError
from palate.evaluation.bootstrap import Groups, Interval, group_codes

Array = npt.NDArray[np.float64]
_SURE = 5.0  # standard errors below 1 at which the mean weight says that the target does what the log never shows


@dataclass(frozen=True)
class OffPolicy:
    """An estimate of a target's mean reward (of a slate: summed over its places), and what it rests on.

    Attributes:
        value: With a normal interval over independent groups; where weights were clipped, of the clipped mean.
        effective: Kish's effective sample size, (Σ w)² / Σ w², of the place where it is least.
        largest: The largest weight before clipping.
        clipped: Share of the weights that were cut.
        mean_weight: 1 in expectation where there is overlap; of the place where it is least.
    """

    value: Interval
    n: int
    effective: float
    largest: float
    clipped: float
    mean_weight: float


@dataclass(frozen=True)
class Replay:
    """A log, and how probable its actions are under the target.

    Args:
        rewards: [n], or [n, k] for the k places of slates.
        target: Probability of each logged action under the target; of slates: of the item at its place.
        logging: The same under the policy that logged.
        groups: [n], what depends on each other (a person's requests); None: every row stands for itself.
        clip: The largest weight that counts; None: all count. Cuts variance, and pulls the estimate down.
        least: Effective sample size below which nothing is said.

    Raises:
        InputError: Shapes differ; a propensity that was not logged (null) or is not in (0, 1]; a target that is no
            probability; too little overlap: an effective sample below `least`, or a mean weight clearly below 1,
            which says that the target plays what the logger never could (Lefortier et al. 2016, arXiv 1612.00367).
    """

    rewards: npt.ArrayLike
    target: npt.ArrayLike
    logging: npt.ArrayLike
    groups: Groups | None = None
    clip: float | None = None
    least: float = 30.0

    def __post_init__(self) -> None:
        shapes = [_places(each).shape for each in (self.rewards, self.target, self.logging)]
        if len(set(shapes)) > 1 or shapes[0][0] < 2:
            got = ", ".join(map(str, shapes))
            raise InputError("Rewards and propensities do not fit each other", got=got, allowed="one shape, n >= 2")
        if self.groups is not None and len(self.groups) != shapes[0][0]:
            raise InputError("Groups and rows differ in length", got=f"{len(self.groups)} and {shapes[0][0]}")
        if self.clip is not None and not self.clip > 0:
            raise InputError("A clip must be positive", got=self.clip)
        if not np.isfinite(_places(self.rewards)).all():
            raise InputError("A reward is missing or not finite", hint="what did not happen has a reward of 0")
        _check_propensities(_places(self.logging))
        _check_probabilities(_places(self.target))
        self._check_overlap()

    @cached_property
    def raw(self) -> Array:
        """Weights [n, k] before clipping."""
        return _places(self.target) / _places(self.logging)

    @cached_property
    def weights(self) -> Array:
        """Weights [n, k], clipped."""
        return self.raw if self.clip is None else np.minimum(self.raw, self.clip)

    @cached_property
    def reward(self) -> Array:
        return _places(self.rewards)

    @property
    def effective(self) -> float:
        squares = (self.weights**2).sum(axis=0)
        return float((self.weights.sum(axis=0) ** 2 / np.where(squares > 0, squares, 1)).min())

    def estimate(self, value: float, influence: Array, level: float) -> OffPolicy:
        """`influence` [n] is what each row adds to the estimate, of mean 0."""
        clipped = 0.0 if self.clip is None else float((self.raw > self.clip).mean())
        margin = _margin(influence, self.groups, level)
        interval = Interval(value, value - margin, value + margin)
        largest, mean = float(self.raw.max()), float(self.raw.mean(axis=0).min())
        return OffPolicy(interval, len(self.raw), self.effective, largest, clipped, mean)

    def _check_overlap(self) -> None:
        if self.effective < self.least:
            raise InputError(
                "The log says too little about the target",
                where="effective sample size of the importance weights",
                got=round(self.effective, 2),
                allowed=f"at least {self.least:g}",
                hint="log with more exploration, take a target nearer to the logged policy, or lower `least` knowingly",
            )
        mean, spread = self.raw.mean(axis=0), self.raw.std(axis=0, ddof=1) / np.sqrt(len(self.raw))
        place = int(np.argmin((mean - 1) / np.maximum(spread, 1e-12)))
        if mean[place] < 1 - _SURE * spread[place] - 1e-6:
            raise InputError(
                "The target plays what the logged policy never could",
                where=f"mean importance weight, place {place}",
                got=f"{mean[place]:.4f}, {spread[place]:.4f} its standard error",
                allowed="1 where there is overlap",
                hint="such actions have no counterpart in the log; let the logging policy explore them",
            )


def ips(replay: Replay, level: float = 0.95) -> OffPolicy:
    """Inverse propensity scoring: unbiased without a clip."""
    earned = (replay.weights * replay.reward).sum(axis=1)
    value = float(earned.mean())
    return replay.estimate(value, earned - value, level)


def snips(replay: Replay, level: float = 0.95) -> OffPolicy:
    """Self-normalised IPS, place by place; the interval by the delta method. Biased by O(1/n), less spread."""
    total = replay.weights.mean(axis=0)
    values = (replay.weights * replay.reward).mean(axis=0) / total
    influence = (replay.weights * (replay.reward - values) / total).sum(axis=1)
    return replay.estimate(float(values.sum()), influence, level)


def doubly_robust(replay: Replay, logged: npt.ArrayLike, target: npt.ArrayLike, level: float = 0.95) -> OffPolicy:
    """IPS of what a model of rewards leaves over: right if either the propensities or the model are.

    Args:
        logged: What the model expects of the logged actions, of the shape of the rewards. The model must not have
            learned from these rows (or be cross-fitted), or the interval is too short.
        target: What it expects under the target, Σ over a of π(a|x) q(x, a), in the same shape.

    Raises:
        InputError: Shapes differ, or a value is not finite.
    """
    expected, under_target = _places(logged), _places(target)
    if not (expected.shape == under_target.shape == replay.reward.shape):
        got = f"{expected.shape}, {under_target.shape} for rewards {replay.reward.shape}"
        raise InputError("Expected rewards do not fit the log", got=got)
    if not (np.isfinite(expected).all() and np.isfinite(under_target).all()):
        raise InputError("An expected reward is missing or not finite")
    earned = (under_target + replay.weights * (replay.reward - expected)).sum(axis=1)
    value = float(earned.mean())
    return replay.estimate(value, earned - value, level)


def check_support(target: npt.ArrayLike, logging: npt.ArrayLike) -> None:
    """Where all actions are known, [n, actions] each: whatever the target may do had a chance to be logged.

    Raises:
        InputError: Saying how much of the target's probability lies where the logging policy never goes.
    """
    wanted, possible = np.asarray(target, dtype=np.float64), np.asarray(logging, dtype=np.float64)
    if wanted.shape != possible.shape:
        raise InputError("The two policies differ in shape", got=f"{wanted.shape} and {possible.shape}")
    missing = np.where((possible <= 0) | np.isnan(possible), wanted, 0.0)
    if (missing > 0).any():
        row, action = np.unravel_index(int(missing.argmax()), missing.shape)
        raise InputError(
            "The target plays what the logged policy never could",
            where=f"row {row}, action {action}",
            got=f"{missing.sum() / max(wanted.sum(), 1e-300):.1%} of the target's probability",
            allowed="a logged propensity above 0 wherever the target's is",
        )


def _places(values: npt.ArrayLike) -> Array:
    """[n, k], k = 1 where there are no slates; nulls become NaN."""
    found = np.asarray(values, dtype=np.float64)
    return found[:, None] if found.ndim == 1 else found


def _check_propensities(logging: Array) -> None:
    for wrong, what in ((np.isnan(logging), "was not logged"), (~((logging > 0) & (logging <= 1)), "is not in (0, 1]")):
        if wrong.any():
            row, place = np.argwhere(wrong)[0]
            raise InputError(
                f"A propensity {what}",
                where=f"row {row}, place {place}; {int(wrong.sum())} such",
                got=logging[row, place],
                allowed="above 0, at most 1",
                hint="leave out what was not drawn by chance, or log with a policy that says its propensities",
            )


def _check_probabilities(target: Array) -> None:
    wrong = ~((target >= 0) & (target <= 1))
    if wrong.any():
        row, place = np.argwhere(wrong)[0]
        got = target[row, place]
        got = target[row, place]
        raise InputError("The target has no such probability", where=f"row {row}", got=got, allowed="0 to 1")


def _margin(influence: Array, groups: Groups | None, level: float) -> float:
    """Half the width of the interval of a mean, by the sums of independent groups; NaN for one group."""
    from scipy.stats import t

    sums = influence if groups is None else np.bincount(group_codes(groups), influence)
    count = len(sums)
    if count < 2:
        return float("nan")
    error = np.sqrt(count / (count - 1) * (sums**2).sum()) / len(influence)
    return float(t.ppf((1 + level) / 2, count - 1) * error)
