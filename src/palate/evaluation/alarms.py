"""Has something changed: a control chart for a rate, and rates of many groups now against before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.errors import InputError
from palate.evaluation.paired import Flags, benjamini_hochberg

Counts = npt.NDArray[np.int64]
_RISES = (0.05, 0.1, 0.2, 0.4)  # of the way from the usual rate to 1: what the chart is quick to see


@dataclass(frozen=True)
class Chart:
    """`evidence` [n] after each observation; `alarms`: numbers of the observations at which it reached the limit."""

    evidence: npt.NDArray[np.float64]
    alarms: tuple[int, ...]


def control_chart(hits: npt.ArrayLike, usual: float, run_length: float) -> Chart:
    """Watch 0/1 observations `hits` [n], in order, for a rate above `usual`.

    Shiryaev and Roberts' statistic, averaged over rates that it might have risen to: M ← (M + 1) · L for each, L being
    the likelihood of the observation under that rate over the one under `usual`. While the rate is at most `usual` the
    mean of M is at most the number of observations, so that the mean run to a false alarm is at least `run_length`,
    and the chance of one within n observations at most n / `run_length` (Shin, Ramdas & Rinaldo 2023, arXiv 2203.03532,
    e-detectors). It starts afresh after an alarm.

    Raises:
        InputError: `usual` outside [0, 1), or hits that are neither 0 nor 1.
    """
    seen = np.asarray(hits, dtype=np.float64)
    if not 0 <= usual < 1:
        raise InputError("The usual rate must lie between 0 and 1", got=usual, allowed="0 or more, below 1")
    if not np.isin(seen, (0.0, 1.0)).all():
        raise InputError("Observations must be 0 or 1", got=seen[~np.isin(seen, (0.0, 1.0))][0])
    usual = max(usual, 1e-6)
    risen = usual + np.array(_RISES) * (1 - usual)
    likelihood = np.where(seen[:, None] == 1, risen / usual, (1 - risen) / (1 - usual))
    statistic, evidence, alarms = np.zeros(len(risen)), np.zeros(len(seen)), []
    for number, ratio in enumerate(likelihood):
        statistic = (statistic + 1) * ratio
        evidence[number] = statistic.mean()
        if evidence[number] >= run_length:
            alarms.append(number)
            statistic = np.zeros(len(risen))
    return Chart(evidence, tuple(alarms))


def jumps(
    before_hits: Counts, before: Counts, now_hits: Counts, now: Counts, q: float
) -> tuple[npt.NDArray[np.float64], Flags]:
    """Groups [n_groups] whose rate is higher now than before: p-values, and which to call jumps.

    Fisher's exact test, one-sided: how often so many of the hits would fall to the items of now by chance. It holds
    however short a group's history is. Of the groups called, a share of at most `q` is called wrongly on average
    (Benjamini & Hochberg 1995).
    """
    from scipy.stats import hypergeom

    p = np.asarray(hypergeom.sf(now_hits - 1, before + now, before_hits + now_hits, now), dtype=np.float64)
    return p, benjamini_hochberg(p, q)
