"""Compiled search over int8 codes (numba): one pass that scores items and keeps those that may be among the best.

Imported only where numba is there: see `scores.Int8Scores.compile`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from palate.data.compiled import compiled, product
from palate.serving.scores import COPIED, GATHER, MOST, QUERY_STEPS, SCAN_FOR_ROWS, TINY, UNIT


@compiled
def _among(places: Any, row: int) -> bool:
    low, high = 0, len(places)
    while low < high:
        middle = (low + high) // 2
        if places[middle] < row:
            low = middle + 1
        else:
            high = middle
    return bool(low < len(places) and places[low] == row)


@compiled
def _put(best: Any, score: Any) -> None:
    """In place of the least of a heap whose first is the least."""
    at, n = 0, len(best)
    while 2 * at + 1 < n:
        below = 2 * at + 1
        if below + 1 < n and best[below + 1] < best[below]:
            below += 1
        if best[below] >= score:
            break
        best[at] = best[below]
        at = below
    best[at] = score


@compiled
def _left(places: Any, scores: Any, found: int, bound: Any) -> Any:
    kept = 0
    for number in range(found):
        if scores[number] >= bound:
            places[kept] = places[number]
            kept += 1
    return places[:kept].copy()


@cache
def kernel(width: int) -> Callable[..., Any]:
    """The search for codes of one width: `search(codes, scales, firsts, stops, rows, plan, away, query, margin, k)`.

    It gives the sorted places that may be among the k best where each score is off by up to half the margin. By
    `plan` it reads the stretches from `firsts` to `stops` through (SCAN), of which only `rows` count (SCAN_FOR_ROWS),
    or reads the rows alone (GATHER), which may be all that there are codes and scales of (COPIED). Places of `away`
    never count. All places are sorted; `query` is int16.

    The width is a constant, and the sum a number of 32 bits: then LLVM makes one instruction of two products and
    their sum (`vpdpwssd`, `vpmaddwd`), which is what makes the loop several times as fast.
    """

    @compiled
    def search(
        codes: Any,
        scales: Any,
        firsts: Any,
        stops: Any,
        rows: Any,
        plan: int,
        away: Any,
        query: Any,
        margin: Any,
        k: int,
    ) -> Any:
        width_read = len(rows) if plan >= GATHER else np.sum(stops - firsts)
        places, scores = np.empty(width_read, np.int64), np.empty(width_read, np.float32)
        best = np.full(k, -np.inf, np.float32)
        bound, found = np.float32(-np.inf), 0
        for span in range(1 if plan >= GATHER else len(firsts)):
            start, stop = (0, len(rows)) if plan >= GATHER else (firsts[span], stops[span])
            for number in range(start, stop):
                row = rows[number] if plan >= GATHER else number
                at = number if plan == COPIED else row
                total = np.int32(0)
                for place in range(width):
                    total += np.int32(codes[at, place]) * np.int32(query[place])
                score = np.float32(np.int32(total)) * scales[at]
                if score >= bound and not (plan == SCAN_FOR_ROWS and not _among(rows, row)) and not _among(away, row):
                    places[found], scores[found] = row, score
                    found += 1
                    if score > best[0]:
                        _put(best, score)
                        bound = best[0] - margin
        return _left(places, scores, found, bound)

    return search


@compiled
def _margin(query: Any, lost: float, longest: float, whole: Any) -> Any:
    """As `Int8Scores.prepare`, for one query: its whole numbers into `whole`, and the margin."""
    most, square = 0.0, 0.0
    for value in query:
        most, square = max(most, abs(np.float64(value))), square + np.float64(value) * np.float64(value)
    step, width = max(most, TINY) / QUERY_STEPS, len(query)
    for place in range(width):
        whole[place] = np.int16(np.rint(np.float64(query[place]) / step))
    length, missed = np.sqrt(square), step * (0.51 * np.sqrt(width))
    bound = length * lost + (missed + 4 * width * UNIT * length) * longest
    return np.float32(min(2.01 * bound / step + TINY, MOST))


@compiled
def _better(score: float, item: int, other: float, other_item: int) -> bool:
    return bool(score > other or (score == other and item < other_item))


@cache
def finder(width: int) -> Callable[..., Any]:
    """The whole answer to one query in one call: `kernel`'s candidates, ordered by products in float64.

    `find(codes, scales, lost, longest, vectors, weights, order, firsts, stops, rows, plan, away, query, items, scores)`
    fills `items` and `scores` [k], best first, equal scores by item, and says how many there are. `weights` are the
    vectors', empty for none; `order` gives the item of each place.
    """
    search = kernel(width)

    @compiled
    def find(
        codes: Any,
        scales: Any,
        lost: float,
        longest: float,
        vectors: Any,
        weights: Any,
        order: Any,
        firsts: Any,
        stops: Any,
        rows: Any,
        plan: int,
        away: Any,
        query: Any,
        items: Any,
        scores: Any,
    ) -> int:
        k, found = len(items), 0
        whole, best = np.empty(width, np.int16), np.empty(k, np.float64)
        margin = _margin(query, lost, longest, whole)
        for row in search(codes, scales, firsts, stops, rows, plan, away, whole, margin, k):
            score, item = product(vectors[row], query), order[row]
            if len(weights):
                score *= weights[row]
            if found == k and not _better(score, item, best[k - 1], items[k - 1]):
                continue
            at = min(found, k - 1)
            while at > 0 and _better(score, item, best[at - 1], items[at - 1]):
                best[at], items[at] = best[at - 1], items[at - 1]
                at -= 1
            best[at], items[at] = score, item
            found = min(found + 1, k)
        for place in range(found):
            scores[place] = best[place]
        return found

    return find
