"""The log that an experiment is judged by: what was shown, what was done, and what is known of items and people."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from palate.errors import InputError

_SHOWN: dict[str, Any] = {"item_id": pl.String, "timestamp": pl.Datetime, "variant": pl.String}
_DONE: dict[str, Any] = {"item_id": pl.String, "timestamp": pl.Datetime, "event_type": pl.String}
_OPTIONAL = {"request_id": pl.String, "event_id": pl.String, "value": pl.Float64, "snapshot": pl.String}


@dataclass(frozen=True)
class Log:
    """Tables as they lie on disk, read where they are needed.

    Attributes:
        impressions: The unit's column, item_id, timestamp, variant (a label of `data.assignment`); request_id,
            snapshot.
        events: The unit's column, item_id, timestamp, event_type; value, request_id, event_id.
        items: item_id, and what metrics need: cluster, creator (text or numbers), vector (a list of numbers). One row
            an item.
        users: The unit's column and those that slices name.
    """

    impressions: pl.LazyFrame
    events: pl.LazyFrame
    items: pl.DataFrame | None = None
    users: pl.DataFrame | None = None
    notes: tuple[str, ...] = ()


def open_log(
    impressions: Path | Sequence[Path],
    events: Path | Sequence[Path],
    items: pl.DataFrame | None = None,
    users: pl.DataFrame | None = None,
    unit: str = "user_id",
) -> Log:
    """A log of Parquet files, or of folders of them.

    Raises:
        InputError: Nothing is there, a column is missing or of another type, or times have no zone.
    """
    shown, said = _scanned(impressions, {unit: pl.String, **_SHOWN}, "impressions")
    done, also = _scanned(events, {unit: pl.String, **_DONE}, "events")
    return Log(shown, done, items, users, (*said, *also))


def log_of(
    impressions: pl.LazyFrame | pl.DataFrame,
    events: pl.LazyFrame | pl.DataFrame,
    items: pl.DataFrame | None = None,
    users: pl.DataFrame | None = None,
    unit: str = "user_id",
) -> Log:
    """A log of tables; raises as `open_log`."""
    shown, said = _typed(impressions.lazy(), {unit: pl.String, **_SHOWN}, "impressions")
    done, also = _typed(events.lazy(), {unit: pl.String, **_DONE}, "events")
    return Log(shown, done, items, users, (*said, *also))


def _scanned(
    paths: Path | Sequence[Path], schema: Mapping[str, Any], what: str
) -> tuple[pl.LazyFrame, tuple[str, ...]]:
    listed = [paths] if isinstance(paths, Path) else list(paths)
    files = [file for path in listed for file in (sorted(path.glob("**/[!.]*.parquet")) if path.is_dir() else [path])]
    files = [file for file in files if file.is_file()]
    if not files:
        hint = "A server with a state lands them in .palate/landing a minute after they happen."
        raise InputError(f"There are no {what}.", where=", ".join(map(str, listed)), hint=hint)
    return _typed(pl.scan_parquet(files, missing_columns="insert", extra_columns="ignore"), schema, what)


def _typed(frame: pl.LazyFrame, schema: Mapping[str, Any], what: str) -> tuple[pl.LazyFrame, tuple[str, ...]]:
    try:
        found = frame.collect_schema()
    except pl.exceptions.PolarsError as error:
        raise InputError(f"The {what} cannot be read.", where=what, got=error) from error
    for name, kind in schema.items():
        if name not in found:
            raise InputError(f"The {what} have no column {name}.", where=what, got=", ".join(found.names()))
        worded = found[name] in (pl.String, pl.Categorical, pl.Enum) or found[name].is_integer()
        fits = worded if kind is pl.String else found[name] == kind
        if not fits:
            raise InputError(f"A column of the {what} has another type.", where=name, got=found[name], allowed=kind)
    zone = found["timestamp"].time_zone  # type: ignore[attr-defined]
    if zone is None:
        hint = "Local times of several places cannot be told apart: write them in UTC, and say so in the type."
        raise InputError("Times have no time zone.", where=f"{what}, timestamp", got=found["timestamp"], hint=hint)
    moved = pl.col("timestamp").dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    texts = [pl.col(name).cast(pl.String) for name, kind in schema.items() if kind is pl.String]
    absent = [pl.lit(None, kind).alias(name) for name, kind in _OPTIONAL.items() if name not in found]
    said = () if zone == "UTC" else (f"times of the {what} were in the zone {zone} and are read as UTC",)
    return frame.with_columns(moved, *texts, *absent), said


def microseconds(moment: dt.datetime) -> int:
    """Since 1970, UTC."""
    return round((moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) / dt.timedelta(microseconds=1))
