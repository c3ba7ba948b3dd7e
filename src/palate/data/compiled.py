"""Functions compiled by numba, where it is installed (extra `fast`): imported only by modules of such functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Kept beside its file or in the person's cache; where nothing may be written, compiled anew by each process."""
    try:
        kept: Callable[..., Any] = numba.njit(nogil=True, cache=True)(function)
        return kept
    except RuntimeError:
        unkept: Callable[..., Any] = numba.njit(nogil=True)(function)
        return unkept
