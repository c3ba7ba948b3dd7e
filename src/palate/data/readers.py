"""Reads a catalogue and a log into a `Dataset`, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from palate.data.check import examine_files
from palate.data.dataset import Dataset


def read_dataset(items_path: str | Path, events_path: str | Path, users_path: str | Path | None = None) -> Dataset:
    """A `Dataset` from Parquet, CSV, TSV, JSON lines or RecBole's atomic files (`.gz` allowed, fsspec addresses too).

    Columns go by Palate's names or the aliases of `data.aliases`; further columns are kept. Times may be dates,
    ISO 8601 or numbers since 1970, whose unit is told by their size; without a zone they are UTC. Ties in time keep
    the order of the file. Warnings of `data.check` do not stop it.

    Raises:
        InputError: Any error that `data.check` finds, each with file, row, column, count and remedy.
    """
    examined = examine_files(items_path, events_path, users_path)
    examined.report.raise_errors()
    assert examined.items is not None and examined.events is not None  # else there is an error
    return Dataset.from_tables(examined.items, examined.events, examined.users)
