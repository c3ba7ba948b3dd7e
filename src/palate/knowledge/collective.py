"""Collective extraction: one call for a cluster of users or items instead of one for each (KAR's first follow-up).

Items have collaborative vectors (who met them), users the mean of those of what they met, so that somebody new gets a
vector, and a place among the clusters, without any call. The paper's slides give no details: this is a reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from palate.data.dataset import Dataset, FloatArray, IntArray
from palate.data.samples import first_places
from palate.knowledge.blocks import item_blocks
from palate.knowledge.clusters import kmeans, nearest, soft_assignment, unit
from palate.knowledge.profiles import Interview, Seen, Subject, seen_windows


class CollectiveConfig(BaseModel):
    """How users and items are grouped."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    clusters: int = Field(default=60, ge=1, description="of users, and of items")
    titles: int = Field(default=15, ge=1, description="shown for a cluster")
    top: int = Field(default=3, ge=1, description="clusters that an entity belongs to")
    temperature: float = Field(default=0.1, gt=0, description="of the softmax over cosines")
    seed: int = Field(default=0, description="of the first centres")


@dataclass(frozen=True)
class Clusters:
    """`items` [n_items, d]: collaborative vectors, zeros for items that nobody met; centres [k, d] of either side."""

    items: FloatArray
    user_centres: FloatArray
    item_centres: FloatArray
    config: CollectiveConfig

    def user_vectors(self, seen: Sequence[Seen], n_users: int) -> FloatArray:
        """[n_users, d]: the mean direction of what each met, zeros for users without anything `seen`."""
        vectors = np.zeros((n_users, self.items.shape[1]), dtype=np.float32)
        for one in seen:
            vectors[one.user_num] = self.items[one.items].mean(axis=0)
        return unit(vectors)

    def user_shares(self, seen: Sequence[Seen], n_users: int) -> FloatArray:
        """[n_users, k]: how much each belongs to each cluster; nobody is asked."""
        return self._shares(self.user_vectors(seen, n_users), self.user_centres)

    def item_shares(self) -> FloatArray:
        """[n_items, k]."""
        return self._shares(self.items, self.item_centres)

    def _shares(self, vectors: FloatArray, centres: FloatArray) -> FloatArray:
        return soft_assignment(vectors, centres, self.config.top, self.config.temperature)


def seen_only(dataset: Dataset, train: npt.NDArray[np.bool_], cap: int = 30) -> Dataset:
    """The events that the leak guard lets be seen and that are marked as `train`: what clusters may be made of."""
    place = np.zeros(dataset.events.height, dtype=np.int64)
    order = np.argsort(dataset.events["user_num"].to_numpy(), kind="stable")
    offsets = dataset.histories.offsets
    place[order] = np.arange(len(order)) - np.repeat(offsets[:-1], np.diff(offsets))
    n = first_places(dataset, cap)[dataset.events["user_num"].to_numpy()]
    return dataset.with_events(dataset.events.filter(pl.Series((place < n) & train)))


def make_clusters(seen: Dataset, config: CollectiveConfig | None = None) -> Clusters:
    """Clusters of the users and items of `seen`, all of whose events may be known."""
    config = config or CollectiveConfig()
    rng = np.random.default_rng(config.seed)
    blocks = item_blocks(seen, ("company",))
    items = unit(blocks[0]) if blocks else np.zeros((seen.n_items, 1), dtype=np.float32)
    items = items * (seen.item_counts > 0)[:, None]
    empty = np.zeros((0, items.shape[1]), dtype=np.float32)
    made = Clusters(items, empty, empty, config)
    users = made.user_vectors(everything(seen), seen.n_users)
    return Clusters(items, _centres(users, config, rng), _centres(items, config, rng), config)


def ask_clusters(seen: Dataset, clusters: Clusters, interview: Interview) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Knowledge rows of the user clusters and of the item clusters; entity `user-cluster-7`.

    Both are as of the last event that they rest on.
    """
    as_of = int(seen.histories.times.max(initial=0))
    users = interview.ask(_subjects(seen, user_titles(seen, clusters), "user", as_of, interview), "user", cluster=True)
    items = interview.ask(_subjects(seen, item_titles(clusters), "item", as_of, interview), "item", cluster=True)
    return users, items


def cluster_ids(side: str, n: int) -> list[str]:
    return [f"{side}-cluster-{k}" for k in range(n)]


def user_titles(seen: Dataset, clusters: Clusters) -> list[IntArray]:
    """For each user cluster the items most lifted in it: met by its members much more often than by everybody.

    Counts are smoothed by 5 events drawn from everybody, so that one member's odd item is no lift.
    """
    owners = np.full(seen.n_users, -1, dtype=np.int64)
    vectors = clusters.user_vectors(everything(seen), seen.n_users)
    there = vectors.any(axis=1)
    owners[there] = nearest(vectors[there].astype(np.float64), clusters.user_centres.astype(np.float64))
    by_event, items = owners[seen.events["user_num"].to_numpy()], seen.events["item_num"].to_numpy()
    everybody = seen.item_counts / max(seen.events.height, 1)
    found = []
    for cluster in range(len(clusters.user_centres)):
        counts = np.bincount(items[by_event == cluster], minlength=seen.n_items)
        lift = (counts + 5 * everybody) / (counts.sum() + 5) / np.maximum(everybody, 1e-12)
        best = np.lexsort((-counts, -lift * (counts > 0)))
        found.append(best[: min(clusters.config.titles, int((counts > 0).sum()))].astype(np.int32))
    return found


def item_titles(clusters: Clusters) -> list[IntArray]:
    """For each item cluster the members nearest to its centre."""
    cosines = unit(clusters.items) @ unit(clusters.item_centres).T
    known = clusters.items.any(axis=1)
    owners = np.where(known, cosines.argmax(axis=1), -1)
    found = []
    for cluster in range(len(clusters.item_centres)):
        members = np.flatnonzero(owners == cluster)
        order = np.argsort(-cosines[members, cluster], kind="stable")[: clusters.config.titles]
        found.append(members[order].astype(np.int32))
    return found


def _subjects(
    dataset: Dataset, titles: Sequence[IntArray], side: str, as_of: int, interview: Interview
) -> list[Subject]:
    named, chars = dataset.items["title"].to_list(), interview.config.title_chars
    shown = ["\n".join(str(named[item] or "")[:chars] for item in items.tolist()) for items in titles]
    names = cluster_ids(side, len(titles))
    return [Subject(name, text, as_of) for name, text in zip(names, shown, strict=True)]


def everything(dataset: Dataset) -> list[Seen]:
    counts = np.diff(dataset.histories.offsets)
    return seen_windows(dataset, np.zeros_like(counts), counts)


def _centres(vectors: FloatArray, config: CollectiveConfig, rng: np.random.Generator) -> FloatArray:
    known: npt.NDArray[np.float64] = vectors[vectors.any(axis=1)].astype(np.float64)
    k = max(1, min(config.clusters, len(known)))
    return kmeans(known, k, rng).astype(np.float32)
