"""A MovieLens folder (ml-latest, ml-20m to ml-32m: ratings.csv, movies.csv, tags.csv) as a `Dataset`."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from palate.data.columns import fit_table
from palate.data.dataset import Dataset
from palate.data.files import UnreadableError, read_raw
from palate.data.findings import report_of
from palate.data.readers import read_dataset

_YEAR = r"\((\d{4})(?:[-–]\d{0,4})?\)\s*$"
_ARTICLE = r"^(.*?), (The|A|An|La|Le|Les|Il|El|Los|Las|Das|Der|Die|Den|Det)( \(.*)?$"


def read_movielens(folder: str | Path) -> Dataset:
    """Films and ratings. `text` says title, year and genres in words; `year` (int32) is null where unknown.

    The users' tags stay out of it: they are the human labels that knowledge is measured against.

    Raises:
        InputError: A file is missing or does not fit.
    """
    folder = Path(folder)
    dataset = read_dataset(folder / "movies.csv", folder / "ratings.csv")
    year = pl.col("title").str.extract(_YEAR).cast(pl.Int32, strict=False)
    items = dataset.items.with_columns(year.alias("year")).with_columns(_words().alias("text"))
    events = dataset.events.with_columns(pl.lit("rating").alias("event_type"))
    return Dataset(items, events, dataset.users)


def read_movielens_tags(folder: str | Path) -> pl.DataFrame:
    """The users' tags as written: `user_id`, `item_id`, `tag` (string) and `timestamp` (UTC), in the file's order.

    Raises:
        InputError: tags.csv is missing or does not fit.
    """
    try:
        raw = read_raw(Path(folder) / "tags.csv")
    except UnreadableError as broken:
        report_of(broken.findings).raise_errors()
        raise
    frame, findings = fit_table(raw, "events")
    if frame is not None and "tag" not in frame.columns:
        findings.append(raw.finding("error", "the column `tag` is missing", "it holds the tag's words", "tag"))
    report_of(findings).raise_errors()
    assert frame is not None  # a missing column is an error
    return frame.select("user_id", "item_id", pl.col("tag").cast(pl.String), "timestamp")


def _words() -> pl.Expr:
    """`Matrix, The (1999)` with its genres becomes `The Matrix, a film from 1999. Genres: Action, Sci-Fi.`"""
    name = pl.col("title").str.replace(_YEAR, "").str.strip_chars().str.replace(_ARTICLE, "${2} ${1}${3}")
    when = pl.when(pl.col("year").is_null()).then(pl.lit("")).otherwise(pl.format(" from {}", "year"))
    genres = pl.col("categories").list.join(", ")
    listed = pl.when(genres == "").then(pl.lit("")).otherwise(pl.format(" Genres: {}.", genres))
    return pl.format("{}, a film{}.{}", name, when, listed)
