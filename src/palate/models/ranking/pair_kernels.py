"""Compiled `pairs` (numba): rows are gathered and made in one pass, straight from the columns of a catalogue.

Imported only where numba is there: see `serving.rank.SnapshotRanker.compile`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from palate.data.compiled import compiled, product


@compiled
def rows(
    vectors: Any, position: Any, labels: Any, which: Any, popularity: Any, leaves: Any,
    new_vectors: Any, new_labels: Any, new_leaves: Any,
    base: Any, query: Any, history: Any, items: Any,
) -> Any:  # fmt: skip
    """As `pairs.pairs`, the arrays of `Pairs`, of `history` [t] and `items` [m], both item_nums.

    Vectors are in the order that `position` [n] gives; `labels` [., n], of which row `which[a]` is of attribute a, and
    none where that is -1; `popularity` and `leaves` [n]. What is `new`, by row, are the items behind these: nobody has
    chosen them, and no history has them.
    """
    n, m, d, width = len(position), len(items), len(query), len(which)
    own = np.zeros(width, np.float32)
    for at in range(width):
        if which[at] >= 0 and len(history):
            total = np.float32(0)
            for item in history:
                label = labels[which[at], item]
                total += np.float32(0) if np.isnan(label) else label - base[at]
            own[at] = total / np.float32(len(history))
    met = np.empty(len(history), leaves.dtype)
    for place in range(len(history)):
        met[place] = leaves[history[place]]
    square, events = product(query, query), np.float32(np.log1p(len(history)))
    queries, theirs = np.empty((m, d), np.float32), np.empty((m, d), np.float32)
    drawn, beyond = np.empty((m, width), np.float32), np.empty((m, width), np.float32)
    numbers = np.empty((m, 6), np.float32)
    for row in range(m):
        item = items[row]
        vector = vectors[position[item]] if item < n else new_vectors[item - n]
        leaf = leaves[item] if item < n else new_leaves[item - n]
        for at in range(d):
            queries[row, at], theirs[row, at] = query[at], vector[at]
        for at in range(width):
            label = np.float32(np.nan)
            if item >= n:
                label = new_labels[item - n, at]
            elif which[at] >= 0:
                label = labels[which[at], item]
            drawn[row, at] = own[at]
            beyond[row, at] = np.float32(0) if np.isnan(label) else label - base[at]
        score, shared = product(vector, query), 0
        for other in met:
            shared += other == leaf
        numbers[row, 0] = score
        numbers[row, 1] = score / max(np.sqrt(product(vector, vector) * square), 1e-12)
        numbers[row, 2] = np.log1p(popularity[item] if item < n else np.float32(0))
        numbers[row, 3] = events
        numbers[row, 4] = shared / max(len(history), 1)
        numbers[row, 5] = product(beyond[row], own)
    return queries, theirs, drawn, beyond, numbers
