"""The nearest among new items: those that came after the snapshot was built, and the newest of the catalogue."""

from __future__ import annotations

import time

import numpy as np

from palate.data.dataset import FloatArray, IntArray
from palate.serving import reasons
from palate.serving.candidates import Asked, Candidates

_DAY = 86_400_000_000  # microseconds


def fresh(asked: Asked) -> list[Candidates]:
    """New by `created_at`, where the catalogue has that; what was put since the snapshot is new in any case."""
    snapshot, exclude, restrict = asked.snapshot, asked.seen()[0], asked.query.restrict
    items = _newest(asked)
    if restrict is not None:
        items = items[np.isin(items, snapshot.index.main.allowed(restrict, asked.seen()[1]))]
    items = items[~np.isin(items, snapshot.index.gone if exclude is None else np.append(exclude, snapshot.index.gone))]
    scores = snapshot.vectors[snapshot.tree.position[items]] @ asked.vectors[0]
    if snapshot.index.new is not None:
        put, theirs = snapshot.index.new.search(asked.vectors, restrict, asked.pool, *asked.seen())
        items, scores = np.append(items, put[0][put[0] >= 0]), np.append(scores, theirs[0][put[0] >= 0])
    best = _best(scores, asked.pool)
    why = lambda item: reasons.for_fresh(snapshot, item)  # noqa: E731
    return [Candidates("fresh", items[best], scores[best], why)]


def _newest(asked: Asked) -> IntArray:
    """item_nums of the snapshot that are new, at most `fresh.most`."""
    config, (items, times) = asked.config.fresh, asked.snapshot.by_creation
    now = time.time_ns() // 1000 if asked.moment is None else asked.moment
    new = int(np.searchsorted(-times, int(config.days * _DAY) - now, side="right"))
    return items[: min(new, config.most)]


def _best(scores: FloatArray, n: int) -> IntArray:
    return np.argsort(-scores, kind="stable")[:n].astype(np.int32)
