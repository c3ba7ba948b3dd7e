"""Opening a snapshot: every file checked against its manifest, large arrays memory-mapped."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.dataset import FloatArray, Histories
from palate.data.query import Query
from palate.errors import StorageError
from palate.interests.explore import TransitionTable
from palate.interests.tree import InterestTree, load_tree
from palate.serving.columns import columns_from
from palate.serving.opened import QueryEncoder, Ranker, Snapshot
from palate.serving.scores import Quantised
from palate.serving.snapshot import FORMAT, content_hash, file_sha256
from palate.serving.versions import MANIFEST


@contextmanager
def uncollected() -> Iterator[None]:
    """Python's collector rests, and never looks at what is there by the end.

    It would go through a snapshot's objects again and again while they are made, and with every full look later: a
    quarter of a second for 100,000 items, in which no request is answered. Snapshots are freed without it.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if was:
            gc.enable()


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
