"""Neighbours of what the person chose last, by cosine: what `/v1/items/{id}/similar` shows, for several items."""

from __future__ import annotations

import numpy as np

from palate.serving import reasons
from palate.serving.candidates import Asked, Candidates


def similar(asked: Asked) -> list[Candidates]:
    """Each item at its nearest neighbour; the neighbours of the last items only, unless the restrict says otherwise."""
    snapshot, config = asked.snapshot, asked.config.similar
    last = asked.query.history[: -config.last - 1 : -1]
    vectors = np.stack([snapshot.vector(item) for item in last.tolist()])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    exclude, sets = asked.seen()
    found, cosines = snapshot.likeness.search(vectors, asked.query.restrict, asked.pool, exclude, sets, config.probe)
    order = np.argsort(-cosines, axis=None, kind="stable")
    order = order[found.ravel()[order] >= 0]
    items, first = np.unique(found.ravel()[order], return_index=True)
    best = np.argsort(first)[: asked.pool]
    chosen = order[first[best]]
    near = dict(zip(items[best].tolist(), last[chosen // found.shape[1]].tolist(), strict=True))
    why = lambda item: reasons.for_similar(snapshot, near[item])  # noqa: E731
    return [Candidates("similar", items[best], cosines.ravel()[chosen], why)]
