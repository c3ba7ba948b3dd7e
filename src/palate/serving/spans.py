"""Stretches of the leaf order: what nodes of the interest tree are, and what a restrict leaves of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from palate.data.dataset import FloatArray
from palate.serving.columns import Mask, Positions, Where

Spans = tuple[slice, ...]  # disjoint, not empty, ascending


@dataclass(frozen=True)
class Allowed:
    """Stretches of the leaf order, disjoint and ascending, each whole or, where `rows` are given, only at those."""

    spans: Spans
    rows: Positions | None = None
    kept: bool = False  # by `Restricts`, for everybody

    def only(self, rows: Positions) -> Allowed:
        """These stretches at some of their rows; what is known of the stretches is kept."""
        some = Allowed(self.spans, rows)
        some.__dict__.update(firsts=self.firsts, stops=self.stops, width=self.width)
        return some

    @cached_property
    def starts(self) -> Positions:
        """Number of each stretch's first place when the places of all stretches are counted through, and of the end."""
        return np.concatenate([[0], np.cumsum([span.stop - span.start for span in self.spans])]).astype(np.int64)

    @cached_property
    def width(self) -> int:
        """Places in the stretches."""
        return sum(span.stop - span.start for span in self.spans)

    @property
    def size(self) -> int:
        return self.width if self.rows is None else len(self.rows)

    @cached_property
    def positions(self) -> Positions:
        return self.rows if self.rows is not None else self.place(np.arange(self.width))

    @cached_property
    def numbers(self) -> Positions:
        """The rows, counted through the stretches."""
        return self.count(self.positions)

    def parts(self, scores: FloatArray) -> Iterator[tuple[slice, FloatArray]]:
        """Each stretch with its columns of scores [n, width]."""
        for span, start, stop in zip(self.spans, self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True):
            yield span, scores[:, start:stop]

    def place(self, numbers: Positions) -> Positions:
        """Of places counted through the stretches."""
        if len(self.spans) == 1:
            return numbers + int(self.spans[0].start)
        span = np.searchsorted(self.starts, numbers, side="right") - 1
        places: Positions = numbers + (self.firsts - self.starts[:-1])[span]
        return places

    def count(self, positions: Positions) -> Positions:
        """The opposite of `place`, for places in the stretches."""
        span = np.searchsorted(self.firsts, positions, side="right") - 1
        numbers: Positions = positions + (self.starts[:-1] - self.firsts)[span]
        return numbers

    def inside(self, positions: Positions) -> Positions:
        """Those of the places that lie in a stretch."""
        if not self.spans:
            return positions[:0]
        span = np.searchsorted(self.firsts, positions, side="right") - 1
        found: Positions = positions[(span >= 0) & (positions < self.stops[span])]
        return found

    @cached_property
    def firsts(self) -> Positions:
        return np.array([span.start for span in self.spans], dtype=np.int64)

    @cached_property
    def stops(self) -> Positions:
        return np.array([span.stop for span in self.spans], dtype=np.int64)


def merge(stretches: Iterable[tuple[int, int]]) -> Spans:
    """Sorted, neighbours joined, empty ones left out."""
    merged: list[slice] = []
    for start, stop in sorted(stretches):
        if start >= stop:
            continue
        if merged and start <= merged[-1].stop:
            merged[-1] = slice(merged[-1].start, max(merged[-1].stop, stop))
        else:
            merged.append(slice(start, stop))
    return tuple(merged)


def intersect(some: Spans, others: Spans) -> Spans:
    """Two pointers over both."""
    found, i, j = [], 0, 0
    while i < len(some) and j < len(others):
        start, stop = max(some[i].start, others[j].start), min(some[i].stop, others[j].stop)
        if start < stop:
            found.append(slice(start, stop))
        i, j = (i + 1, j) if some[i].stop <= others[j].stop else (i, j + 1)
    return tuple(found)


def within(spans: Spans, where: Where) -> Mask:
    if isinstance(where, slice):
        mask = np.zeros(where.stop - where.start, dtype=np.bool_)
        for span in spans:
            mask[max(0, span.start - where.start) : max(0, span.stop - where.start)] = True
        return mask
    edges = np.array([edge for span in spans for edge in (span.start, span.stop)], dtype=np.int64)
    return np.asarray(np.searchsorted(edges, where, side="right") % 2 == 1)


def complement(spans: Spans, n: int) -> Spans:
    cuts = [0, *(edge for span in spans for edge in (span.start, span.stop)), n]
    return merge(list(pairwise(cuts))[::2])
