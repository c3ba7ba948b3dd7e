"""`palate check` for the data: what is wrong with a catalogue and a log, where, how often, and how to mend it.

Errors: unreadable files, missing columns, missing or duplicate ids, events on unknown items, values of the wrong
type, an item without a word in a catalogue that has words. Warnings: what is read all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from palate.data.columns import fit_table
from palate.data.files import Raw, UnreadableError, read_raw
from palate.data.findings import ERROR, WARNING, CheckReport, Finding, report_of
from palate.errors import printable

_SKEW = timedelta(days=1)  # a clock may be wrong by as much
_INDEX_BEFORE = datetime(1975, 1, 1, tzinfo=UTC)  # all earlier: positions in a sequence rather than times


@dataclass(frozen=True)
class Examined:
    """The tables in Palate's names and types (None where unreadable) and what was found."""

    items: pl.DataFrame | None
    events: pl.DataFrame | None
    users: pl.DataFrame | None
    report: CheckReport


def check_files(
    items: str | Path, events: str | Path, users: str | Path | None = None, now: datetime | None = None
) -> CheckReport:
    """Examine the files, every one of them, and raise nothing. `now` (UTC) is the present, for future times."""
    return examine_files(items, events, users, now).report


def check_tables(
    items: pl.DataFrame, events: pl.DataFrame, users: pl.DataFrame | None = None, now: datetime | None = None
) -> CheckReport:
    """As `check_files`, for tables in memory; they are named `items`, `events` and `users`."""
    raws = {"items": Raw(items, "items"), "events": Raw(events, "events")}
    if users is not None:
        raws["users"] = Raw(users, "users")
    return _examine(raws, [], now).report


def examine_files(
    items: str | Path, events: str | Path, users: str | Path | None = None, now: datetime | None = None
) -> Examined:
    """Read, fit and check. The tables may only be used where `report.ok`."""
    raws: dict[str, Raw] = {}
    findings: list[Finding] = []
    for kind, path in (("items", items), ("events", events), ("users", users)):
        if path is not None:
            try:
                raws[kind] = read_raw(path)
            except UnreadableError as broken:
                findings.extend(broken.findings)
    return _examine(raws, findings, now)


def _examine(raws: dict[str, Raw], findings: list[Finding], now: datetime | None) -> Examined:
    tables: dict[str, pl.DataFrame] = {}
    for kind, raw in raws.items():
        if raw.frame.height == 0:
            findings.append(Finding(ERROR, "the table holds no rows", raw.name, remedy="give it its rows"))
            continue
        frame, found = fit_table(raw, kind)
        findings.extend(found)
        if frame is not None:
            tables[kind] = frame
    items, events, users = (tables.get(kind) for kind in ("items", "events", "users"))
    if items is not None:
        findings.extend(_about_items(raws["items"], items))
    if users is not None:
        findings.extend(_duplicates(raws["users"], users, "user_id"))
    if events is not None:
        findings.extend(_about_events(raws["events"], events, now or datetime.now(UTC)))
        if items is not None:
            findings.extend(_dangling(raws["events"], events, items))
    return Examined(items, events, users, report_of(findings))


def _duplicates(raw: Raw, frame: pl.DataFrame, column: str) -> list[Finding]:
    again = (~frame[column].is_first_distinct()) & frame[column].is_not_null()
    if not again.any():
        return []
    what = f"an id occurs again: {_first(frame[column], again)}"
    return [raw.finding(ERROR, what, "keep one row for each id", column, again)]


def _about_items(raw: Raw, items: pl.DataFrame) -> list[Finding]:
    findings = _duplicates(raw, items, "item_id")
    wordless = items.select(
        ((pl.col("title") == pl.col("item_id")) | (pl.col("title").str.strip_chars() == ""))
        & (pl.col("text").fill_null("").str.strip_chars() == "")
    ).to_series()
    if wordless.all():
        what = "no item has a title or a text: a language model cannot be asked about them"
        findings.append(raw.finding(WARNING, what, "add a title or a text if you have one", "text"))
    elif wordless.any():
        what = f"an item has neither title nor text: {_first(items['item_id'], wordless)}"
        findings.append(raw.finding(ERROR, what, "give it a title or a text, or remove it", "text", wordless))
    return findings


def _about_events(raw: Raw, events: pl.DataFrame, now: datetime) -> list[Finding]:
    findings = []
    times = events["timestamp"]
    future = (times > now + _SKEW).fill_null(False)
    if future.any():
        what = f"an event lies in the future: {_first(times, future)}"
        remedy = "check the clock, and that all times are in the same unit"
        findings.append(raw.finding(WARNING, what, remedy, "timestamp", future))
    backwards = events.select((pl.col("timestamp").diff() < pl.duration()).over("user_id")).to_series()
    if backwards.any():
        what = "a user's events are not in the order of time; they are sorted, ties in the order of the file"
        remedy = "sort by user and time if the order within a second matters"
        findings.append(raw.finding(WARNING, what, remedy, "timestamp", backwards.fill_null(False)))
    latest = times.max()
    if isinstance(latest, datetime) and latest < _INDEX_BEFORE:
        what = "all times are before 1975: positions in a sequence rather than times"
        remedy = "give real times for a split by time that means something"
        findings.append(raw.finding(WARNING, what, remedy, "timestamp"))
    again = ~events.select(pl.struct("user_id", "item_id", "timestamp", "event_type").is_first_distinct()).to_series()
    if again.any():
        what = "an event occurs again: same user, item, time and type"
        findings.append(raw.finding(WARNING, what, "remove the copies if they are not meant", "item_id", again))
    return findings


def _dangling(raw: Raw, events: pl.DataFrame, items: pl.DataFrame) -> list[Finding]:
    unknown = ~events["item_id"].is_in(items["item_id"].drop_nulls().implode()) & events["item_id"].is_not_null()
    if not unknown.any():
        return []
    distinct = events["item_id"].filter(unknown).n_unique()
    what = f"an event is on an item that is not among the items ({distinct} such items): " + _first(
        events["item_id"], unknown
    )
    return [raw.finding(ERROR, what, "add the items, or remove their events", "item_id", unknown)]


def _first(series: pl.Series, rows: pl.Series) -> str:
    return printable(series.filter(rows)[0], 60)
