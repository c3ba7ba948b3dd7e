"""`Snapshot`: an immutable, checksummed folder with all that serving needs, built offline and swapped whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.dataset import FloatArray, Histories
from palate.data.query import Query
from palate.errors import InputError, StorageError
from palate.interests.tree import InterestTree, save_tree
from palate.knowledge.tables import SCHEMA, Knowledge
from palate.serving.columns import make_columns, save_columns
from palate.serving.scores import quantise
from palate.serving.text_map import fit_text_map
from palate.serving.versions import MANIFEST

FORMAT = 2
BUILDING = ".building-"
_ABANDONED = 3600  # seconds without a change after which a build was killed, not slow
TRANSITION_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "node_a": pl.Int32,
    "node_b": pl.Int32,
    "next_node": pl.Int32,
    "probability": pl.Float32,
    "model": pl.String,
    "prompt_hash": pl.String,
}
ITEM_COLUMNS = ("item_id", "title", "categories", "year", "created_at")


@dataclass(frozen=True)
class SnapshotParts:
    """What a snapshot is built from. Everything about items is by item_num; the builder brings it in leaf order.

    `attributes` are probabilities [n_items]; an item has an attribute where they reach its threshold (0.5
    unless `thresholds` says otherwise). `attribute_models` names who labelled. `encoder` is an ONNX file for
    `models.sequence_encoder.OnnxSequenceEncoder`; without one a history is the mean of its items' vectors.
    `transitions` has the columns of `TRANSITION_SCHEMA`, over the nodes of `explore_level`. `verb` is what
    people do with an item, past tense ("watched").
    """

    items: pl.DataFrame  # item_id, title, categories, [year, created_at], and columns that restricts may ask for
    item_vectors: FloatArray  # [n_items, d]
    tree: InterestTree
    popularity: npt.NDArray[Any]  # [n_items], events
    histories: Histories
    user_ids: list[str]
    attributes: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    attribute_models: Mapping[str, str] = field(default_factory=dict)
    transitions: pl.DataFrame | None = None
    explore_level: int = 1
    knowledge: Knowledge = field(default_factory=Knowledge)
    encoder: Path | None = None
    max_length: int = 50
    ranker: Path | None = None  # an ONNX file of `models.ranking.pair_ranker.PairRanker`
    text_vectors: FloatArray | None = None  # [n_items, any width], by item_num: what new items are placed by
    text_encoder: str = ""  # that made them
    models: Mapping[str, str] = field(default_factory=dict)  # role to name, e.g. {"sequence": "sasrec"}
    verb: str = "chose"
    run: Mapping[str, Any] = field(default_factory=dict)


def build_snapshot(folder: Path, parts: SnapshotParts) -> Path:
    """Write a snapshot below `folder` and return its path. Its name is the hash of its content.

    It is written to a hidden folder beside and renamed when whole, so that nobody sees half a snapshot. The
    same parts give the same name, and what is already there is left alone. It is not made current: see `versions.use`.

    Raises:
        InputError: for parts that do not fit each other.
        StorageError: if it cannot be written; nothing is left behind.
    """
    _check(parts)
    temporary: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        temporary = Path(tempfile.mkdtemp(prefix=BUILDING, dir=folder))
        _write_files(temporary, parts)
        manifest = _manifest(temporary, parts)
        _write_text(temporary / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))
        for path in [*temporary.iterdir(), temporary]:
            _sync(path)
        target = folder / str(manifest["name"])
        if not target.exists():
            temporary.chmod(0o755)  # mkdtemp gives 0o700
            temporary.rename(target)
            _sync(folder)
        return target
    except (OSError, pl.exceptions.PolarsError) as error:
        raise StorageError(
            "The snapshot could not be written", where=str(folder), got=error, hint="Free some space, then run again."
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what killed builds and downloads left."""
    for left in folder.glob(f"{BUILDING}*"):
        if time.time() - left.stat().st_mtime > _ABANDONED:
            shutil.rmtree(left, ignore_errors=True)


def _check(parts: SnapshotParts) -> None:
    n_items, n_users = len(parts.tree.order), len(parts.user_ids)
    vectors = parts.item_vectors
    sizes = {
        "items": parts.items.height,
        "item_vectors": len(vectors) if vectors.ndim == 2 else -1,
        "popularity": len(parts.popularity),
        "text_vectors": n_items if parts.text_vectors is None else len(parts.text_vectors),
        **{f"attributes[{name}]": len(values) for name, values in parts.attributes.items()},
    }
    wrong = {name: size for name, size in sizes.items() if size != n_items}
    if wrong:
        raise InputError("Parts of the snapshot do not have one row an item", got=wrong, allowed=f"{n_items} rows")
    if not np.isfinite(vectors).all() or not all(np.isfinite(values).all() for values in parts.attributes.values()):
        raise InputError("Item vectors and attributes must be finite", where="SnapshotParts")
    if len(parts.histories.offsets) != n_users + 1:
        raise InputError(
            "Histories and users do not fit", got=len(parts.histories.offsets) - 1, allowed=f"{n_users} users"
        )
    missing = {"item_id", "title", "categories"} - set(parts.items.columns)
    if missing:
        raise InputError(
            "The items lack a column", where="SnapshotParts.items", got=parts.items.columns, allowed=ITEM_COLUMNS
        )
    if not 1 <= parts.explore_level <= parts.tree.depth:
        raise InputError(
            "The tree has no such level", where="explore_level", got=parts.explore_level, allowed=parts.tree.depth
        )
    for name, file in (("sequence encoder", parts.encoder), ("ranker", parts.ranker)):
        if file is not None and not file.is_file():
            raise InputError(f"The {name} is missing", where=str(file), hint="Train it again.")


def _write_files(folder: Path, parts: SnapshotParts) -> None:
    order = parts.tree.order
    numbered = parts.items.select(
        pl.col("item_id"),
        pl.int_range(pl.len(), dtype=pl.Int32).alias("item_num"),
        *[pl.col(name) for name in ITEM_COLUMNS[1:] if name in parts.items.columns],
    )
    numbered.write_parquet(folder / "items.parquet")
    vectors = np.ascontiguousarray(parts.item_vectors[order], dtype=np.float32)
    np.save(folder / "vectors.npy", vectors)
    quantised = quantise(vectors)
    np.save(folder / "codes.npy", quantised.codes)
    np.save(folder / "scales.npy", quantised.scales)
    np.save(folder / "code_error.npy", np.float64(quantised.error))
    save_columns(make_columns(parts.tree, _masks(parts), parts.items), folder)
    rows = [np.asarray(values, dtype=np.float32) for values in parts.attributes.values()]
    np.save(folder / "attributes.npy", np.stack(rows) if rows else np.zeros((0, len(order)), dtype=np.float32))
    np.save(folder / "popularity.npy", np.asarray(parts.popularity, dtype=np.float32))
    np.save(folder / "history_offsets.npy", parts.histories.offsets)
    np.save(folder / "history_items.npy", parts.histories.items)
    np.save(folder / "history_times.npy", parts.histories.times)
    pl.DataFrame({"user_id": parts.user_ids}, schema={"user_id": pl.String}).write_parquet(folder / "users.parquet")
    save_tree(parts.tree, folder / "tree.json")
    empty = pl.DataFrame(schema=TRANSITION_SCHEMA)
    transitions = empty if parts.transitions is None else parts.transitions.select(list(TRANSITION_SCHEMA))
    transitions.cast(TRANSITION_SCHEMA).write_parquet(folder / "transitions.parquet")  # type: ignore[arg-type]
    _knowledge_rows(parts.knowledge).write_parquet(folder / "knowledge.parquet")
    _write_text(folder / "run.json", json.dumps(dict(parts.run), ensure_ascii=False, default=str))
    if parts.text_vectors is not None:
        text_map = fit_text_map(parts.text_vectors, parts.item_vectors, parts.attributes, parts.tree, parts.popularity)
        np.save(folder / "text_map.npy", text_map)
    if parts.encoder is not None:
        shutil.copyfile(parts.encoder, folder / "encoder.onnx")
        np.save(folder / "user_vectors.npy", _user_vectors(parts))
    if parts.ranker is not None:
        shutil.copyfile(parts.ranker, folder / "ranker.onnx")


def _user_vectors(parts: SnapshotParts) -> FloatArray:
    """[n_users, d]: people of whom nothing new is known need not be encoded when they ask."""
    from palate.models.sequence_encoder import OnnxSequenceEncoder

    assert parts.encoder is not None
    encoder = OnnxSequenceEncoder(parts.encoder, parts.max_length)
    return encoder.encode([Query(None, parts.histories.of(user)) for user in range(len(parts.user_ids))])


def _masks(parts: SnapshotParts) -> dict[str, npt.NDArray[np.bool_]]:
    """Which items have each attribute, [n_items] by item_num."""
    return {
        name: np.asarray(values, dtype=np.float32) >= parts.thresholds.get(name, 0.5)
        for name, values in parts.attributes.items()
    }


def _knowledge_rows(knowledge: Knowledge) -> pl.DataFrame:
    """All kinds in one table with a `kind` column, by entity; vectors are left out: they are in the models."""
    columns = {"kind": pl.String, **{name: kind for name, kind in SCHEMA.items() if name != "vector"}}
    tables = [
        table.drop("vector").with_columns(pl.lit(kind).alias("kind")).select(list(columns))
        for kind, table in knowledge.tables.items()
        if kind != "vector" and table.height
    ]
    return pl.concat(tables).sort("entity", maintain_order=True) if tables else pl.DataFrame(schema=columns)


def _manifest(folder: Path, parts: SnapshotParts) -> dict[str, Any]:
    content = {
        "format": FORMAT,
        "n_items": len(parts.tree.order),
        "n_users": len(parts.user_ids),
        "dimensions": int(parts.item_vectors.shape[1]),
        "attributes": [
            {
                "name": name,
                "threshold": float(parts.thresholds.get(name, 0.5)),
                "model": parts.attribute_models.get(name, ""),
            }
            for name in parts.attributes
        ],
        "explore_level": parts.explore_level,
        "max_length": parts.max_length,
        "text_encoder": parts.text_encoder,
        "models": dict(parts.models),
        "verb": parts.verb,
        "files": {
            path.name: {"sha256": file_sha256(path), "bytes": path.stat().st_size} for path in sorted(folder.iterdir())
        },
    }
    manifest = {"name": content_hash(content)[:16], "created": datetime.now(UTC).isoformat(), **content}
    return {**manifest, "sha256": content_hash(manifest)}


def content_hash(content: Mapping[str, Any]) -> str:
    """Of a manifest or a part of one."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
