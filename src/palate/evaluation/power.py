"""How many people an experiment needs, and what it could find with those it has."""

from __future__ import annotations

import math
from dataclasses import dataclass

from palate.errors import InputError


@dataclass(frozen=True)
class Design:
    """A two-sided Welch test of two groups of one variance at `alpha`.

    Attributes:
        deviation: Of one person's value.
        treated, control: The two groups' shares of all people, at most 1 together.
    """

    deviation: float
    treated: float = 0.5
    control: float = 0.5
    alpha: float = 0.05

    def power(self, effect: float, people: float) -> float:
        """The chance of finding a true difference of `effect` with so many people in all variants together.

        By the non-central t distribution (Cohen 1988, 2.5), by the normal one above a million degrees of freedom.
        """
        from scipy.stats import nct, norm, t

        df = (self.treated + self.control) * people - 2
        if df <= 0:
            return self.alpha
        away = abs(effect) / (self.deviation * math.sqrt(1 / self.treated + 1 / self.control) / math.sqrt(people))
        limit = float(t.isf(self.alpha / 2, df))
        found = math.nan if df > 1e6 else float(nct.sf(limit, df, away) + nct.cdf(-limit, df, away))
        # far out SciPy's series gives up, where the two are one
        return float(norm.sf(limit - away) + norm.cdf(-limit - away)) if math.isnan(found) else found

    def people(self, effect: float, power: float = 0.8) -> int:
        """The fewest people, all variants together, that find `effect` with a chance of `power`.

        Raises:
            InputError: An effect of 0, a power that no number reaches, or a deviation that says nothing.
        """
        if not self.alpha < power < 1 or effect == 0 or not self.deviation > 0:
            got = f"effect {effect:g}, power {power:g}, deviation {self.deviation:g}"
            raise InputError("No number of people finds that", got=got, allowed=f"a power of {self.alpha:g} to 1")
        low = math.ceil(4 / min(self.treated, self.control, 1.0))
        high = low
        while self.power(effect, high) < power:
            low, high = high, 2 * high
            if high > 1e15:
                raise InputError("No number of people finds that", got=f"effect {effect:g}")
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.power(effect, middle) < power else (low, middle)
        return high

    def detectable(self, people: float, power: float = 0.8) -> float:
        """The smallest effect that so many people find with a chance of `power`."""
        from scipy.optimize import brentq

        scale = self.deviation * math.sqrt((1 / self.treated + 1 / self.control) / people)
        if not scale > 0:
            return math.nan
        return float(brentq(lambda effect: self.power(effect, people) - power, 1e-9 * scale, 25 * scale))
