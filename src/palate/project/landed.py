"""What servers landed joins a project's own files: events, and items that were put or deleted since."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from palate.data.columns import fit_table
from palate.data.dataset import EVENT_SCHEMA, Dataset
from palate.data.files import Raw, UnreadableError, read_raw
from palate.data.findings import ERROR, Finding, report_of
from palate.errors import InputError, printable
from palate.project.steps import file_digest
from palate.serving.landing import ITEMS, LANDED_ITEMS
from palate.serving.live import REJECTED

_SAME = ["user_id", "item_id", "timestamp", "event_type"]
_EVENT = [*EVENT_SCHEMA, "event_id", "request_id"]


@dataclass(frozen=True)
class Joined:
    """A data set with what was landed, and what became of that. No landed event is in two of the counts."""

    dataset: Dataset
    events: int = 0  # that the project's own log lacked
    already: int = 0  # that it had, by event_id, or by user, item, time and type
    rejected: int = 0  # skips and dislikes: nobody chose these items
    unknown: int = 0  # on items that are not there: they count once these are put
    items: int = 0  # that the catalogue lacked
    changed: int = 0  # whose texts replace those of the catalogue
    deleted: int = 0

    def facts(self) -> dict[str, int]:
        return {name: value for name, value in vars(self).items() if isinstance(value, int)}


class Landing:
    """A landing folder as it stands when this is made. What comes later is for the next run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts = sorted((folder / "events").glob("[!.]*.parquet"))
        file = folder / ITEMS
        self._put = file.read_bytes() if file.exists() else b""

    @property
    def items_key(self) -> str:
        """Hash of the items that were put; empty where none was."""
        return hashlib.sha256(self._put).hexdigest()[:12] if self._put else ""

    @cached_property
    def key(self) -> str:
        """Hash of everything; empty where nothing was landed."""
        return file_digest(*self.parts) + self.items_key if self.parts else self.items_key

    @cached_property
    def events(self) -> pl.DataFrame:
        """Each `event_id` once, part after part.

        Raises:
            InputError: naming file, row and column of what does not fit. Nothing is read in part.
        """
        frames: list[pl.DataFrame] = []
        findings: list[Finding] = []
        for part in self.parts:
            try:
                raw = read_raw(part)
            except UnreadableError as broken:
                findings += broken.findings
                continue
            frame, found = fit_table(raw, "events")
            findings += found + _without_ids(raw)
            if frame is not None and "event_id" in frame.columns:
                given = [pl.col(c) if c in frame.columns else pl.lit(None, pl.String).alias(c) for c in _EVENT]
                frames.append(frame.select(given))
        report_of(findings).raise_errors()
        empty = pl.DataFrame(schema={**EVENT_SCHEMA, "event_id": pl.String, "request_id": pl.String})
        return pl.concat([empty, *frames]).unique("event_id", keep="first", maintain_order=True)

    @cached_property
    def items(self) -> pl.DataFrame:
        """The newest of each item that was put, in `LANDED_ITEMS`.

        Raises:
            InputError: naming the file, if it cannot be read.
        """
        if not self._put:
            return pl.DataFrame(schema=LANDED_ITEMS)
        try:
            return pl.read_parquet(io.BytesIO(self._put)).select(list(LANDED_ITEMS)).cast(LANDED_ITEMS)  # type: ignore[arg-type]
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError(
                "The landed items cannot be read.",
                where=str(self.folder / ITEMS),
                got=printable(error, 200),
                hint="Remove the file: the server writes it again when it next lands.",
            ) from error

    def joined(self, own: Dataset) -> Joined:
        """`own` with what was landed. Numbers of users, and of items that are still there, keep their order.

        An item that was put replaces title, text and categories of one in the catalogue, and its year where it has
        one; a deleted item goes with its events. Events come behind those of the log where times are equal.
        """
        if not self.key:
            return Joined(own)
        items, counts = _with_items(own.items, self.items)
        ids = [pl.col(name).cast(pl.String) for name in ("event_id", "request_id") if name in own.events.columns]
        log = own.events.drop("user_num", "item_num").with_columns(ids)
        events, already = _unknown_to(log, self.events)
        rejected = events["event_type"].is_in(list(REJECTED))
        chosen = events.filter(~rejected)
        known = chosen.join(items, on="item_id", how="semi", maintain_order="left")
        table = pl.concat([log, known], how="diagonal")
        return Joined(
            Dataset.from_tables(items, table, own.users),
            events=known.height,
            already=already,
            rejected=int(rejected.sum()),
            unknown=chosen.height - known.height,
            **counts,
        )


def _without_ids(raw: Raw) -> list[Finding]:
    if "event_id" not in raw.frame.columns:
        remedy = "parts are written by the server; move others elsewhere"
        return [raw.finding(ERROR, "the column `event_id` is missing", remedy, "event_id")]
    missing = raw.frame["event_id"].is_null()
    if not missing.any():
        return []
    return [raw.finding(ERROR, "an event has no event_id", "remove the row", "event_id", missing)]


def _unknown_to(log: pl.DataFrame, landed: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """What the log does not have, and how many it has."""
    new = landed.join(log, on=_SAME, how="anti", maintain_order="left")
    if "event_id" in log.columns:
        new = new.join(log.select("event_id"), on="event_id", how="anti", maintain_order="left")
    return new, landed.height - new.height


def _with_items(items: pl.DataFrame, put: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """The catalogue with items as they were put, without those deleted; and the counts of `Joined`."""
    alive, gone = put.filter(~pl.col("deleted")), put.filter("deleted")
    alive = alive.with_columns(pl.when(pl.col("title") == "").then("item_id").otherwise("title").alias("title"))
    fields = ["title", "text", "categories"]
    if alive["year"].is_not_null().any():
        items = items if "year" in items.columns else items.with_columns(year=pl.lit(None, pl.Int32))
        fields.append("year")
    alive = alive.select("item_id", *(pl.col(name).cast(items.schema[name], strict=False) for name in fields))
    kept = items.join(gone, on="item_id", how="anti", maintain_order="left")
    both = kept.join(alive.with_columns(_put=True), on="item_id", how="left", suffix="_put", maintain_order="left")
    # A field that is null in what was put (the year) says nothing.
    shown = [
        pl.when(pl.col("_put") & pl.col(f"{name}_put").is_not_null()).then(f"{name}_put").otherwise(name).alias(name)
        for name in fields
    ]
    changed = int(both["_put"].sum())
    new = alive.join(items, on="item_id", how="anti", maintain_order="left")
    table = pl.concat([both.with_columns(shown).select(kept.columns), new], how="diagonal")
    if "media" in table.columns:
        table = table.with_columns(pl.col("media").fill_null([]))
    return table, {"items": new.height, "changed": changed, "deleted": items.height - kept.height}
