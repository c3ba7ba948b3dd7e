"""Is there something, among many things looked for: information, and false discoveries held down."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from palate.errors import InputError

Array = npt.NDArray[np.float64]


def mutual_information(counts: npt.ArrayLike) -> Array:
    """Bits that rows and columns of `counts` [..., r, c] tell of each other: the G statistic over 2 n ln 2; [...].

    Raises:
        InputError: A negative count.
    """
    table = np.asarray(counts, dtype=np.float64)
    if (table < 0).any():
        raise InputError("Counts cannot be negative", got=float(table.min()))
    total = table.sum(axis=(-2, -1), keepdims=True)
    share = table / np.maximum(total, 1e-300)
    expected = share.sum(axis=-1, keepdims=True) * share.sum(axis=-2, keepdims=True)
    ratio = np.divide(share, expected, out=np.ones_like(share), where=(share > 0) & (expected > 0))
    return np.asarray((share * np.log2(ratio)).sum(axis=(-2, -1)))


def false_discovery_q(p_values: npt.ArrayLike) -> Array:
    """Benjamini & Hochberg (1995): the false discovery rate at which each of `p_values` [m] would be kept; [m]."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    lowest = np.minimum.accumulate(scaled[::-1])[::-1]
    q = np.empty_like(p)
    q[order] = np.minimum(lowest, 1.0)
    return q
