"""What a snapshot serves, once it is open: arrays, tables and models, and what is made of them on first use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.dataset import FloatArray, Histories, IntArray
from palate.data.query import Query
from palate.interests.explore import TransitionTable
from palate.interests.policy import in_turn
from palate.interests.tree import InterestTree, Node
from palate.serving.columns import ItemColumns
from palate.serving.fresh import FreshIndex, NewItems
from palate.serving.grown import Chained, ItemNums
from palate.serving.retrieve import RestrictedIndex
from palate.serving.scores import Quantised
from palate.serving.spans import Allowed, merge

POPULAR = 4000  # items that are popular enough to be shown to anybody
NEWEST = 1000  # items of the catalogue that are looked through for new ones


class QueryEncoder(Protocol):
    """Turns histories into query vectors."""

    def encode(self, queries: Sequence[Query]) -> FloatArray: ...


class Ranker(Protocol):
    """Orders candidates."""

    def score(self, snapshot: Snapshot, history: IntArray, vector: FloatArray, items: IntArray) -> FloatArray:
        """Of `items` [m] for a history (item_nums, oldest first) with its query vector [d]: higher is better."""

    def compile(self, snapshot: Snapshot) -> bool:
        """Have it done by compiled code from now on, where that can be."""


@dataclass(frozen=True)
class Newest:
    """Items, the newest first."""

    items: IntArray  # [m], item_nums
    times: npt.NDArray[np.int64]  # [m], microseconds since the epoch
    vectors: FloatArray  # [m, d]
    places: IntArray  # [n_items], of an item among them, or -1

    def created(self, item: int) -> str | None:
        """The day, as in "2024-05-31", if the item is one of these."""
        place = self.places.item(item) if item < len(self.places) else -1
        return None if place < 0 else self._days[place]

    @cached_property
    def _days(self) -> list[str]:
        return [f"{datetime.fromtimestamp(time / 1e6, UTC):%Y-%m-%d}" for time in self.times.tolist()]


@dataclass(frozen=True)
class Snapshot:
    """An open snapshot, read-only. Rows of `items` and columns of `attributes` are by item_num.

    `new` are items that came after it was built (`with_new`): their item_nums go on where the tree's end. They are in
    `items` and `index`, nobody has chosen them, and the arrays of the files do not have them.
    """

    path: Path
    manifest: dict[str, Any]
    items: pl.DataFrame
    vectors: FloatArray  # [n_items, d], in leaf order
    attributes: FloatArray  # [n_attributes, n_items], probabilities
    quantised: Quantised  # the vectors in int8, in leaf order
    columns: ItemColumns  # what restricts ask of the items
    popularity: FloatArray  # [n_items]
    histories: Histories
    user_ids: list[str]
    tree: InterestTree
    transitions: TransitionTable
    knowledge: pl.DataFrame  # columns of `knowledge.tables.SCHEMA` but `vector`, and `kind`
    run: dict[str, Any]
    encoder: QueryEncoder
    ranker: Ranker | None = None
    user_vectors: FloatArray | None = None  # [n_users, d], of the histories as built
    text_map: FloatArray | None = None  # [text's width + 1, d + n_attributes + n_leaves], see `text_map.fit_text_map`
    new: NewItems | None = None

    @property
    def n_built(self) -> int:
        """Items that were there when the snapshot was built."""
        return len(self.tree.order)

    def with_new(self, new: NewItems, items: pl.DataFrame) -> Snapshot:
        """This snapshot as built, and all `new` items beside, with their rows of `items`. Files and caches are shared.

        Raises:
            InputError: as `FreshIndex.with_new`.
        """
        base: Snapshot = self.__dict__.get("_base", self)
        thresholds = {each["name"]: float(each["threshold"]) for each in base.manifest["attributes"]}
        rows = pl.concat([base.items, items], how="diagonal_relaxed")
        popularity = np.concatenate([base.popularity, np.zeros(len(new.leaves), dtype=np.float32)])
        grown, ids = replace(base, items=rows, popularity=popularity, new=new), items["item_id"].to_list()
        nums = dict(zip(ids, range(base.n_built, base.n_built + len(ids)), strict=True))
        # What is made of the whole catalogue is made once, however often something comes.
        grown.__dict__.update(
            _base=base,
            index=FreshIndex(base.index.main).with_new(new, thresholds),
            by_popularity=_without(base.by_popularity, new.replaces),
            item_ids=Chained(base.item_ids, ids),
            titles=Chained(base.titles, _titles(items)),
            item_nums=ItemNums(base.item_nums, nums, frozenset(new.replaces.tolist())),
            categories=Chained(base.categories, _categories(items)),
            **{
                name: getattr(base, name)
                for name in (
                    "likeness",
                    "by_turn",
                    "newest",
                    "user_nums",
                    "_by_entity",
                    "_filled",
                    "_stretches",
                    "_allowed",
                    "_leaves",
                )
            },
        )
        return grown

    def vector(self, item: int) -> FloatArray:
        """Of an item_num, [d]."""
        if self.new is not None and item >= self.n_built:
            return np.asarray(self.new.vectors[item - self.n_built])
        return np.asarray(self.vectors[self.tree.position[item]])

    def probability(self, attribute: int, item: int) -> float:
        """That an item has the attribute of a row of `attributes`; NaN where nobody said."""
        if self.new is not None and item >= self.n_built:
            labels = self.new.attributes.get(self.attribute_names[attribute])
            return float("nan") if labels is None else float(labels[item - self.n_built])
        return float(self.attributes[attribute, item])

    def interests_of(self, item: int) -> list[Node]:
        """The nodes above an item, from the top (without the root) to its leaf."""
        path = [self.tree.nodes[self.leaf_of(item)]]
        while path[0].level > 1 and path[0].parent is not None:
            path.insert(0, self.tree.nodes[path[0].parent])
        return path

    def leaf_of(self, item: int) -> int:
        """The leaf, as a node."""
        if self.new is not None and item >= self.n_built:
            return int(self.new.leaves[item - self.n_built])
        return self._leaves.item(item)

    def stretch(self, node: int) -> Allowed:
        """The places of a node of the tree."""
        return self._allowed[node]

    @cached_property
    def _allowed(self) -> list[Allowed]:
        return [Allowed(merge([(node.start, node.stop)])) for node in self.tree.nodes]

    @cached_property
    def _leaves(self) -> IntArray:
        return self.tree.node_of_items(self.tree.depth)

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def verb(self) -> str:
        return str(self.manifest["verb"])

    @property
    def explore_level(self) -> int:
        return int(self.manifest["explore_level"])

    @cached_property
    def usual_length(self) -> float:
        """Of item vectors: the mean of ten thousand."""
        some = self.vectors[:: max(1, self.n_built // 10_000)]
        return float(np.linalg.norm(some, axis=1).mean())

    @cached_property
    def attribute_names(self) -> list[str]:
        return [attribute["name"] for attribute in self.manifest["attributes"]]

    @cached_property
    def base_rates(self) -> dict[str, float]:
        """Share of the catalogue that has each attribute."""
        return {name: having.count / self.n_built for name, having in self.columns.values["attr"].items()}

    @cached_property
    def index(self) -> FreshIndex:
        return FreshIndex(RestrictedIndex(self.vectors, self.columns, self.quantised))

    def compile(self) -> bool:
        """As `RestrictedIndex.compile`, of both indices, the transitions and the ranker."""
        self.transitions.compile()
        if self.ranker is not None:
            self.ranker.compile(self)
        return self.index.main.compile() and self.likeness.compile()

    @property
    def gone(self) -> IntArray:
        """item_nums of the built ones that were deleted since."""
        return self.index.gone

    @cached_property
    def likeness(self) -> RestrictedIndex:
        """The index whose scores, for a query of unit length, are cosines."""
        lengths = np.sqrt(np.einsum("ij,ij->i", self.vectors, self.vectors))
        weights = 1 / np.where(lengths > 0, lengths, 1)
        return RestrictedIndex(self.vectors, self.columns, self.quantised, weights.astype(np.float32))

    @cached_property
    def item_ids(self) -> Sequence[str]:
        ids: list[str] = self.items["item_id"].to_list()
        return ids

    @cached_property
    def titles(self) -> Sequence[str]:
        """Titles by item_num; an item without one is called by its id."""
        return _titles(self.items)

    @cached_property
    def item_nums(self) -> Mapping[str, int]:
        return {item_id: num for num, item_id in enumerate(self.item_ids)}

    @cached_property
    def user_nums(self) -> dict[str, int]:
        return {user_id: num for num, user_id in enumerate(self.user_ids)}

    @cached_property
    def by_popularity(self) -> IntArray:
        """item_nums, the most popular first, ties by item_num."""
        return np.lexsort((np.arange(len(self.popularity)), -self.popularity)).astype(np.int32)

    @cached_property
    def by_turn(self) -> IntArray:
        """The most popular of each interest, then the second of each, and so on; then those that are not popular."""
        head = self.by_popularity[:POPULAR]
        turns = in_turn(head, self.tree.node_of_items(min(1, self.tree.depth))[head])
        return np.concatenate([turns, self.by_popularity[POPULAR:]])

    @cached_property
    def newest(self) -> Newest:
        """The items that were created last, of those whose `created_at` is known."""
        items, times = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64)
        if "created_at" in self.items.columns:
            known = self.items[: self.n_built].drop_nulls("created_at").sort("created_at", descending=True)[:NEWEST]
            items, times = known["item_num"].to_numpy(), known["created_at"].to_physical().to_numpy().astype(np.int64)
        places = np.full(self.n_built, -1, dtype=np.int32)
        places[items] = np.arange(len(items))
        return Newest(items, times, self.vectors[self.tree.position[items]], places)

    @cached_property
    def categories(self) -> Sequence[list[str]]:
        """By item_num."""
        return _categories(self.items)

    def history(self, user_id: str) -> IntArray:
        """item_nums of a user, oldest first, without items that are gone; empty for someone unknown."""
        num = self.user_nums.get(user_id)
        return np.zeros(0, dtype=np.int32) if num is None else _without(self.histories.of(num), self.gone)

    def user_vector(self, user_id: str) -> FloatArray | None:
        """[1, d], what the encoder makes of a user's history as built; None where that is not kept."""
        num = self.user_nums.get(user_id)
        return None if num is None or self.user_vectors is None else self.user_vectors[num : num + 1]

    def encode_one(self, query: Query) -> FloatArray:
        """[1, d]."""
        return self.encoder.encode([query])

    def known(self, entity: str) -> list[dict[str, Any]]:
        """All knowledge rows about an item, user or node, in the order they were kept."""
        stretch = self._stretches.get(entity)
        return [] if stretch is None else self._by_entity.slice(*stretch).to_dicts()

    def known_as(self, entity: str, kind: str, name: str) -> list[dict[str, Any]]:
        """Of `known` the rows of a kind and a name, without columns that are null in all of the knowledge."""
        stretch = self._stretches.get(entity)
        rows = [] if stretch is None else self._filled.slice(*stretch).to_dicts()
        return [row for row in rows if row["kind"] == kind and row["name"] == name]

    @cached_property
    def _filled(self) -> pl.DataFrame:
        """`_by_entity` without columns of nulls: each costs as much to read as a full one."""
        full = [column for column in self._by_entity if column.null_count() < len(column)]
        return self._by_entity.select("kind", "name", *{each.name for each in full} - {"kind", "name"})

    @cached_property
    def _stretches(self) -> dict[str, tuple[int, int]]:
        """By entity the first of its rows in `_by_entity`, and how many they are."""
        runs = self._by_entity["entity"].rle().struct.unnest()
        first = (runs["len"].cum_sum() - runs["len"]).to_list()
        return dict(zip(runs["value"].to_list(), zip(first, runs["len"].to_list(), strict=True), strict=True))

    @cached_property
    def _by_entity(self) -> pl.DataFrame:
        """The knowledge in order of entities, each one's rows as they stood: a stretch is read, nothing is gathered."""
        sorted_ = self.knowledge["entity"].is_sorted()
        return self.knowledge if sorted_ else self.knowledge.sort("entity", maintain_order=True).rechunk()


def _titles(items: pl.DataFrame) -> list[str]:
    return [title or item_id for title, item_id in items.select("title", "item_id").iter_rows()]


def _categories(items: pl.DataFrame) -> list[list[str]]:
    return [each or [] for each in items["categories"].to_list()]


def _without(items: IntArray, gone: IntArray) -> IntArray:
    return items[~np.isin(items, gone)] if len(gone) else items
