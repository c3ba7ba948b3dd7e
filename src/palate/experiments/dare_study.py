"""What the recipe `dare` measures of texts: do they repeat each other, and does a profile tell whose it is?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from palate.data.dataset import Dataset, FloatArray
from palate.knowledge.clusters import unit
from palate.llm.encoders import Encoder


def distinct(texts: Sequence[str], n: int) -> float:
    """Share of different runs of `n` words among all (Li et al. 2016, distinct-n)."""
    words = [text.lower().split() for text in texts]
    runs = [tuple(row[at : at + n]) for row in words for at in range(len(row) - n + 1)]
    return len(set(runs)) / len(runs) if runs else float("nan")


def own_history(
    profiles: Mapping[str, str], seen: Mapping[str, Sequence[int]], dataset: Dataset, encoder: Encoder
) -> FloatArray:
    """For each profile the share of all other histories that are less like it than the user's own: 0.5 is chance.

    A history is the mean of its titles' vectors. A profile that was copied from a neighbour's would be more like the
    neighbour's history than like its own.

    Args:
        profiles: By user id the text.
        seen: By user id the item_nums that it was made of.
    """
    users = [user for user in profiles if len(seen.get(user, ()))]
    if len(users) < 2:
        return np.zeros(0, np.float32)
    titles = [str(title or "") for title in dataset.items["title"].to_list()]
    met = sorted({int(item) for user in users for item in seen[user]})
    vectors = dict(zip(met, encoder.encode([titles[item] for item in met]), strict=True))
    histories = np.stack([np.mean([vectors[int(item)] for item in seen[user]], axis=0) for user in users])
    said = encoder.encode([profiles[user] for user in users])
    like = unit(said - said.mean(0)) @ unit(histories - histories.mean(0)).T
    own = np.diagonal(like)[:, None]
    below = (like < own).sum(1) + 0.5 * ((like == own).sum(1) - 1)
    return np.asarray(below / (len(users) - 1), dtype=np.float32)
