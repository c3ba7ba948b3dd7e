"""Knowledge on disk: one folder a kind, one Parquet file a part, written once and never changed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import polars as pl

from palate.errors import InputError, StorageError
from palate.knowledge.tables import KINDS, SCHEMA, Knowledge


class KnowledgeStore:
    """Append-only: `add` writes a new part; the same rows added again are one part."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, kind: str, rows: pl.DataFrame) -> Path:
        """Keep rows in `SCHEMA` (missing columns are null). Returns the part's file.

        Raises:
            InputError: for an unknown kind or column, or a wrong type.
            StorageError: if the part cannot be written; nothing is left behind.
        """
        table = in_schema(kind, rows)
        digest = hashlib.sha256()
        for value in table.hash_rows(seed=0).to_list():
            digest.update(value.to_bytes(8, "little"))
        part = self.folder / kind / f"{digest.hexdigest()[:24]}.parquet"
        if not part.exists():
            write_parquet(table, part)
        return part

    def load(self) -> Knowledge:
        """All parts of all kinds, oldest part first."""
        tables = {}
        for kind in KINDS:
            parts = sorted((self.folder / kind).glob("*.parquet"), key=lambda part: part.stat().st_mtime_ns)
            if parts:
                tables[kind] = pl.concat([in_schema(kind, _read(part)) for part in parts])  # older parts lack columns
        return Knowledge(tables)


def in_schema(kind: str, rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` with exactly the columns and types of `SCHEMA`."""
    if kind not in KINDS:
        raise InputError("Unknown kind of knowledge.", got=kind, allowed=", ".join(KINDS))
    strange = [column for column in rows.columns if column not in SCHEMA]
    if strange:
        raise InputError("Unknown column of knowledge.", got=", ".join(strange), allowed=", ".join(SCHEMA))
    try:
        return rows.select(
            (pl.col(name) if name in rows.columns else pl.lit(None).alias(name)).cast(kind_of)
            for name, kind_of in SCHEMA.items()
        )
    except pl.exceptions.PolarsError as error:
        raise InputError(f"A column of {kind} rows has the wrong type.", got=error) from error


def write_parquet(table: pl.DataFrame, path: Path) -> None:
    """Write atomically: the file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        table.write_parquet(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(
            "A file could not be written.", where=str(path), got=error, hint="Free some space, then run again."
        ) from error


def _read(part: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(part)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise StorageError(
            "A part of the knowledge cannot be read.",
            where=str(part),
            got=error,
            hint="Move the file away and run again: answers are kept in the ledger and cost nothing again.",
        ) from error
