"""Where settings are looked for: declared beside each setting, in its configuration class, as `search`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Between:
    """From `low` to `high`, both possible; evenly over the logarithm where `log`, whole numbers where both ends are."""

    low: float
    high: float
    log: bool = False


SearchSpace = Mapping[str, Between | Sequence[Any]]  # a range, or the values that come into question
