"""Neighbours of what the person chose last, by cosine: what `/v1/items/{id}/similar` shows, for several items."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from palate.data.dataset import IntArray
from palate.knowledge.clusters import unit
from palate.serving import reasons
from palate.serving.candidates import Asked, Candidates


def similar(asked: Asked) -> list[Candidates]:
    """Of the neighbours of all those items the nearest ones, each said to be like the one that it is nearest to."""
    snapshot, n = asked.snapshot, asked.config.similar.last
    nearest: dict[int, tuple[float, int]] = {}
    for item in dict.fromkeys(asked.query.history[: -n - 1 : -1].tolist()):
        for other, cosine in zip(*_neighbours(asked, item), strict=True):
            if cosine > nearest.get(other, (-2.0, 0))[0]:
                nearest[other] = cosine, item
    best = sorted(nearest, key=lambda other: -nearest[other][0])[: asked.pool("similar")]
    scores = np.array([nearest[other][0] for other in best], dtype=np.float32)
    why = lambda other: reasons.for_similar(snapshot, nearest[other][1])  # noqa: E731
    return [Candidates("similar", np.array(best, dtype=np.int32), scores, why)]


def _neighbours(asked: Asked, item: int) -> tuple[list[int], list[float]]:
    snapshot, restrict, level = asked.snapshot, asked.query.restrict, asked.config.similar.level
    own = int(snapshot.tree.node_of_items(min(level, snapshot.tree.depth))[item])
    vector, pool, away = unit(snapshot.vector(item)[None]), asked.pool("similar"), asked.away_places
    if restrict is None:
        found, cosines = snapshot.likeness.nearest(vector[0], snapshot.stretch(own), pool, away)
        return found.tolist(), cosines.tolist()
    narrowed = replace(restrict, nodes=(own,)) if level else restrict
    rows, scores = snapshot.likeness.search(vector, narrowed, pool, None, asked.seen[1], away=away)
    known: IntArray = rows[0][rows[0] >= 0]
    return known.tolist(), scores[0][: len(known)].tolist()
