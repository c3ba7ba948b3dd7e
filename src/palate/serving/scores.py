"""Inner products of queries with items, each kind with a bound on how far it is off: float32, and int8 codes.

The bound lets a cheap product choose candidates without losing one; `retrieve` orders them by exact products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray
from palate.serving.columns import Positions

Codes = npt.NDArray[np.int8]
_ROWS = 4096  # rows handled at a time: 1 MiB of float32 at 64 dimensions, stays in the L2 cache
_UNIT = float(np.finfo(np.float32).eps) / 2  # relative error of one float32 operation
_TINY = float(np.finfo(np.float32).tiny)
_QUERY_STEPS = 32_767  # a query's numbers become int16: with 127 of a code the sum of 1,032 products fits int32
_WIDEST = 2**31 // (127 * _QUERY_STEPS)


class Scores(Protocol):
    """Approximate inner products. All items of a call are scored in one unit, which may differ between queries."""

    def scan(self, queries: Any, span: slice, out: FloatArray) -> None:
        """Of a stretch, into `out` [n_queries, length]."""

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
        return float(np.sqrt(found) * (1 + self.vectors.shape[1] * _UNIT))

    def prepare(self, queries: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The bound on |float32 product - exact product|: Higham 2002, section 3.1; it holds for any order of sums."""
        d = queries.shape[1] + 1  # a weight is one more product
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
        return queries, (2.1 * d * _UNIT / (1 - d * _UNIT) * lengths * self.longest + d * _TINY).astype(np.float32)

    def scan(self, queries: FloatArray, span: slice, out: FloatArray) -> None:
        _products(self.vectors[span], queries, out)
        if self.weights is not None:
            out *= self.weights[span]

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

    With numba (extra `fast`) a quarter of the memory is read of what float32 takes, at the speed at which it comes.
    Without, blocks are turned into float32 for BLAS: as fast as float32, still in a quarter of the memory.
    """

    def __init__(self, quantised: Quantised, weights: FloatArray | None = None) -> None:
        self.codes, self.width = quantised.codes, quantised.codes.shape[1]
        self.scales = quantised.scales if weights is None else (quantised.scales * weights).astype(np.float32)
        heaviest = 1.0 if weights is None else float(np.max(weights, initial=0))
        self._lost = quantised.error * heaviest
        self._longest = 127 * np.sqrt(self.width) * float(np.max(self.scales, initial=0))

    def prepare(self, queries: FloatArray) -> tuple[npt.NDArray[np.int16], FloatArray]:
        """Bound: |q·v - q'·v'| <= |q| |v - v'| + |q - q'| |v'|, and three roundings of the product to float32."""
        steps = np.abs(queries).max(axis=1, initial=0).astype(np.float64) / _QUERY_STEPS
        steps[steps == 0] = 1
        wide = queries.astype(np.float64)
        whole = np.rint(wide / steps[:, None])
        missed = np.linalg.norm(wide - whole * steps[:, None], axis=1)
        lengths = np.linalg.norm(wide, axis=1)
        bound = lengths * self._lost + (missed + 4 * self.width * _UNIT * lengths) * self._longest
        margin = 2.01 * bound / steps + _TINY
        return whole.astype(np.int16), np.minimum(margin, np.finfo(np.float32).max).astype(np.float32)

    def scan(self, queries: npt.NDArray[np.int16], span: slice, out: FloatArray) -> None:
        kernels = int8_kernels(self.width)
        if kernels is not None:
            kernels[0](self.codes[span], self.scales[span], queries, out)
            return
        for start in range(span.start, span.stop, _ROWS):
            part = slice(start, min(start + _ROWS, span.stop))
            own = out[:, start - span.start : part.stop - span.start]
            self._by_blas(self.codes[part], self.scales[part], queries, own)

    def gather(self, queries: npt.NDArray[np.int16], rows: Positions, out: FloatArray) -> None:
        kernels = int8_kernels(self.width)
        if kernels is not None:
            kernels[1](self.codes, self.scales, rows, queries, out)
            return
        for start in range(0, len(rows), _ROWS):
            some = rows[start : start + _ROWS]
            self._by_blas(self.codes[some], self.scales[some], queries, out[:, start : start + _ROWS])

    def _by_blas(self, codes: Codes, scales: FloatArray, queries: npt.NDArray[np.int16], out: FloatArray) -> None:
        _products(codes.astype(np.float32), queries.astype(np.float32), out)
        out *= scales


def _products(vectors: FloatArray, queries: FloatArray, out: FloatArray) -> None:
    """A matrix by a vector runs at the memory's speed; NumPy's matrix by matrix pays only for several queries."""
    if len(queries) == 1:
        np.dot(vectors, queries[0], out=out[0])
    else:
        np.matmul(queries, vectors.T, out=out)


@cache
def int8_kernels(width: int) -> tuple[Callable[..., None], Callable[..., None]] | None:
    """Compiled scan and gather for vectors of one width; None without numba, or where a sum could overflow."""
    if find_spec("numba") is None or width > _WIDEST:
        return None
    import numba

    @numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
    def scan(codes: Any, scales: Any, queries: Any, out: Any) -> None:
        for row in range(codes.shape[0]):
            for query in range(queries.shape[0]):
                total = np.int32(0)
                for place in range(width):
                    total += np.int32(codes[row, place]) * np.int32(queries[query, place])
                out[query, row] = np.float32(total) * scales[row]

    @numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
    def gather(codes: Any, scales: Any, rows: Any, queries: Any, out: Any) -> None:
        for number in range(len(rows)):
            row = rows[number]
            for query in range(queries.shape[0]):
                total = np.int32(0)
                for place in range(width):
                    total += np.int32(codes[row, place]) * np.int32(queries[query, place])
                out[query, number] = np.float32(total) * scales[row]

    return scan, gather
