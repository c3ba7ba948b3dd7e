"""A folder of a data set: items, events, users and labels, in any format that is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from palate.data.dataset import Dataset
from palate.data.files import ACCEPTED, UnreadableError, read_raw
from palate.data.findings import report_of
from palate.data.movielens import read_movielens, read_movielens_tags
from palate.data.readers import read_dataset
from palate.errors import InputError

_EVENTS = ("events", "interactions", "ratings", "clicks", "log")
_LABELS = {"item_id": pl.String, "label": pl.String, "source": pl.String, "user_id": pl.String}


def read_folder(folder: Path) -> Dataset:
    """`items.*` and `events.*` (or interactions, ratings, clicks, log) and, if there, `users.*`; or a MovieLens folder.

    Raises:
        InputError: No such files, or as `read_dataset`.
    """
    if (folder / "movies.csv").exists():
        return read_movielens(folder)
    items, events = _named(folder, ("items",)), _named(folder, _EVENTS)
    for what, found in (("items", items), ("events", events)):
        if found is None:
            raise InputError(
                f"The folder holds no file of {what}.",
                where=str(folder),
                got=", ".join(sorted(path.name for path in folder.glob("*"))) or "nothing",
                allowed=f"{what if what == 'items' else '|'.join(_EVENTS)} with one of {', '.join(ACCEPTED)}",
            )
    assert items is not None and events is not None
    return read_dataset(items, events, _named(folder, ("users",)))


def read_labels(folder: Path) -> pl.DataFrame | None:
    """People's words for items, `labels.*` or MovieLens' tags: item_id, label (lower case), source, user_id.

    Raises:
        InputError: A file without item_id or label.
    """
    if (folder / "tags.csv").exists():
        tags = read_movielens_tags(folder).rename({"tag": "label"}).with_columns(source=pl.lit("user_tag"))
        return _in_order(tags)
    path = _named(folder, ("labels", "tags"))
    if path is None:
        return None
    try:
        table = read_raw(path).frame
    except UnreadableError as broken:
        report_of(broken.findings).raise_errors()
        raise
    table = table.rename({"tag": "label"}, strict=False)
    missing = sorted({"item_id", "label"} - set(table.columns))
    if missing:
        got = ", ".join(table.columns)
        raise InputError("A column of the labels is missing.", where=f"{path}, column {missing[0]}", got=got)
    return _in_order(table)


def _in_order(table: pl.DataFrame) -> pl.DataFrame:
    known = {"source": "labels", "user_id": None}
    given = [pl.col(c) if c in table.columns else pl.lit(known.get(c)).alias(c) for c in _LABELS]
    table = table.select(given).cast(_LABELS)  # type: ignore[arg-type]
    return table.with_columns(pl.col("label").str.to_lowercase().str.strip_chars()).drop_nulls(["item_id", "label"])


def _named(folder: Path, stems: Sequence[str]) -> Path | None:
    files = (folder / f"{stem}{ending}{packed}" for stem in stems for ending in ACCEPTED for packed in ("", ".gz"))
    return next((file for file in files if file.is_file()), None)
