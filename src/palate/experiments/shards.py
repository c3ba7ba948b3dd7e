"""A log cut into shards of people, each small enough for memory: people keep together, and ids become numbers."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from palate.data.assignment import Assigned, read_label
from palate.errors import InputError
from palate.experiments.declare import Experiment
from palate.experiments.log import Log, microseconds

ROWS = 4_000_000  # of a shard, about


@dataclass(frozen=True)
class Seen:
    """What a first look at the log says.

    Attributes:
        labels: Logged label to what it says of this experiment.
        others: Logged label to what it says of all experiments.
        rows: Impressions under the experiment; `outside` are those of other labels, `nameless` have no unit.
        types: Event type to how many there are.
        last: The latest time of the log or the experiment's end, microseconds since 1970.
        snapshots: How many different ones answered.
    """

    labels: dict[str, Assigned]
    others: dict[str, dict[str, Assigned]]
    rows: int
    outside: int
    nameless: int
    types: dict[str, int]
    last: int
    snapshots: int


@dataclass(frozen=True)
class Shard:
    """Rows of some people. unit, item, request, id are hashes (uint64), at is in microseconds since 1970.

    shown: unit, item, request (null: not logged), at, label (a number, see `Seen.labels`). done: unit, item, request,
    at, event, value, id.
    """

    shown: pl.DataFrame
    done: pl.DataFrame


def hashed(column: str) -> pl.Expr:
    """The same number for the same text within a process."""
    return pl.col(column).hash(seed=0)


def look(log: Log, experiment: Experiment) -> Seen:
    """Read labels, event types and times.

    Raises:
        InputError: Nothing was shown under the experiment.
    """
    nameless = (pl.col(experiment.unit) == "").fill_null(value=True)
    labels = (
        log.impressions.group_by("variant")
        .agg(pl.len(), nameless.sum().alias("nameless"), pl.col("timestamp").max(), pl.col("snapshot").n_unique())
        .collect(engine="streaming")
    )
    read = {text: read_label(text) for text in labels["variant"].to_list() if text is not None}
    own = {text: said[experiment.name] for text, said in read.items() if experiment.name in said}
    if not own:
        raise InputError(
            "Nothing was shown under this experiment.",
            where=experiment.name,
            got=", ".join(sorted(read)[:8]) or "no labels",
            hint="Impressions name experiments and variants in the column `variant`, as novelty:more.",
        )
    ours = labels.filter(pl.col("variant").is_in(list(own)))
    done = log.events.group_by("event_type").agg(pl.len(), pl.col("timestamp").max()).collect(engine="streaming")
    latest = [moment for frame in (ours, done) for moment in frame["timestamp"].to_list() if moment is not None]
    rows = int(ours["len"].sum())
    return Seen(
        own,
        {text: said for text, said in read.items() if text in own},
        rows,
        int(labels["len"].sum()) - rows,
        int(ours["nameless"].sum()),
        {str(name): n for name, n in done.select("event_type", "len").iter_rows() if name is not None},
        min(microseconds(experiment.end), microseconds(max(latest))),
        max(ours["snapshot"].to_list()),
    )


@contextmanager
def cut(log: Log, experiment: Experiment, seen: Seen, rows: int = ROWS) -> Iterator[Iterator[Shard]]:
    """The log's shards, one after the other. More than `rows` go through a temporary folder, by streaming."""
    shown, done = _shown(log, experiment, seen), _done(log, experiment, seen)
    n = math.ceil((seen.rows + sum(seen.types.values())) / rows)
    if n <= 1:
        yield iter([Shard(shown.collect(engine="streaming"), done.collect(engine="streaming"))])
        return
    with tempfile.TemporaryDirectory(prefix="palate-") as name:
        folders = {kind: Path(name) / kind for kind in ("shown", "done")}
        for kind, frame in (("shown", shown), ("done", done)):
            parts = frame.with_columns(shard=(pl.col("unit") % n).cast(pl.UInt16))
            target = pl.PartitionBy(folders[kind], key="shard", include_key=False)
            parts.sink_parquet(target, compression="lz4", statistics=False, maintain_order=False, mkdir=True)
        empty = Shard(shown.head(0).collect(), done.head(0).collect())
        yield (
            Shard(_part(folders["shown"], number, empty.shown), _part(folders["done"], number, empty.done))
            for number in range(n)
        )


def _part(folder: Path, number: int, empty: pl.DataFrame) -> pl.DataFrame:
    files = sorted((folder / f"shard={number}").glob("*.parquet"))
    return pl.read_parquet(files, memory_map=False).select(empty.columns) if files else empty


def _shown(log: Log, experiment: Experiment, seen: Seen) -> pl.LazyFrame:
    # Polars replaces values only when it has all of them; this it does as it reads.
    label = pl.col("variant").cast(pl.Enum(list(seen.labels)), strict=False).to_physical().cast(pl.UInt16)
    return (
        _numbered(log.impressions, experiment).select("unit", "item", "request", "at", label=label).drop_nulls("label")
    )


def _done(log: Log, experiment: Experiment, seen: Seen) -> pl.LazyFrame:
    kinds = pl.Enum(sorted(seen.types))
    told = pl.struct("unit", "item", "at", "event_type").hash(seed=0)
    return _numbered(log.events, experiment).select(
        "unit",
        "item",
        "request",
        "at",
        event=pl.col("event_type").cast(kinds),
        value=pl.col("value").cast(pl.Float64),
        id=pl.when(pl.col("event_id").is_null()).then(told).otherwise(hashed("event_id")),
    )


def _numbered(frame: pl.LazyFrame, experiment: Experiment) -> pl.LazyFrame:
    named = frame.filter((pl.col(experiment.unit) != "").fill_null(value=False))
    request = pl.when(pl.col("request_id").is_not_null()).then(hashed("request_id"))
    return named.with_columns(
        unit=hashed(experiment.unit), item=hashed("item_id"), request=request, at=pl.col("timestamp").to_physical()
    )
