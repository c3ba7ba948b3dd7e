"""The most popular of each interest, then the second of each, and so on: no interest fills the slate."""

from __future__ import annotations

import numpy as np

from palate.data.expression import NODE_FIELDS
from palate.interests.policy import in_turn
from palate.serving import reasons
from palate.serving.candidates import Asked, Candidates


def popular(asked: Asked) -> list[Candidates]:
    return [most_popular(asked, asked.pool("popular"), frozenset())]


def most_popular(asked: Asked, n: int, taken: frozenset[int]) -> Candidates:
    """`n` of those allowed, without those `taken`. New items are not popular."""
    snapshot, out = asked.snapshot, asked.left_out | taken
    if asked.query.restrict is None:
        head = snapshot.by_turn[: n + len(out)].tolist()
    else:
        allowed = np.zeros(snapshot.n_built, dtype=bool)
        allowed[snapshot.index.main.allowed(asked.query.restrict, asked.seen[1])] = True
        ranked = snapshot.by_popularity[allowed[snapshot.by_popularity]][: max(1000, 20 * n) + len(out)]
        level = snapshot.tree.depth if asked.is_about(*NODE_FIELDS) else 1
        head = in_turn(ranked, snapshot.tree.node_of_items(level)[ranked]).tolist()
    items = np.array([item for item in head if item not in out][:n], dtype=np.int32)
    known = len(asked.away) > 0
    why = lambda item: reasons.for_popular(snapshot, item, known=known)  # noqa: E731
    return Candidates("popular", items, snapshot.popularity[items], why)
