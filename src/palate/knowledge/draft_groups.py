"""Who is alike, so that drafts of an answer come from the answers about those: the pools of DARE (arXiv 2408.05676).

A user with enough events is grouped with those who met the same (*collaborative*); a user with few with those who met
most of the same category, and an item with the items of its first category (*attribute*).
"""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from palate.data.dataset import Dataset
from palate.knowledge.clusters import nearest
from palate.knowledge.collective import CollectiveConfig, everything, make_clusters
from palate.llm.decoding.pools import GroupOf
from palate.llm.request import Request

NONE = "none"


class GroupsConfig(BaseModel):
    """How users are grouped."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    clusters: int = Field(default=3, ge=1, description="of users by what they met (DARE: 3)")
    least_events: int = Field(default=10, ge=1, description="of a user that is grouped by them")


def groups_of(dataset: Dataset, config: GroupsConfig | None = None) -> GroupOf:
    """The group of a request by its entity; made at the first request."""
    made: list[dict[str, dict[str, str]]] = []

    def group_of(request: Request) -> str:
        if not made:
            made.append({"item": item_groups(dataset), "user": user_groups(dataset, config or GroupsConfig())})
        side = "user" if "user" in request.purpose or request.entity not in made[0]["item"] else "item"
        return made[0][side].get(request.entity, NONE)

    return group_of


def item_groups(dataset: Dataset) -> dict[str, str]:
    """The first category of each item."""
    rows = dataset.items.select("item_id", "categories").iter_rows()
    return {item: f"category {(categories or [NONE])[0]}" for item, categories in rows}


def user_groups(dataset: Dataset, config: GroupsConfig) -> dict[str, str]:
    """The cluster of each user with `least_events`, the commonest category of the others."""
    counts = np.diff(dataset.histories.offsets)
    clusters = make_clusters(dataset, CollectiveConfig(clusters=config.clusters))
    vectors = clusters.user_vectors(everything(dataset), dataset.n_users)
    near = nearest(vectors.astype(np.float64), clusters.user_centres.astype(np.float64))
    category = list(item_groups(dataset).values())
    return {
        user: f"cluster {near[number]}"
        if counts[number] >= config.least_events
        else _commonest([category[item] for item in dataset.histories.of(number)])
        for number, user in enumerate(dataset.user_ids)
    }


def _commonest(names: list[str]) -> str:
    return max(sorted(set(names)), key=names.count, default=NONE)
