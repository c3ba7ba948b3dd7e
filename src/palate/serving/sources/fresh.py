"""The nearest among new items: those that came after the snapshot was built, and the newest of the catalogue."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray, IntArray
from palate.serving import reasons
from palate.serving.candidates import Asked, Candidates

Places = npt.NDArray[np.int64]
_DAY = 86_400_000_000  # microseconds
_FEW = 64  # that are picked one by one sooner than all are sorted


def fresh(asked: Asked) -> list[Candidates]:
    """New by `created_at`, where the catalogue has that; what was put since the snapshot is new in any case."""
    snapshot, config, (exclude, sets) = asked.snapshot, asked.config.fresh, asked.seen
    newest, restrict = snapshot.newest, asked.query.restrict
    now = time.time_ns() // 1000 if asked.moment is None else asked.moment
    n = min(int(np.searchsorted(-newest.times, int(config.days * _DAY) - now, side="right")), config.most)
    items, scores = newest.items[:n], newest.vectors[:n] @ asked.vectors[0]
    out = [each for each in (exclude, snapshot.index.gone) if each is not None]
    scores[_among(newest.places, np.concatenate(out), n)] = -np.inf
    if restrict is not None:
        allowed = np.zeros(n, dtype=bool)
        allowed[_among(newest.places, snapshot.index.main.allowed(restrict, sets), n)] = True
        scores[~allowed] = -np.inf
    if snapshot.index.new is not None:
        put, theirs = snapshot.index.new.search(asked.vectors, restrict, asked.pool("fresh"), exclude, sets)
        items, scores = np.append(items, put[0]), np.append(scores, theirs[0])
    best = _best(scores, asked.pool("fresh"))
    why = lambda item: reasons.for_fresh(snapshot, item)  # noqa: E731
    return [Candidates("fresh", items[best], scores[best], why)]


def _best(scores: FloatArray, k: int) -> Places:
    """Numbers of the k best that are not at minus infinity, best first, equal ones as they stand."""
    if k > _FEW:
        order: Places = np.argsort(-scores, kind="stable")[:k]
        return order[scores[order] > -np.inf]
    left, best = scores.copy(), list[int]()
    while len(best) < min(k, len(left)) and left[place := int(left.argmax())] > -np.inf:
        best.append(place)
        left[place] = -np.inf
    return np.array(best, dtype=np.int64)


def _among(places: IntArray, items: IntArray, n: int) -> IntArray:
    """Where items of the snapshot stand among the first `n` of the newest."""
    found: IntArray = places[items[items < len(places)]]
    inside: IntArray = found[(found >= 0) & (found < n)]
    return inside
