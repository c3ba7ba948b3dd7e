"""Did each variant get the share of people that it was to get? If not, people were lost, and nothing can be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from palate.errors import InputError

MISMATCH = 0.001


@dataclass(frozen=True)
class SampleRatio:
    """`expected` people of each variant beside those `seen`; a mismatch where `p_value` < 0.001."""

    seen: dict[str, int]
    expected: dict[str, float]
    p_value: float

    @property
    def mismatch(self) -> bool:
        return self.p_value < MISMATCH


def sample_ratio(seen: Mapping[str, int], shares: Mapping[str, float]) -> SampleRatio:
    """Pearson's chi-square test of counts against `shares` (Fabijan et al. 2019, "Diagnosing sample ratio mismatch").

    With nobody seen the p-value is 1: there is nothing to tell.

    Raises:
        InputError: Variants differ, or a share is not above 0.
    """
    if set(seen) != set(shares) or min(shares.values(), default=0) <= 0:
        raise InputError("Every variant has a count and a share above 0", got=f"{dict(seen)}, {dict(shares)}")
    people, whole = sum(seen.values()), sum(shares.values())
    expected = {name: people * share / whole for name, share in shares.items()}
    if people == 0:
        return SampleRatio(dict(seen), expected, 1.0)
    from scipy.stats import chisquare

    p_value = float(chisquare([seen[name] for name in shares], list(expected.values())).pvalue)
    return SampleRatio(dict(seen), expected, p_value)
