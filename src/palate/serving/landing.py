"""From the state to Parquet: what happened, in part files that the next training reads."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl

from palate.data.whole_file import replace_file
from palate.serving.state import LANDED, State

PART = 100_000  # rows of a part file, at most


def land(state: State, folder: Path) -> int:
    """Write all rows that are not landed to `folder/events` and `folder/impressions`; returns how many.

    A part file is named after its rows and there whole or not at all. Killed at any moment, the next call writes the
    same file again: no row is lost, none is in two files.

    Raises:
        StorageError: for a full disk, or a state that cannot be reached; the rows stay in the state.
    """
    written = 0
    for table, schema in LANDED.items():
        while (batch := state.batch(table, PART)) is not None:
            plain = {name: pl.Int64 if name == "timestamp" else kind for name, kind in schema.items()}
            rows = pl.DataFrame(batch.rows, schema=plain).cast(schema)  # type: ignore[arg-type]
            content = io.BytesIO()
            rows.write_parquet(content)
            replace_file(folder / table / f"{batch.first}_{batch.last}.parquet", content.getvalue(), "The part file")
            state.landed(batch)
            written += len(batch.rows)
    return written
