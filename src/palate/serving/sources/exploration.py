"""Items of an interest that is new to the person, as the table of transitions says (`interests.explore`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from palate.data.expression import NODE_FIELDS
from palate.interests.explore import explore
from palate.interests.policy import restricted_softmax, rng_of
from palate.serving import reasons
from palate.serving.candidates import Asked, Candidates, retrieved


def exploration(asked: Asked) -> list[Candidates]:
    """With a temperature the order is drawn from the softmax over the best of the interest. Nothing is explored under a
    restrict of interests. A person of the snapshot explores the same until `explore.refresh` hours have passed.
    """
    snapshot, config, query = asked.snapshot, asked.config.explore, asked.query
    if asked.is_about(*NODE_FIELDS):
        return []
    lasting = asked.moment is not None and config.refresh > 0 and query.user_id is not None
    rng = rng_of(query.user_id or "", asked.moment or 0, config.refresh) if lasting else asked.rng
    found = explore(query, snapshot.tree, snapshot.transitions, snapshot.explore_level, rng, config)
    if found.to_node is None:
        return []
    reason = reasons.for_exploration(snapshot, found)
    drawn = config.temperature > 0
    pool = max(asked.n, config.pool) if drawn else asked.pool("exploration")
    near = retrieved(asked, "exploration", found.query, pool, lambda item: reason)
    near = replace(near, chance=found.chance)
    if not drawn or not len(near.items):
        return [near]
    items, scores = restricted_softmax(near.items, near.scores, len(near.items), config.temperature, rng)
    shares = np.exp((near.scores.astype(np.float64) - near.scores.max()) / config.temperature)
    weights = dict(zip(near.items.tolist(), shares.tolist(), strict=True))
    return [replace(near, items=items, scores=scores, weights=weights)]
