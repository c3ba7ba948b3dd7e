"""Neighbours of what the person chose last, by cosine: what `/v1/items/{id}/similar` shows, for several items."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from palate.data.dataset import FloatArray, IntArray
from palate.knowledge.clusters import unit
from palate.serving import reasons
from palate.serving.candidates import Asked, Candidates


def similar(asked: Asked) -> list[Candidates]:
    """Of the neighbours of all those items the nearest ones, each said to be like the one that it is nearest to."""
    snapshot, last, n = asked.snapshot, asked.config.similar.last, asked.pool("similar")
    level = min(asked.config.similar.level, snapshot.tree.depth)
    chosen = np.array(list(dict.fromkeys(asked.query.history[: -last - 1 : -1].tolist())), dtype=np.int32)
    nodes = snapshot.tree.node_of_items(level)[chosen].tolist()
    vectors = unit(snapshot.vectors[snapshot.tree.position[chosen]])
    nearest: dict[int, tuple[float, int]] = {}
    for item, node, vector in zip(chosen.tolist(), nodes, vectors, strict=True):
        for other, cosine in zip(*_neighbours(asked, vector, node, n), strict=True):
            if other not in nearest or cosine > nearest[other][0]:
                nearest[other] = cosine, item
    best = sorted(nearest, key=lambda other: -nearest[other][0])[:n]
    scores = np.array([nearest[other][0] for other in best], dtype=np.float32)
    why = lambda other: reasons.for_similar(snapshot, nearest[other][1])  # noqa: E731
    return [Candidates("similar", np.array(best, dtype=np.int32), scores, why)]


def _neighbours(asked: Asked, vector: FloatArray, node: int, n: int) -> tuple[list[int], list[float]]:
    """Of a vector of unit length, in a node."""
    snapshot, restrict, away = asked.snapshot, asked.query.restrict, asked.away_places
    if restrict is None:
        found, cosines = snapshot.likeness.nearest(vector, snapshot.stretch(node), n, away)
        return found.tolist(), cosines.tolist()
    narrowed = replace(restrict, nodes=(node,)) if node else restrict  # 0 is the root
    rows, scores = snapshot.likeness.search(vector[None], narrowed, n, None, asked.seen[1], away=away)
    known: IntArray = rows[0][rows[0] >= 0]
    return known.tolist(), scores[0][: len(known)].tolist()
