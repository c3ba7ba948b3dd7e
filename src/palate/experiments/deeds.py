"""What the people of a shard were shown and did, before and after they first met the experiment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from palate.data.assignment import Assigned
from palate.experiments.declare import Experiment
from palate.experiments.log import Log, microseconds
from palate.experiments.metrics import CONSUMED, DAY, SHOWN, SLATE, Metric
from palate.experiments.shards import Seen, Shard, hashed

_NAMED = 5  # ids that a finding names
_LAGS = 2_000  # of a shard, to find clocks that go wrong
_SECOND = 1_000_000
_MIX = pl.lit(0x9E3779B97F4A7C15, dtype=pl.UInt64)  # odd: no two numbers become one


@dataclass
class Findings:
    """What was odd in the log, counted; `mixed` are hashes of some units that saw two variants."""

    counts: Counter[str] = field(default_factory=Counter)
    mixed: list[int] = field(default_factory=list)
    lags: list[int] = field(default_factory=list)  # microseconds from slate to event

    def add(self, other: Findings) -> None:
        self.counts.update(other.counts)
        self.mixed = [*self.mixed, *other.mixed][:_NAMED]
        self.lags += other.lags


@dataclass(frozen=True)
class Items:
    """What metrics need of items, by the hash of their ids: any of cluster, creator (numbers), c0, c1, … (a vector)."""

    table: pl.DataFrame
    width: int = 0  # of the vectors

    @classmethod
    def of(cls, log: Log, metrics: Sequence[Metric]) -> Items:
        """The columns that metrics need and the log has; vectors are made unit vectors."""
        wanted = {need for metric in metrics for need in metric.needs}
        if log.items is None:
            return cls(pl.DataFrame({"item": []}, schema={"item": pl.UInt64}))
        table = log.items.select(item=hashed("item_id"))
        for name in sorted(wanted & {"cluster", "creator"} & set(log.items.columns)):
            dense = log.items[name].cast(pl.String).cast(pl.Categorical).to_physical().cast(pl.Int32)
            table = table.with_columns(dense.alias(name))
        if "vector" in wanted and "vector" in log.items.columns:
            return cls(*_with_vectors(table, log.items["vector"]))
        return cls(table)

    @property
    def columns(self) -> list[str]:
        return [name for name in self.table.columns if name != "item"]


@dataclass(frozen=True)
class Deeds:
    """A shard's people and rows.

    people: unit, variant (a number), label (one of those seen), exposed (microseconds), known_before (did anything
    before).
    after: unit, since (microseconds since exposure, not negative), at, event, value, item, cluster, novel.
    before: the same of the days before exposure, events alone.
    """

    people: pl.DataFrame
    after: pl.DataFrame
    before: pl.DataFrame
    findings: Findings


def deeds_of(shard: Shard, experiment: Experiment, seen: Seen, items: Items) -> Deeds:
    """Exposed people with what they were shown and did; what cannot count is counted in `findings` and left out.

    Left out: impressions logged twice, outside the experiment's time, or forced by an override; people who saw two
    variants; events logged twice, after the end, or of people who were shown nothing.
    """
    findings = Findings()
    shown = _shown(shard.shown, experiment, seen, findings)
    people = _people(shown, experiment, findings)
    shown = shown.join(people.select("unit", "exposed"), on="unit").with_columns(since=pl.col("at") - pl.col("exposed"))
    done = _done(shard.done, people, experiment, shown, findings)
    shown, done = (_with_items(rows, items) for rows in (shown, done))
    if items.columns:
        findings.counts["impressions of items that are not known"] += shown["known"].len() - int(shown["known"].sum())
    before = done.filter(pl.col("since") < 0)
    used = before.filter(pl.col("event").is_in(CONSUMED))
    people = people.with_columns(known_before=pl.col("unit").is_in(used["unit"].unique().implode()))
    rows = [_rows(shown.with_columns(novel=_novel(shown, used)), SHOWN), _rows(done.filter(pl.col("since") >= 0))]
    if items.width:
        rows.append(_rows(_slates(shown, items), SLATE))
    recent = before.filter(pl.col("since") >= -int(experiment.pre_days * DAY))
    return Deeds(people, pl.concat(rows, how="diagonal"), _rows(recent), findings)


def _shown(shown: pl.DataFrame, experiment: Experiment, seen: Seen, findings: Findings) -> pl.DataFrame:
    """Impressions that count, with the number of their variant."""
    counts, names = findings.counts, list(experiment.variants)
    # one number instead of two or three columns is twice as fast; two of 100 million are one by chance once in 4,000
    slate = pl.col("request").fill_null(pl.col("unit") + pl.col("at").cast(pl.UInt64) * _MIX)
    once = shown.filter((slate * _MIX + pl.col("item")).is_first_distinct())
    counts["impressions logged twice"] += shown.height - once.height
    within = (pl.col("at") >= microseconds(experiment.start)) & (pl.col("at") < microseconds(experiment.end))
    timely = once.filter(within)
    counts["impressions outside the experiment's time"] += once.height - timely.height
    said = list(seen.labels.values())
    drawn = {number: names.index(each.variant) for number, each in enumerate(said) if _counts(each, names)}
    counts["impressions under a variant that is not declared"] += timely.filter(
        pl.col("label").is_in([n for n, each in enumerate(said) if each.variant not in names])
    ).height
    forced = timely.filter(pl.col("label").is_in([n for n, each in enumerate(said) if each.forced]))
    counts["impressions forced by an override"] += forced.height
    variant = pl.col("label").replace_strict(drawn, default=None, return_dtype=pl.UInt8)
    free = timely.join(forced.select("unit").unique(), on="unit", how="anti") if forced.height else timely
    return free.with_columns(variant=variant).drop_nulls("variant")


def _counts(said: Assigned, names: list[str]) -> bool:
    return not said.forced and said.variant in names


def _people(shown: pl.DataFrame, experiment: Experiment, findings: Findings) -> pl.DataFrame:
    """Those who saw one variant, with the time of their first impression."""
    seen = (
        pl.col("at").min().alias("exposed"),
        pl.col("variant", "label").min(),
        pl.col("variant").max().alias("other"),
    )
    people = shown.lazy().group_by("unit").agg(*seen).collect(engine="streaming")
    mixed = people.filter(pl.col("variant") != pl.col("other"))
    findings.counts["people"] += people.height
    findings.counts["people in two variants"] += mixed.height
    findings.mixed = mixed["unit"].head(_NAMED).to_list()
    return people.filter(pl.col("variant") == pl.col("other")).drop("other")


def _done(
    done: pl.DataFrame, people: pl.DataFrame, experiment: Experiment, shown: pl.DataFrame, findings: Findings
) -> pl.DataFrame:
    """Events of exposed people that count, with the time since exposure."""
    counts = findings.counts
    own = done.drop_nulls("event").join(people.select("unit", "exposed"), on="unit")
    # a log and what was landed since may both have an event, with its id and without
    once = own.unique("id", keep="first").unique(["unit", "item", "at", "event"], keep="first")
    counts["events logged twice"] += own.height - once.height
    timely = once.filter(pl.col("at") < microseconds(experiment.end))
    counts["events after the experiment's end"] += once.height - timely.height
    slates = shown.drop_nulls("request").group_by("request").agg(pl.col("at").min().alias("slate"))
    led = timely.drop_nulls("request").join(slates, on="request").select(lag=pl.col("at") - pl.col("slate"))["lag"]
    counts["events that name their slate"] += led.len()
    counts["events before the slate that led to them"] += int((led < -_SECOND).sum())
    findings.lags = led.head(_LAGS).to_list()
    return timely.with_columns(since=pl.col("at") - pl.col("exposed"))


def _with_items(rows: pl.DataFrame, items: Items) -> pl.DataFrame:
    wanted = [name for name in items.columns if name == "cluster"]
    if not items.columns:
        return rows.with_columns(cluster=pl.lit(None, pl.Int32), known=pl.lit(value=True))
    table = items.table.select("item", *wanted).with_columns(known=pl.lit(value=True))
    joined = rows.join(table, on="item", how="left").with_columns(pl.col("known").fill_null(value=False))
    return joined if wanted else joined.with_columns(cluster=pl.lit(None, pl.Int32))


def _novel(shown: pl.DataFrame, used: pl.DataFrame) -> pl.Series:
    """Whether each impression is of a cluster that the person took nothing of before; [n]."""
    met = used.select("unit", "cluster").drop_nulls().unique().with_columns(met=pl.lit(value=True))
    if met.is_empty():
        return shown["cluster"].is_not_null()
    found = shown.select("unit", "cluster").join(met, on=["unit", "cluster"], how="left", maintain_order="left")
    return found["met"].is_null() & found["cluster"].is_not_null()


def _slates(shown: pl.DataFrame, items: Items) -> pl.DataFrame:
    """A row for each slate of two items or more: mean of 1 - cosine over its pairs, from the length of their sum."""
    parts = [f"c{k}" for k in range(items.width)]
    known = shown.drop_nulls("request").join(items.table.select("item", *parts).drop_nulls(), on="item")
    sums = known.group_by("request").agg(
        pl.col("unit", "since", "at").first(), pl.len().alias("n"), *[pl.col(part).sum() for part in parts]
    )
    n, length = pl.col("n").cast(pl.Float64), pl.sum_horizontal([pl.col(part) ** 2 for part in parts])
    alike = (length - n) / (n * (n - 1))
    return sums.filter(n > 1).select("unit", "since", "at", value=1 - alike)


def _rows(rows: pl.DataFrame, event: str | None = None) -> pl.DataFrame:
    """As `Deeds` has them, in one type."""
    kind = pl.col("event").cast(pl.String) if event is None else pl.lit(event)
    there = [name for name in ("item", "cluster", "novel", "value") if name in rows.columns]
    return rows.select("unit", "since", "at", *there, event=kind.cast(pl.Categorical))


def _with_vectors(table: pl.DataFrame, vectors: pl.Series) -> tuple[pl.DataFrame, int]:
    lengths = vectors.drop_nulls().list.len() if isinstance(vectors.dtype, pl.List) else None
    width = int(lengths.max() or 0) if lengths is not None else vectors.dtype.size  # type: ignore[attr-defined,arg-type]
    listed = vectors.to_frame().select(pl.col(vectors.name).cast(pl.List(pl.Float64)).alias("v"))
    parts = listed.select(pl.col("v").list.get(k, null_on_oob=True).alias(f"c{k}") for k in range(width))
    norm = pl.sum_horizontal([pl.col(f"c{k}") ** 2 for k in range(width)]).sqrt()
    unit = parts.select(pl.when(norm > 0).then(pl.col(name) / norm).alias(name) for name in parts.columns)
    return pl.concat([table, unit], how="horizontal"), width


def names_of(units: Sequence[int], log: Log, experiment: Experiment) -> list[str]:
    """The ids of some units, for a report."""
    if not units:
        return []
    found = log.impressions.filter(hashed(experiment.unit).is_in(list(units))).select(experiment.unit).unique()
    return sorted(map(str, found.collect(engine="streaming")[experiment.unit].to_list()))


def whole_counts(
    shown: pl.DataFrame, people: pl.DataFrame, groups: Mapping[int, int], items: Items, of: str
) -> pl.DataFrame:
    """How often each item (or creator) was shown to each random group of people: variant, group, thing, n."""
    chance = (pl.col("unit") // 2**32) % pl.col("variant").replace_strict(dict(groups), return_dtype=pl.UInt64)
    grouped = people.select("unit", "variant", group=chance.cast(pl.UInt16))
    rows = shown.filter(pl.col("event") == SHOWN).select("unit", "item").join(grouped, on="unit")
    if of == "creator":
        rows = rows.join(items.table.select("item", "creator").drop_nulls(), on="item").with_columns(
            item=pl.col("creator").cast(pl.UInt64)
        )
    return rows.group_by("variant", "group", "item").agg(pl.len().alias("n").cast(pl.UInt32))
