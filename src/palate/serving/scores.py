"""Inner products of queries with items, each kind with a bound on how far it is off: float32, and int8 codes.

The bound lets a cheap product choose candidates without losing one; `retrieve` orders them by exact products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray, IntArray
from palate.serving.columns import Positions
from palate.serving.spans import Allowed

Codes = npt.NDArray[np.int8]
Found = list[Positions]
SCAN, SCAN_FOR_ROWS, GATHER, COPIED = 0, 1, 2, 3  # plans of the compiled search
_NOWHERE: Positions = np.zeros(0, dtype=np.int64)
_NO_WEIGHTS: FloatArray = np.zeros(0, dtype=np.float32)
_ROWS = 4096  # rows handled at a time: 1 MiB of float32 at 64 dimensions, stays in the L2 cache
UNIT = float(np.finfo(np.float32).eps) / 2  # relative error of one float32 operation
TINY = float(np.finfo(np.float32).tiny)
MOST = float(np.finfo(np.float32).max)
QUERY_STEPS = 32_767  # a query's numbers become int16: with 127 of a code the sum of 1,032 products fits int32
_WIDEST = 2**31 // (127 * QUERY_STEPS)


class Scores(Protocol):
    """Approximate inner products. All items of a call are scored in one unit, which may differ between queries."""

    def scan(self, queries: Any, allowed: Allowed, out: FloatArray) -> None:
        """Of all places in the stretches, into `out` [n_queries, width]."""

    def gather(self, queries: Any, rows: Positions, out: FloatArray) -> None:
        """Of some places, into `out` [n_queries, len(rows)]."""

    def prepare(self, queries: FloatArray) -> tuple[Any, FloatArray]:
        """The queries as the two above take them, and for each twice the bound on a score's error, in its unit."""


class FloatScores:
    """Of float32 vectors by BLAS; `weights` [n_items] multiply an item's products (1 / length gives cosines)."""

    def __init__(self, vectors: FloatArray, weights: FloatArray | None = None) -> None:
        self.vectors, self.weights = vectors, weights

    @cached_property
    def longest(self) -> float:
        """The greatest length of a vector, NaN or infinite where one is not finite."""
        found = 0.0
        for start in range(0, len(self.vectors), 16 * _ROWS):
            block = self.vectors[start : start + 16 * _ROWS]
            squares = np.einsum("ij,ij->i", block, block)
            if self.weights is not None:
                squares *= self.weights[start : start + 16 * _ROWS] ** 2
            found = float(np.maximum(found, squares.max()))  # keeps NaN
        return float(np.sqrt(found) * (1 + self.vectors.shape[1] * UNIT))

    def prepare(self, queries: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The bound on |float32 product - exact product|: Higham 2002, section 3.1; it holds for any order of sums."""
        d = queries.shape[1] + 1  # a weight is one more product
        lengths = _lengths(queries.astype(np.float64))
        return queries, (2.1 * d * UNIT / (1 - d * UNIT) * lengths * self.longest + d * TINY).astype(np.float32)

    def scan(self, queries: FloatArray, allowed: Allowed, out: FloatArray) -> None:
        for span, own in allowed.parts(out):
            _products(self.vectors[span], queries, own)
            if self.weights is not None:
                own[:] *= self.weights[span]

    def gather(self, queries: FloatArray, rows: Positions, out: FloatArray) -> None:
        buffer = np.empty((min(_ROWS, len(rows)), self.vectors.shape[1]), dtype=np.float32)
        for start in range(0, len(rows), _ROWS):
            some = rows[start : start + _ROWS]
            part = buffer[: len(some)]
            np.take(self.vectors, some, axis=0, out=part, mode="clip")  # "raise" would copy once more
            _products(part, queries, out[:, start : start + _ROWS])
        if self.weights is not None:
            out *= self.weights[rows]


@dataclass(frozen=True)
class Quantised:
    """Vectors as `codes` [n_items, d] int8 times `scales` [n_items]; `error`: the greatest length of what is lost."""

    codes: Codes
    scales: FloatArray
    error: float

    def rows(self, where: slice | Positions) -> FloatArray:
        """The vectors that the codes stand for."""
        return self.codes[where] * self.scales[where, None]


def quantise(vectors: FloatArray) -> Quantised:
    """Each vector's numbers in 255 steps of a 127th of its largest."""
    codes, scales = np.empty(vectors.shape, dtype=np.int8), np.empty(len(vectors), dtype=np.float32)
    error = 0.0
    for start in range(0, len(vectors), 16 * _ROWS):
        part = slice(start, start + 16 * _ROWS)
        block = vectors[part]
        scales[part] = np.abs(block).max(axis=1, initial=0) / 127
        codes[part] = np.rint(block / np.where(scales[part] > 0, scales[part], 1)[:, None])
        lost = block.astype(np.float64) - codes[part] * scales[part, None].astype(np.float64)
        error = max(error, float(np.sqrt((lost * lost).sum(axis=1)).max(initial=0)))
    return Quantised(codes, scales, error)


class Int8Scores:
    """Of int8 codes with the query in int16: whole-number sums, exact but for what the rounding to codes lost.

    After `compile` (numba, extra `fast`) a quarter of the bytes of float32 are read, at the speed at which they come.
    Without, blocks are turned into float32 for BLAS: as slow as float32, still in a quarter of the memory.
    """

    def __init__(self, quantised: Quantised, weights: FloatArray | None = None) -> None:
        self.codes, self.width = quantised.codes, quantised.codes.shape[1]
        self.scales = quantised.scales if weights is None else (quantised.scales * weights).astype(np.float32)
        self.scales = self.scales.view()
        self.scales.flags.writeable = False  # as those of a file: one compiled search does for both
        heaviest = 1.0 if weights is None else float(np.max(weights, initial=0))
        self._lost = quantised.error * heaviest
        self._longest = 127 * np.sqrt(self.width) * float(np.max(self.scales, initial=0))
        self._search: Callable[..., Positions] | None = None
        self._find: Callable[..., int] | None = None

    @property
    def compiled(self) -> bool:
        return self._search is not None

    def compile(self) -> bool:
        """Make `candidates` work; False where that cannot be: no numba, or vectors too wide for sums of 32 bits."""
        if find_spec("numba") is not None and self.width <= _WIDEST:
            from palate.serving.int8_kernels import kernel

            search, none = kernel(self.width), np.zeros(0, dtype=np.int64)
            query = np.zeros(self.width, dtype=np.int16)
            search(self.codes, self.scales, none, none, none, SCAN, none, query, np.float32(0), 1)  # compiles
            self._search = search
        return self.compiled

    def compile_exact(self, vectors: FloatArray, weights: FloatArray | None, order: IntArray) -> None:
        """Make `best` work, for these float32 vectors of the codes; after `compile`."""
        from palate.serving.int8_kernels import finder

        find, own = finder(self.width), (vectors, _NO_WEIGHTS if weights is None else weights, order)
        self._own = (float(self._lost), float(self._longest), *own)
        query, items, scores = np.zeros(self.width, np.float32), np.zeros(1, np.int32), np.zeros(1, np.float32)
        where = self._where(Allowed(()), None, True)
        find(self.codes, self.scales, *self._own, *where, query, items, scores)  # compiles
        self._find = find  # only now: whoever asked before would wait for the compiler

    @property
    def answers(self) -> bool:
        """Whether `best` works."""
        return self._find is not None

    def best(
        self,
        query: FloatArray,
        allowed: Allowed,
        away: Positions | None,
        scan: bool,
        items: IntArray,
        scores: FloatArray,
        copy: tuple[Codes, FloatArray] | None = None,
    ) -> int:
        """Exact answers to one query [d], best first, into `items` and `scores` [k]: how many there are.

        `copy`: codes and scales of the allowed rows, in their order.
        """
        assert self._find is not None
        mine = query.copy()  # of a file's array, which is read-only, another search would be compiled
        if copy is None:
            where = self._where(allowed, away, scan)
            return self._find(self.codes, self.scales, *self._own, *where, mine, items, scores)
        away = _NOWHERE if away is None else away
        where = allowed.firsts, allowed.stops, allowed.rows, COPIED, away
        return self._find(*copy, *self._own, *where, mine, items, scores)

    def candidates(self, queries: FloatArray, allowed: Allowed, away: Positions | None, k: int, scan: bool) -> Found:
        """For each query sorted places among which its k best are; `away` are left out."""
        assert self._search is not None
        where = (self.codes, self.scales, *self._where(allowed, away, scan))
        prepared, margins = self.prepare(queries)
        return [self._search(*where, query, margin, k) for query, margin in zip(prepared, margins, strict=True)]

    def _where(self, allowed: Allowed, away: Positions | None, scan: bool) -> tuple[Any, ...]:
        """Stretches, rows, plan and what is left out, as the compiled search takes them."""
        rows = _NOWHERE if allowed.rows is None else allowed.rows
        plan = SCAN if allowed.rows is None else SCAN_FOR_ROWS if scan else GATHER
        return allowed.firsts, allowed.stops, rows, plan, _NOWHERE if away is None else away

    def prepare(self, queries: FloatArray) -> tuple[npt.NDArray[np.int16], FloatArray]:
        """Bound: |q·v - q'·v'| <= |q| |v - v'| + |q - q'| |v'|, and the roundings of the product to float32.

        |q - q'| is at most half a step in each dimension.
        """
        wide = queries.astype(np.float64)
        steps = np.maximum(np.abs(wide).max(axis=1, initial=0), TINY) / QUERY_STEPS
        whole = np.rint(wide / steps[:, None])
        missed, lengths = steps * (0.51 * np.sqrt(self.width)), _lengths(wide)
        bound = lengths * self._lost + (missed + 4 * self.width * UNIT * lengths) * self._longest
        margin = 2.01 * bound / steps + TINY
        return whole.astype(np.int16), np.minimum(margin, MOST).astype(np.float32)

    def scan(self, queries: npt.NDArray[np.int16], allowed: Allowed, out: FloatArray) -> None:
        for span, own in allowed.parts(out):
            for start in range(span.start, span.stop, _ROWS):
                part = slice(start, min(start + _ROWS, span.stop))
                block = own[:, start - span.start : part.stop - span.start]
                self._by_blas(self.codes[part], self.scales[part], queries, block)

    def gather(self, queries: npt.NDArray[np.int16], rows: Positions, out: FloatArray) -> None:
        for start in range(0, len(rows), _ROWS):
            some = rows[start : start + _ROWS]
            self._by_blas(self.codes[some], self.scales[some], queries, out[:, start : start + _ROWS])

    def _by_blas(self, codes: Codes, scales: FloatArray, queries: npt.NDArray[np.int16], out: FloatArray) -> None:
        _products(codes.astype(np.float32), queries.astype(np.float32), out)
        out *= scales


def _lengths(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return found


def _products(vectors: FloatArray, queries: FloatArray, out: FloatArray) -> None:
    """A matrix by a vector runs at the memory's speed; NumPy's matrix by matrix pays only for several queries."""
    if len(queries) == 1:
        np.dot(vectors, queries[0], out=out[0])
    else:
        np.matmul(queries, vectors.T, out=out)
