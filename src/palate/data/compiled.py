"""Functions compiled by numba, where it is installed (extra `fast`): imported only by modules of such functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Kept beside its file or in the person's cache; where nothing may be written, compiled anew by each process."""
    try:
        kept: Callable[..., Any] = numba.njit(nogil=True, cache=True)(function)
        return kept
    except RuntimeError:
        unkept: Callable[..., Any] = numba.njit(nogil=True)(function)
        return unkept


@compiled
def product(some: Any, others: Any) -> float:
    """The inner product of float32 vectors in float64, always in the same four sums that do not wait for each other."""
    first, second, third, fourth, width = 0.0, 0.0, 0.0, 0.0, len(some)
    for place in range(0, width - width % 4, 4):
        first += np.float64(some[place]) * np.float64(others[place])
        second += np.float64(some[place + 1]) * np.float64(others[place + 1])
        third += np.float64(some[place + 2]) * np.float64(others[place + 2])
        fourth += np.float64(some[place + 3]) * np.float64(others[place + 3])
    for place in range(width - width % 4, width):
        first += np.float64(some[place]) * np.float64(others[place])
    return (first + second) + (third + fourth)
