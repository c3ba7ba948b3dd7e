"""Turns the columns of a raw table into Palate's names and types, and notes every value that does not fit."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from palate.data.aliases import ALIASES, REQUIRED, did_you_mean, matched
from palate.data.dataset import TIMESTAMP
from palate.data.files import Raw
from palate.data.findings import ERROR, WARNING, Finding
from palate.errors import printable

_LATEST = 253_402_300_799_000_000  # the end of the year 9999, in microseconds
# A number is a time in seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by the median:
# 1e11 s is the year 5138, and 1e11 ms is 1973.
_UNITS = ((1e11, 1e6), (1e14, 1e3), (1e17, 1.0), (float("inf"), 1e-3))
_DAY, _OFFSET = "%Y-%m-%d", "%:z"
_CLOCKS = (" %H:%M:%S%.f", " %H:%M")
_MOSTLY = 0.9  # a column with this share of numbers was meant to be one of numbers
_NO_GENRE = "(no genres listed)"  # MovieLens' own way to write an empty list


_DEFAULTS: dict[str, dict[str, pl.Expr]] = {
    "events": {"event_type": pl.lit("event"), "value": pl.lit(None, pl.Float32)},
    "items": {
        "title": pl.col("item_id"),
        "text": pl.lit(None, pl.String),
        "categories": pl.lit([], pl.List(pl.String)),
    },
    "users": {},
}


@dataclass
class Fitting:
    """One table on its way: `columns` in Palate's names and types, `findings` about what did not fit."""

    raw: Raw
    kind: str
    columns: dict[str, pl.Series] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def note(self, level: str, what: str, remedy: str, column: str, rows: pl.Series) -> None:
        """Record a finding about `column` where any of `rows` is true, with the first value."""
        if rows.any():
            first = rows.arg_max() or 0
            value = self.raw.frame[column][first]
            shown = "" if value is None else f": {printable(value, 60)}"
            self.findings.append(self.raw.finding(level, what + shown, remedy, column, rows))


def fit_table(raw: Raw, kind: str) -> tuple[pl.DataFrame | None, list[Finding]]:
    """`raw` as a table of `kind` (`events`, `items` or `users`); None where a required column is missing.

    Defaults: `event_type` "event", `value` null, `title` the item id, `text` null, `categories` empty. `media` is there
    only where the file has such a column.
    Further columns are kept; in text files those that hold only numbers become numbers.
    """
    found = matched(raw.frame.columns, kind)
    missing = [name for name in REQUIRED[kind] if name not in found]
    fit = Fitting(raw, kind)
    for name in missing:
        remedy = did_you_mean(name, raw.frame.columns, kind)
        fit.findings.append(raw.finding(ERROR, f"the column `{name}` is missing", remedy, name))
    if missing:
        return None, fit.findings
    for name, source in found.items():
        fit.columns[name] = _CONVERT[name](fit, source).alias(name)
    for name, rows in raw.mixed.items():
        _mixed(fit, name, rows)
    for name in raw.frame.columns:
        if name not in found.values() and name not in fit.columns:
            fit.columns[name] = _extra(fit, name)
    return _with_defaults(pl.DataFrame(list(fit.columns.values())), kind), fit.findings


def _with_defaults(frame: pl.DataFrame, kind: str) -> pl.DataFrame:
    """Palate's columns first, absent columns and values filled."""
    defaults = _DEFAULTS[kind]
    frame = frame.with_columns(e.alias(n) for n, e in defaults.items() if n not in frame.columns)
    frame = frame.with_columns(pl.col(n).fill_null(e) for n, e in defaults.items())
    return frame.select(*(n for n in ALIASES[kind] if n in frame.columns), pl.exclude(*ALIASES[kind]))


def _identifier(fit: Fitting, column: str) -> pl.Series:
    """Ids as strings: 7, 7.0 and "7" are the same id."""
    series = fit.raw.frame[column]
    if series.dtype.is_float():
        whole = series.is_null() | (series.is_finite() & (series == series.round()))
        remedy = "write ids as text or whole numbers"
        fit.note(ERROR, "an id is a fraction or not a number", remedy, column, (~whole).fill_null(False))
        series = series.set(~whole, None).cast(pl.Int64, strict=False)
    ids = _text(fit, column, series)
    missing = ids.is_null() | (ids.str.strip_chars() == "")
    fit.note(ERROR, "an id is missing", "fill it in or remove the row", column, missing)
    odd = (ids != ids.str.strip_chars()) | ids.str.to_lowercase().is_in(["nan", "null", "none", "n/a"])
    remedy = "if it stands for a missing value or has stray spaces, mend it: ids are compared letter by letter"
    fit.note(WARNING, "an id looks like a mistake", remedy, column, odd.fill_null(False) & ~missing)
    return ids


def _text(fit: Fitting, column: str, series: pl.Series | None = None) -> pl.Series:
    values = fit.raw.frame[column] if series is None else series
    if values.dtype.is_nested() or values.dtype in (pl.Boolean, pl.Binary, pl.Object):
        _wrong_type(fit, column, values.is_not_null(), f"the column holds {values.dtype}, not text")
        return pl.Series(column, [None] * len(values), dtype=pl.String)
    return values.cast(pl.String)


def _wrong_type(fit: Fitting, column: str, rows: pl.Series, what: str) -> None:
    fit.note(ERROR, what, "mend the values, or rename the column if it means something else", column, rows)


def _numbers(fit: Fitting, column: str) -> pl.Series:
    series = fit.raw.frame[column]
    if series.dtype.is_nested() or series.dtype.is_temporal():
        _wrong_type(fit, column, series.is_not_null(), f"the column holds {series.dtype}, not numbers")
        return pl.Series(column, [None] * len(series), dtype=pl.Float64)
    if series.dtype == pl.String:
        series = series.str.strip_chars()
    numbers = series.cast(pl.Float64, strict=False)
    _wrong_type(fit, column, numbers.is_null() & series.is_not_null(), "a value is not a number")
    return numbers


def _note_nan(fit: Fitting, numbers: pl.Series) -> None:
    rows = numbers.is_nan().fill_null(False)
    fit.note(WARNING, "a value is NaN", "leave missing values empty", numbers.name, rows)


def _value(fit: Fitting, column: str) -> pl.Series:
    numbers = _numbers(fit, column)
    _note_nan(fit, numbers)
    infinite = numbers.is_infinite().fill_null(False)
    fit.note(ERROR, "a value is infinite", "leave it empty or mend it", column, infinite)
    return numbers.fill_nan(None).cast(pl.Float32)


def _time(fit: Fitting, column: str) -> pl.Series:
    series = fit.raw.frame[column]
    absent = series.is_null()
    if series.dtype in (pl.Datetime, pl.Date):
        times = _utc(series)
    elif series.dtype == pl.String and series.cast(pl.Float64, strict=False).count() * 2 < series.count():
        times = _parsed(series)
    else:
        times = _counted(series)
    if series.dtype.is_float():
        absent = absent | series.is_nan().fill_null(False)
    if fit.kind == "events":
        fit.note(ERROR, "a time is missing", "fill it in or remove the row", column, absent)
    remedy = "write ISO 8601 (2024-05-31T12:00:00Z) or seconds since 1970, one form throughout"
    fit.note(ERROR, "a time cannot be understood", remedy, column, times.is_null() & ~absent)
    return times


def _utc(series: pl.Series) -> pl.Series:
    """Times without a zone are taken as UTC."""
    if series.dtype == pl.Date:
        series = series.cast(pl.Datetime("us"))
    zone = getattr(series.dtype, "time_zone", None)
    aware = series.dt.convert_time_zone("UTC") if zone else series.dt.replace_time_zone("UTC")
    return aware.cast(TIMESTAMP)


def _parsed(series: pl.Series) -> pl.Series:
    """ISO 8601 with or without a zone, a space for the T allowed, and Gorse's `… +0000 UTC`."""
    text = (
        series.str.strip_chars()
        .str.replace(r"\s*UTC$", "")
        .str.replace("T", " ", literal=True)
        .str.replace(r"[zZ]$", "+00:00")
        .str.replace(r"(:\d\d(?:\.\d+)?)\s*([+-]\d\d):?(\d\d)$", "${1}${2}:${3}")
        .to_frame("t")
    )
    zoned = [
        pl.col("t").str.to_datetime(_DAY + c + _OFFSET, time_unit="us", strict=False).cast(TIMESTAMP) for c in _CLOCKS
    ]
    local = [
        pl.col("t").str.to_datetime(_DAY + c, time_unit="us", strict=False).dt.replace_time_zone("UTC") for c in _CLOCKS
    ]
    day = pl.col("t").str.to_date(_DAY, strict=False).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return text.select(pl.coalesce(*zoned, *local, day)).to_series()


def _counted(series: pl.Series) -> pl.Series:
    """Numbers since 1970 in the unit that the median tells; small ones, indices say, count as seconds."""
    if series.dtype.is_nested() or series.dtype == pl.Boolean:
        return pl.Series(series.name, [None] * len(series), dtype=TIMESTAMP)
    exact = series.cast(pl.Int64, strict=False)
    numbers = series.cast(pl.Float64, strict=False)
    numbers = numbers.set(~numbers.is_finite().fill_null(False), None)  # "1e999" is infinite
    median = numbers.abs().median()
    factor = next(f for limit, f in _UNITS if not isinstance(median, float) or median < limit)
    within = (numbers.abs() * factor <= _LATEST).fill_null(False)
    if series.dtype.is_float() or exact.null_count() > numbers.null_count():
        micros = (numbers * factor).round().set(~within, None).cast(pl.Int64, strict=False)
    else:  # no detour over floats
        exact = exact.set(~within, None)
        micros = exact * int(factor) if factor >= 1 else exact // round(1 / factor)
    return micros.cast(TIMESTAMP)


def _listed(fit: Fitting, column: str) -> pl.Series:
    """A list column as it is; text as a JSON list, or split at `|` (in RecBole's token_seq at spaces)."""
    series = fit.raw.frame[column]
    if isinstance(series.dtype, pl.List) and not series.dtype.inner.is_nested():
        return series.cast(pl.List(pl.String)).list.drop_nulls()
    text = _text(fit, column)
    if fit.raw.types.get(column) == "token_seq":
        parts = text.str.split(" ")
    elif text.str.starts_with("[").any():
        parts = text.str.json_decode(pl.List(pl.String)) if _all_json(text) else text.str.split("|")
    else:
        parts = text.str.split("|")
    return (
        parts.list.eval(pl.element().str.strip_chars().replace(_NO_GENRE, ""))
        .list.eval(pl.element().filter(pl.element() != ""))
        .cast(pl.List(pl.String))
    )


def _media(fit: Fitting, column: str) -> pl.Series:
    """Paths as a list, a single one too. A column that holds no text, pictures themselves say, is left aside."""
    kind = fit.raw.frame[column].dtype
    if kind == pl.String or (isinstance(kind, pl.List) and kind.inner == pl.String):
        return _listed(fit, column).fill_null([])
    remedy = "write paths relative to the data set's folder, or rename the column if it means something else"
    given = fit.raw.frame[column].is_not_null()
    fit.note(WARNING, f"media are paths of files, and the column holds {kind}: left aside", remedy, column, given)
    return pl.Series(column, [[]] * len(given), dtype=pl.List(pl.String))


def _all_json(text: pl.Series) -> bool:
    try:
        text.str.json_decode(pl.List(pl.String))
    except pl.exceptions.PolarsError:
        return False
    return True


_CONVERT = {
    "user_id": _identifier,
    "item_id": _identifier,
    "timestamp": _time,
    "created_at": _time,
    "value": _value,
    "event_type": _text,
    "session_id": _text,
    "title": _text,
    "text": _text,
    "categories": _listed,
    "media": _media,
}


def _extra(fit: Fitting, column: str) -> pl.Series:
    """A column that Palate has no name for: typed by a RecBole header, or by its values where all agree."""
    series, kind = fit.raw.frame[column], fit.raw.types.get(column)
    if kind == "token_seq":
        series = series.str.split(" ")
    elif kind == "float_seq":
        series = series.str.split(" ").cast(pl.List(pl.Float32), strict=False)
    elif kind == "float":
        series = _numbers(fit, column).cast(pl.Float32)
    elif kind is None and series.dtype == pl.String:
        series = _typed_by_values(fit, series)
    if series.dtype.is_float():
        _note_nan(fit, series)
    return series


def _mixed(fit: Fitting, column: str, rows: pl.Series) -> None:
    remedy = "give all values one type, or leave the odd ones empty"
    fit.note(WARNING, "the column mixes types and is read as text, first", remedy, column, rows)


def _typed_by_values(fit: Fitting, series: pl.Series) -> pl.Series:
    numbers = series.cast(pl.Float64, strict=False)
    odd = numbers.is_null() & series.is_not_null()
    if 0 < odd.sum() <= (1 - _MOSTLY) * series.count():
        _mixed(fit, series.name, odd)
    codes = series.str.contains(r"^[+-]?0\d").any()  # 007 is a code, not a number
    if odd.any() or codes or not fit.raw.textual or series.count() == 0:
        return series
    whole = series.cast(pl.Int64, strict=False)
    return whole if whole.null_count() == series.null_count() else numbers
