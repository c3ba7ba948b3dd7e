"""Fairer probabilities over options: averaged over the order of the options, calibrated against empty questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from palate.data.dataset import FloatArray
from palate.errors import InputError
from palate.llm.request import Request


def rotations(options: Sequence[str], orders: int) -> list[tuple[str, ...]]:
    """`orders` cyclic rotations of `options`, the given order first: each option stands once at each of the places.

    Raises:
        InputError: More rotations than options, or none.
    """
    if not 1 <= orders <= len(options):
        raise InputError("Options cannot be asked in so many orders.", got=orders, allowed=f"1 to {len(options)}")
    listed = tuple(options)
    return [listed[k:] + listed[:k] for k in range(orders)]


def in_orders(requests: Sequence[Request], options: Sequence[str], orders: int) -> list[Request]:
    """Every request with its options in each order: the requests in the first order, then those in the second, …

    An engine that scores the options as they are ("exact") does not see their order: one order is enough there.
    """
    return [replace(request, options=order) for order in rotations(options, orders) for request in requests]


def averaged(shares: Sequence[Sequence[float] | None], n_options: int, orders: int) -> FloatArray:
    """Probabilities of `in_orders` back in the given order, averaged: [n_requests, n_options].

    A row that failed in one order is the mean of the others; one that failed in all is NaN.
    """
    table = np.full((len(shares), n_options), np.nan)
    for row, found in enumerate(shares):
        if found is not None:
            table[row] = found
    by_order = table.reshape(orders, -1, n_options)
    turned = np.stack([np.roll(by_order[k], k, axis=1) for k in range(orders)])
    known = ~np.isnan(turned)
    sums, counts = np.where(known, turned, 0.0).sum(axis=0), known.sum(axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).astype(np.float32)


def calibrated(shares: FloatArray, empty: FloatArray) -> FloatArray:
    """Contextual calibration (Zhao et al. 2021, arXiv 2102.09690): shares over those of content-free questions.

    Args:
        shares: [n, n_options].
        empty: [m, n_options], what the model says where there is nothing to judge; rows of NaN are left out.

    Raises:
        InputError: No content-free question was answered.
    """
    known = empty[~np.isnan(empty).any(axis=1)]
    if not len(known):
        raise InputError("No content-free question was answered.", hint="Check the engine, or choose without them.")
    prior = np.maximum(known.mean(axis=0), 1e-6)
    weighed = shares / prior
    return np.asarray(weighed / weighed.sum(axis=1, keepdims=True), dtype=np.float32)
