"""Selective prediction: answer only where a promised error rate holds, pass the rest on to the next, dearer judge.

Jung, Brahman & Choi 2024 ("Trust or Escalate", arXiv 2407.18370), with two mends: where not even the most confident
answers keep the promise a stage answers nothing, and the stages share the risk δ of a broken promise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.errors import InputError

Array = npt.NDArray[np.float64]
MIN_ANSWERED = 30  # calibration items above a threshold, below which no bound is worth much


@dataclass(frozen=True)
class Stage:
    """One judge: answers where its confidence is at least `threshold` (infinite: never)."""

    name: str
    threshold: float
    bound: float  # on the error among what it answers, NaN where it answers nothing
    answered: int  # of the calibration items that reached it
    reached: int


def upper_bound(errors: npt.ArrayLike, n: npt.ArrayLike, delta: float) -> Array:
    """The greatest error rate under which at most `errors` of `n` has a chance of `delta` (Clopper & Pearson 1934)."""
    from scipy import stats

    wrong, of = np.asarray(errors, dtype=np.float64), np.asarray(n, dtype=np.float64)
    bound = stats.beta.ppf(1 - delta, wrong + 1, np.maximum(of - wrong, 1))
    return np.asarray(np.where(wrong >= of, 1.0, bound))


def within(errors: npt.ArrayLike, n: npt.ArrayLike, alpha: float, delta: float) -> npt.NDArray[np.bool_]:
    """Whether `upper_bound(errors, n, delta)` is at most `alpha`: the same test, read from the binomial."""
    from scipy import special

    return np.asarray(special.bdtr(errors, np.asarray(n), alpha) <= delta)


def fewest(alpha: float, delta: float, errors: int = 0) -> int:
    """The smallest n of which `errors` may be wrong and the bound still be at most `alpha`."""
    n = errors + 1
    while not within(errors, n, alpha, delta):
        n *= 2
    tried = np.arange(max(n // 2, errors + 1), n + 1)
    return int(tried[within(errors, tried, alpha, delta)][0])


def most_errors(n: int, alpha: float, delta: float) -> int:
    """How many of `n` may be wrong for the bound to be at most `alpha`; -1: even none is too many to promise."""
    return int(within(np.arange(n), n, alpha, delta).sum()) - 1


def threshold_for(confidence: npt.ArrayLike, wrong: npt.ArrayLike, alpha: float, delta: float) -> tuple[float, float]:
    """The lowest confidence down to which the error stays at most `alpha`, with a chance of 1 - `delta`; and the bound.

    Thresholds are tested from the strictest down and the first that fails ends it (fixed-sequence testing), so that
    one δ covers all of them. The strictest is the first that could stand one error. Infinite and NaN where
    none holds.
    """
    sure, bad = np.asarray(confidence, dtype=np.float64), np.asarray(wrong, dtype=np.float64)
    if sure.shape != bad.shape or sure.ndim != 1:
        raise InputError("Confidence and errors differ in shape", got=f"{sure.shape} and {bad.shape}")
    order = np.argsort(-sure, kind="stable")
    sure, errors = sure[order], np.cumsum(bad[order])
    last = np.flatnonzero(np.append(np.diff(sure) != 0, True))  # ends of groups of equal confidence
    ends = last[(last >= max(MIN_ANSWERED, fewest(alpha, delta, errors=1)) - 1)]
    failed = ~within(errors[ends], ends + 1, alpha, delta)
    kept = int(np.argmax(np.append(failed, True)))  # thresholds before the first that fails
    if not kept:
        return float("inf"), float("nan")
    end = ends[kept - 1]
    return float(sure[end]), float(upper_bound(errors[end], end + 1, delta))


def calibrate_cascade(
    stages: Sequence[tuple[str, npt.ArrayLike, npt.ArrayLike]], alpha: float, delta: float
) -> list[Stage]:
    """Thresholds for judges asked one after the other, cheapest first.

    Each answers what it is sure of; the rest goes on to the next, what remains at the end to people. With a chance
    of at least 1 - `delta` every stage's error is at most `alpha`, and so is the error of all answers together.

    Args:
        stages: Name, confidence [n] and whether the answer was wrong [n], of the same calibration items.

    Raises:
        InputError: `alpha` or `delta` outside (0, 1), or no calibration items.
    """
    for name, share in (("alpha", alpha), ("delta", delta)):
        if not 0 < share < 1:
            raise InputError("A share must lie between 0 and 1", where=name, got=share)
    if not stages or not len(np.asarray(stages[0][1])):
        raise InputError("There is nothing to calibrate on", hint="label some items as dev first")
    reaches = np.ones(len(np.asarray(stages[0][1])), dtype=bool)
    found = []
    for name, confidence, wrong in stages:
        sure, bad = np.asarray(confidence, dtype=np.float64), np.asarray(wrong, dtype=np.float64)
        threshold, bound = threshold_for(sure[reaches], bad[reaches], alpha, delta / len(stages))
        answers = reaches & (sure >= threshold)
        found.append(Stage(name, threshold, bound, int(answers.sum()), int(reaches.sum())))
        reaches &= ~answers
    return found


def route(stages: Sequence[Stage], confidences: Sequence[npt.ArrayLike]) -> npt.NDArray[np.int64]:
    """Which stage answers each item, [n]; -1: people."""
    takes = np.full(len(np.asarray(confidences[0])), -1, dtype=np.int64)
    for number, (stage, confidence) in enumerate(zip(stages, confidences, strict=True)):
        takes[(takes < 0) & (np.asarray(confidence, dtype=np.float64) >= stage.threshold)] = number
    return takes
