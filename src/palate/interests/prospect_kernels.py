"""Compiled `Prospects` (numba): all pairs of interests in one pass, where the table has each of them.

Imported only where numba is there: see `explore.TransitionTable.compile`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Kept beside this file or in the person's cache; where nothing may be written, compiled anew by each process."""
    try:
        kept: Callable[..., Any] = numba.njit(nogil=True, cache=True)(function)
        return kept
    except RuntimeError:
        unkept: Callable[..., Any] = numba.njit(nogil=True)(function)
        return unkept
