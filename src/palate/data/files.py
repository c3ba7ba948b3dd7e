"""Reads one file of any accepted format into a raw table, whole or not at all, and says where it is broken."""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec  # type: ignore[import-untyped]
import polars as pl

from palate.data.findings import ERROR, Finding
from palate.errors import printable

_DELIMITED = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".item": "\t", ".user": "\t"}
_ATOMIC = (".inter", ".item", ".user")
_PARQUET = (".parquet", ".pq")
_LINES = (".jsonl", ".ndjson")
ACCEPTED = (*_PARQUET, *_LINES, *_DELIMITED)
_LONGEST_FIELD = 1 << 27  # bytes of one CSV field; Python's own limit of 128 KiB is less than a long text


@dataclass(frozen=True)
class Raw:
    """A file as it stands. `textual`: every column is a string, as in CSV. `first_line`: the line of row 1."""

    frame: pl.DataFrame
    name: str
    textual: bool = False
    first_line: int | None = None  # None where rows are not lines
    types: dict[str, str] = field(default_factory=dict)  # column -> type in a RecBole header
    mixed: dict[str, pl.Series] = field(default_factory=dict)  # column -> rows of another type than most

    def finding(
        self, level: str, what: str, remedy: str, column: str | None = None, rows: pl.Series | None = None
    ) -> Finding:
        """A finding in this file; `rows` [n, bool] marks the rows it is about."""
        first = None if rows is None else rows.arg_max()
        line = None if first is None or self.first_line is None else first + self.first_line
        count = 1 if rows is None else int(rows.sum())
        return Finding(level, what, self.name, None if first is None else first + 1, column, count, remedy, line)


class UnreadableError(Exception):
    """A file that cannot be read whole."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__(findings[0].what)
        self.findings = findings


def read_raw(path: str | Path) -> Raw:
    """The table in `path` (a local path or an fsspec address), optionally gzipped.

    Raises:
        UnreadableError: No such file, an unknown format, an encoding other than UTF-8, a broken row, nothing in it.
    """
    name = PurePosixPath(str(path)).name
    plain = name.lower().removesuffix(".gz")
    suffix = PurePosixPath(plain).suffix
    if suffix not in ACCEPTED:
        remedy = f"use one of {', '.join(ACCEPTED)}, all but Parquet also with .gz"
        raise UnreadableError(Finding(ERROR, f"the format {suffix or '(none)'} is not known", name, remedy=remedy))
    data = _bytes_of(path, name)
    if not data.strip():
        raise UnreadableError(_empty(name))
    if suffix in _PARQUET:
        raw = _parquet(data, name)
    elif suffix in _LINES:
        raw = _json_lines(_decoded(data, name), name)
    else:
        raw = _delimited(_decoded(data, name), name, suffix)
    if raw.frame.height == 0:
        raise UnreadableError(_empty(name))
    return raw


def _empty(name: str) -> Finding:
    return Finding(ERROR, "the file holds no rows", name, remedy="export it again, with its rows")


def _bytes_of(path: str | Path, name: str) -> bytes:
    try:
        with fsspec.open(str(path), "rb") as file:
            data: bytes = file.read()
    except FileNotFoundError:
        raise UnreadableError(_no_such_file(Path(path), name)) from None
    except OSError as error:
        what = f"the file cannot be opened: {error.strerror or error}"
        raise UnreadableError(Finding(ERROR, what, name, remedy="check the path and its permissions")) from error
    if not name.lower().endswith(".gz"):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        what = "the gzip file is damaged or cut short"
        raise UnreadableError(Finding(ERROR, what, name, remedy="copy or export it again")) from None


def _no_such_file(path: Path, name: str) -> Finding:
    names = [p.name for p in path.parent.iterdir() if p.is_file()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(name, names, n=1)
    remedy = f"did you mean `{near[0]}`?" if near else "check the path"
    return Finding(ERROR, f"there is no file at {printable(path)}", name, remedy=remedy)


def _decoded(data: bytes, name: str) -> str:
    """The text without a byte-order mark."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        likely = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "Latin-1 or Windows-1252"
        what = f"the file is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}"
        remedy = f"it is probably {likely}: save it as UTF-8"
        raise UnreadableError(Finding(ERROR, what, name, None, None, 1, remedy, line)) from None


def _parquet(data: bytes, name: str) -> Raw:
    try:
        return Raw(pl.read_parquet(io.BytesIO(data)), name)
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        what = f"the file is not Parquet or is damaged: {printable(error, 120)}"
        raise UnreadableError(Finding(ERROR, what, name, remedy="copy or export it again")) from None


def _json_lines(text: str, name: str) -> Raw:
    rows: list[dict[str, Any]] = []
    broken: list[tuple[int, str]] = []
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            broken.append((number, f"is not JSON ({error.msg} at character {error.colno})"))
            continue
        if isinstance(row, dict):
            rows.append(row)
        else:
            broken.append((number, "is not an object in braces"))
    if broken:
        number, why = broken[0]
        raise UnreadableError(
            Finding(ERROR, f"a line {why}", name, None, None, len(broken), "write one JSON object on each line", number)
        )
    blanks = any(not line.strip() for line in lines[: len(rows)])
    names = list(dict.fromkeys(key for row in rows for key in row))
    values = {key: [row.get(key) for row in rows] for key in names}
    odd = {key: marks for key, column in values.items() if (marks := _odd_ones(column)) is not None}
    frame = pl.DataFrame([_json_column(key, column, key in odd) for key, column in values.items()])
    return Raw(frame, name, first_line=None if blanks else 1, mixed=odd)


def _odd_ones(values: list[Any]) -> pl.Series | None:
    """The rows whose JSON type is not that of most, if types differ; whole numbers and fractions are one type."""
    kinds = [None if v is None else "number" if type(v) in (int, float) else type(v).__name__ for v in values]
    counts = Counter(kind for kind in kinds if kind is not None)
    if len(counts) < 2:
        return None
    usual = counts.most_common(1)[0][0]
    return pl.Series([kind not in (None, usual) for kind in kinds])


def _json_column(key: str, values: list[Any], as_text: bool) -> pl.Series:
    if not as_text:
        try:
            return pl.Series(key, values, strict=False)
        except (TypeError, pl.exceptions.PolarsError, OverflowError):
            pass  # lists or objects of differing make
    written = [v if v is None or isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]
    return pl.Series(key, written, dtype=pl.String)


def _delimited(text: str, name: str, suffix: str) -> Raw:
    delimiter = _DELIMITED[suffix]
    if suffix == ".csv":
        header = text.split("\n", 1)[0]
        delimiter = max(",", ";", "\t", key=header.count)
    try:
        raw = _separated(text, name, delimiter, quoted=True)
    except UnreadableError:
        if delimiter != "\t":
            raise
        # Many writers of tab-separated files never quote, so that a quotation mark is only a mark.
        raw = _separated(text, name, delimiter, quoted=False)
    return _typed_header(raw) if suffix in _ATOMIC else raw


def _separated(text: str, name: str, delimiter: str, quoted: bool) -> Raw:
    """Two passes: one counts the fields of each row (no parser says it all), one builds the columns fast."""
    header, height, one_line_each = _count_rows(text, name, delimiter, quoted)
    repeated = [column for column in header if header.count(column) > 1 or not column.strip()]
    if repeated:
        what = f"the header names a column twice or not at all: {printable(repeated[0]) or '(empty)'}"
        raise UnreadableError(Finding(ERROR, what, name, None, repeated[0] or None, 1, "rename it", 1))
    if height == 0:
        raise UnreadableError(_empty(name))
    try:
        frame = pl.read_csv(text.encode(), infer_schema=False, separator=delimiter, quote_char='"' if quoted else None)
    except pl.exceptions.PolarsError:
        frame = pl.DataFrame()
    if frame.height != height or frame.columns != header:  # blank lines, old line ends: slow but right
        rows = [row for row in _reader(text, delimiter, quoted) if row][1:]
        frame = pl.DataFrame(rows, schema=dict.fromkeys(header, pl.String), orient="row")
    frame = frame.with_columns(pl.all().replace("", None))
    return Raw(frame, name, textual=True, first_line=2 if one_line_each else None)


def _count_rows(text: str, name: str, delimiter: str, quoted: bool) -> tuple[list[str], int, bool]:
    """The header, the number of rows, and whether every row is one line."""
    reader = _reader(text, delimiter, quoted)
    broken: list[Finding] = []
    header: list[str] = []
    height = 0
    try:
        for fields in reader:
            if not fields:
                continue
            if not header:
                header = fields
                continue
            height += 1
            if len(fields) != len(header):
                what = (
                    f"a row has {len(fields)} fields where the header has {len(header)}: "
                    f"{printable(delimiter.join(fields), 80)}"
                )
                broken.append(_broken_row(what, name, height, reader.line_num))
    except csv.Error as error:
        broken.append(_broken_row(f"a row cannot be parsed ({error})", name, height + 1, reader.line_num))
    if broken:
        first = broken[0]
        raise UnreadableError(Finding(ERROR, first.what, name, first.row, None, len(broken), first.remedy, first.line))
    return header, height, reader.line_num == height + 1


def _broken_row(what: str, name: str, row: int, line: int) -> Finding:
    remedy = "put fields that hold a separator, a quotation mark or a line break in double quotes"
    return Finding(ERROR, what, name, row, None, 1, remedy, line)


def _reader(text: str, delimiter: str, quoted: bool) -> Any:
    csv.field_size_limit(_LONGEST_FIELD)
    lines: Iterable[str] = io.StringIO(text, newline="")
    if quoted:
        return csv.reader(lines, delimiter=delimiter, strict=True)
    return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)


def _typed_header(raw: Raw) -> Raw:
    """RecBole's atomic files: `user_id:token` becomes `user_id`, with its type kept aside."""
    types: dict[str, str] = {}
    for column in raw.frame.columns:
        plain, _, kind = column.partition(":")
        if kind not in ("token", "token_seq", "float", "float_seq") or plain in types:
            what = f"the header of an atomic file must read name:type, each name once, not {printable(column)}"
            remedy = "types are token, token_seq, float and float_seq; name columns as in user_id:token"
            raise UnreadableError(Finding(ERROR, what, raw.name, None, column, 1, remedy, 1))
        types[plain] = kind
    frame = raw.frame.rename(dict(zip(raw.frame.columns, types, strict=True)))
    return Raw(frame, raw.name, textual=True, first_line=raw.first_line, types=types)
