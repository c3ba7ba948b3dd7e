"""Intervals for people who look while an experiment runs: true at every moment at once, however often one looks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from palate.errors import InputError


@dataclass(frozen=True)
class AlwaysValid:
    """An interval that may be read at any time; `p_value` is at most a with chance at most a, whenever it is read."""

    low: float
    high: float
    p_value: float


def always_valid(mean: float, error: float, n: int, planned: int, level: float = 0.95) -> AlwaysValid:
    """The asymptotic confidence sequence around `mean`, whose standard error with `n` people is `error`.

    Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas (2021), "Time-uniform central limit theory and asymptotic
    confidence sequences", arXiv 2103.06476, theorem 2.2: with t = n, s² = n error²,

        mean ± s sqrt(2 (t r² + 1) / (t² r²) · log(sqrt(t r² + 1) / a)),   a = 1 - level

    r² is chosen so that it is shortest at t = `planned` (their appendix B.2): (-2 log a + log(1 - 2 log a)) / planned.
    It need not be right: the level holds for any r that was fixed before. The p-value is the smallest a whose interval
    leaves out 0. As the theorem is asymptotic, it is for some dozens of people in a group and more.

    Raises:
        InputError: `level` outside (0, 1), or nobody planned.
    """
    if not 0 < level < 1 or planned < 1:
        raise InputError("A level lies between 0 and 1, and someone is planned", got=f"{level}, {planned}")
    if n < 2 or math.isnan(error):
        return AlwaysValid(-math.inf, math.inf, 1.0)
    a = 1 - level
    spread = n * (-2 * math.log(a) + math.log(1 - 2 * math.log(a))) / planned  # t r²
    reach = error * math.sqrt(2 * (spread + 1) / spread * (math.log(spread + 1) / 2 - math.log(a)))
    if error == 0:
        return AlwaysValid(mean, mean, 1.0 if mean == 0 else 0.0)
    evidence = (mean / error) ** 2 * spread / (2 * (spread + 1)) - math.log(spread + 1) / 2
    return AlwaysValid(mean - reach, mean + reach, min(1.0, math.exp(-evidence)))
