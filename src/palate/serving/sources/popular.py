"""The most popular of each interest, then the second of each, and so on: no interest fills the slate."""

from __future__ import annotations

import numpy as np

from palate.data.dataset import IntArray
from palate.data.expression import NODE_FIELDS
from palate.interests.policy import in_turn
from palate.serving import reasons
from palate.serving.candidates import Asked, Candidates

_NONE: IntArray = np.zeros(0, dtype=np.int32)


def popular(asked: Asked) -> list[Candidates]:
    return [most_popular(asked, asked.pool, _NONE)]


def most_popular(asked: Asked, n: int, taken: IntArray) -> Candidates:
    """`n` of those allowed, without those `taken`. New items are not popular."""
    snapshot, (exclude, sets) = asked.snapshot, asked.seen()
    out = np.concatenate([taken, snapshot.index.gone, _NONE if exclude is None else exclude])
    if asked.query.restrict is None:
        head = snapshot.by_turn[: n + len(out)]
        items = head[~np.isin(head, out)][:n]
    else:
        allowed = np.zeros(snapshot.n_built, dtype=bool)
        allowed[snapshot.index.main.allowed(asked.query.restrict, sets)] = True
        allowed[out[out < snapshot.n_built]] = False
        ranked = snapshot.by_popularity[allowed[snapshot.by_popularity]][: max(1000, 20 * n)]
        level = snapshot.tree.depth if asked.is_about(*NODE_FIELDS) else 1
        items = in_turn(ranked, snapshot.tree.node_of_items(level)[ranked])[:n]
    known = len(asked.away) > 0
    why = lambda item: reasons.for_popular(snapshot, item, known=known)  # noqa: E731
    return Candidates("popular", items, snapshot.popularity[items], why)
