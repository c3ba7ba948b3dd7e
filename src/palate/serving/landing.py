"""From the state to Parquet: what happened, in part files that the next training reads."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from palate.data.whole_file import replace_file
from palate.errors import StorageError
from palate.serving.state import LANDED, State, Table

PART = 100_000  # rows of a part file, at most
_PARTS = b"palate.parts"  # in a file's metadata
_NAME = re.compile(r"[^_.]+_[^_.]+(_[0-9a-f]{12})?\.parquet")  # as `land` names a part
ITEMS = "items.parquet"
ELSEWHERE = ".sink"  # there where a server lands events into a sink, too: nobody without it may land them
LANDED_ITEMS: dict[str, Any] = {
    "item_id": pl.String,
    "title": pl.String,
    "text": pl.String,
    "categories": pl.List(pl.String),
    "year": pl.Int32,
    "deleted": pl.Boolean,
}
"""Columns of `items.parquet`, one row for each item that was put or deleted, in the order of their last change."""


class Sink(Protocol):
    """Takes what is landed, too."""

    def send(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Return when it has them all.

        Raises:
            StorageError: It has not; the same rows are sent again.
        """


def land(state: State, folder: Path, sink: Sink | None = None) -> int:
    """Write all rows that are not landed to `folder/events` and `folder/impressions`; returns how many.

    A part file is named after its rows and there whole or not at all. Killed at any moment, the next call writes the
    same file again: no row is lost, none is in two files. The `sink` gets them behind the file, each at least once.

    Raises:
        StorageError: for a full disk, or a state that cannot be reached; the rows stay in the state.
    """
    written = 0
    for table, schema in LANDED.items():
        while (batch := state.batch(table, PART)) is not None:
            plain = {name: pl.Int64 if name == "timestamp" else kind for name, kind in schema.items()}
            rows = pl.DataFrame(batch.rows, schema=plain).cast(schema)  # type: ignore[arg-type]
            # A state that begins anew counts from one again: its parts must not replace those of the one before.
            digest = hashlib.sha256(json.dumps(batch.rows, sort_keys=True).encode()).hexdigest()[:12]
            name = f"{batch.first}_{batch.last}_{digest}.parquet"
            replace_file(folder / table / name, _parquet(rows), "The part file")
            if sink is not None:
                sink.send(table, batch.rows)
            state.landed(batch)
            written += len(batch.rows)
    return written


def compact(folder: Path, at_least: int = 100) -> int:
    """Put small part files together where there are so many; returns how many went. One process at a time.

    The new file names those that it stands for: killed before these were removed, the next call removes them.

    Raises:
        StorageError: for a full disk; all is as it was.
    """
    gone = 0
    for table in LANDED:
        parts = [part for part in sorted((folder / table).glob("*.parquet")) if _NAME.fullmatch(part.name)]
        try:
            known = {part: pq.read_metadata(part) for part in parts}
            stale = {folder / table / name for each in known.values() for name in _stands_for(each)}
            small = [part for part, each in known.items() if each.num_rows < PART and part not in stale]
            if len(small) >= at_least:
                _put_together(small)
                stale |= {*small}
        except (OSError, pa.ArrowException):
            continue  # who reads them names the broken one
        for part in stale & {*parts}:
            part.unlink(missing_ok=True)
            gone += 1
    return gone


def _put_together(small: list[Path]) -> None:
    rows = pa.concat_tables([pq.read_table(part) for part in small], promote_options="default")
    names = json.dumps([part.name for part in small])
    content = io.BytesIO()
    pq.write_table(rows.replace_schema_metadata({_PARTS: names}), content)
    first, last = small[0].name.split("_")[0], small[-1].stem.split("_")[1]
    digest = hashlib.sha256(names.encode()).hexdigest()[:12]
    replace_file(small[0].with_name(f"{first}_{last}_{digest}.parquet"), content.getvalue(), "The part file")


def _stands_for(part: pq.FileMetaData) -> list[str]:
    names: list[str] = json.loads((part.metadata or {}).get(_PARTS, b"[]"))
    return names


def land_items(state: State, folder: Path) -> int:
    """Write the items that were put or deleted to `folder/items.parquet`; returns how many rows it has.

    Rows of a state before this one stay. Of several processes each reads the state while it alone may write, so that
    an older reading never replaces a newer one.

    Raises:
        StorageError: as `land`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f".{ITEMS}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _write_items(state, folder / ITEMS)
    except (OSError, pl.exceptions.PolarsError) as error:
        hint = "Remove the file if it is damaged: it is written again from the state."
        raise StorageError("The items could not be landed", where=str(folder / ITEMS), got=error, hint=hint) from error


def _write_items(state: State, file: Path) -> int:
    kept = state.items()[1]
    said = [{**each.item, "deleted": each.gone} for each in kept]
    rows = pl.DataFrame([[row.get(name) for name in LANDED_ITEMS] for row in said], schema=LANDED_ITEMS, orient="row")
    before = pl.read_parquet(file) if file.exists() else rows.clear()
    table = pl.concat([before.join(rows, on="item_id", how="anti", maintain_order="left"), rows])
    if not table.equals(before):
        replace_file(file, _parquet(table), "The file of items")
    return table.height


def _parquet(rows: pl.DataFrame) -> bytes:
    content = io.BytesIO()
    rows.write_parquet(content)
    return content.getvalue()
