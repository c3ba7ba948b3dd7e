"""Opening a snapshot: every file checked against its manifest, large arrays memory-mapped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
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
from palate.errors import StorageError
from palate.interests.explore import TransitionTable
from palate.interests.policy import in_turn
from palate.interests.tree import InterestTree, Node, load_tree
from palate.serving.columns import ItemColumns, columns_from
from palate.serving.fresh import FreshIndex, NewItems
from palate.serving.grown import Chained, ItemNums
from palate.serving.retrieve import RestrictedIndex
from palate.serving.scores import Quantised
from palate.serving.snapshot import FORMAT, content_hash, file_sha256
from palate.serving.spans import Allowed, merge
from palate.serving.versions import MANIFEST

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


class MeanOfHistory:
    """Stands in where a snapshot has no sequence encoder: the mean of the history's item vectors."""

    def __init__(self, vectors: FloatArray, tree: InterestTree, max_length: int) -> None:
        self.vectors, self.tree, self.max_length = vectors, tree, max_length

    def encode(self, queries: Sequence[Query]) -> FloatArray:
        result = np.zeros((len(queries), self.vectors.shape[1]), dtype=np.float32)
        for row, query in zip(result, queries, strict=True):
            recent = query.history[-self.max_length :]
            if len(recent):
                row[:] = self.vectors[self.tree.position[recent]].mean(axis=0)
        return result


def load_snapshot(path: Path) -> Snapshot:
    """Open a snapshot after checking size and SHA-256 of every file.

    Raises:
        StorageError: naming the file that is missing, changed or unreadable.
    """
    manifest = read_manifest(path / MANIFEST)
    verify_files(path, manifest)
    tree = load_tree(path / "tree.json")
    vectors = _open(path / "vectors.npy", _mapped)
    attributes = _open(path / "attributes.npy", _mapped)
    names = [attribute["name"] for attribute in manifest["attributes"]]
    bits, places, numbers = (_open(path / f"{name}.npy", _mapped) for name in ("bits", "places", "numbers"))
    table = _open(path / "columns.parquet", pl.read_parquet)
    history = [_open(path / f"history_{name}.npy", np.load) for name in ("offsets", "items", "times")]
    return Snapshot(
        path=path,
        manifest=manifest,
        items=_open(path / "items.parquet", pl.read_parquet),
        vectors=vectors,
        attributes=attributes,
        quantised=Quantised(
            _open(path / "codes.npy", _mapped),
            _open(path / "scales.npy", _mapped),
            float(_open(path / "code_error.npy", np.load)),
        ),
        columns=columns_from(table, (bits, places, numbers), tree, dict(zip(names, attributes, strict=True))),
        popularity=_open(path / "popularity.npy", np.load),
        histories=Histories(*history),
        user_ids=_open(path / "users.parquet", pl.read_parquet)["user_id"].to_list(),
        tree=tree,
        transitions=TransitionTable(_open(path / "transitions.parquet", pl.read_parquet)),
        knowledge=_open(path / "knowledge.parquet", pl.read_parquet).fill_nan(None),  # JSON has no NaN
        run=_open(path / "run.json", lambda file: json.loads(file.read_text(encoding="utf-8"))),
        encoder=_encoder(path, manifest, vectors, tree),
        ranker=_ranker(path),
        user_vectors=_open(path / "user_vectors.npy", _mapped) if "user_vectors.npy" in manifest["files"] else None,
        text_map=_open(path / "text_map.npy", np.load) if "text_map.npy" in manifest["files"] else None,
    )


def verify_files(path: Path, manifest: dict[str, Any]) -> None:
    """Compare every file of a snapshot with its manifest.

    Raises:
        StorageError: naming the first file that is missing or changed.
    """
    for name, written in manifest["files"].items():
        file = path / name
        try:
            same = file.stat().st_size == written["bytes"] and file_sha256(file) == written["sha256"]
        except OSError as error:
            raise _damaged(file, error) from error
        if not same:
            raise _damaged(file, "its checksum is not the one in the manifest")


def read_manifest(file: Path) -> dict[str, Any]:
    """What a snapshot's manifest says.

    Raises:
        StorageError: It is missing, of another format, or not as it was written.
    """
    manifest: dict[str, Any] = _open(file, lambda file: json.loads(file.read_text(encoding="utf-8")))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _damaged(file, f"not a manifest of format {FORMAT}")
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    if manifest.get("sha256") != content_hash(rest):
        raise _damaged(file, "its checksum is wrong")
    return manifest


def _encoder(path: Path, manifest: dict[str, Any], vectors: FloatArray, tree: InterestTree) -> QueryEncoder:
    file = path / "encoder.onnx"
    if not file.exists():
        return MeanOfHistory(vectors, tree, manifest["max_length"])
    from palate.models.sequence_encoder import OnnxSequenceEncoder

    encoder: QueryEncoder = OnnxSequenceEncoder(file, manifest["max_length"])
    return encoder


def _ranker(path: Path) -> Ranker | None:
    file = path / "ranker.onnx"
    if not file.exists():
        return None
    from palate.serving.rank import SnapshotRanker

    return SnapshotRanker(file)


def _mapped(file: Path) -> npt.NDArray[Any]:
    """Memory-mapped, but seen as a plain array: `np.memmap` makes every small slice slower."""
    mapped: npt.NDArray[Any] = np.load(file, mmap_mode="r")
    return mapped.view(np.ndarray)


def _open(file: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(file)
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, why: object) -> StorageError:
    return StorageError(
        "A file of the snapshot is missing or damaged",
        where=str(file),
        got=why,
        hint="Build the snapshot again, or `palate snapshot use` another one.",
    )
