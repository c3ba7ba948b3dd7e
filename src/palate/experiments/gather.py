"""From a log to a row a person and a few tables of sums: all that the statistics read, however long the log."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from palate.experiments.cells import added, aggregates, cells_of
from palate.experiments.declare import Experiment
from palate.experiments.deeds import Deeds, Findings, Items, deeds_of, names_of, whole_counts
from palate.experiments.log import Log
from palate.experiments.metrics import DAY, Metric
from palate.experiments.shards import ROWS, Seen, cut, look

NEWCOMER = "newcomer"
GROUPS = 20  # random groups of the smallest variant's people, for statistics of a whole


@dataclass(frozen=True)
class Gathered:
    """All of a log that is judged.

    people: unit, variant (a number), label, exposed, the slices, and for each metric `name.x`, `name.y` (where it is a
    ratio) and `name.before`; null where a person was not observed long enough. cells: sums of the primary metric by
    `table` (day, weekday, date), `key` and variant; cumulative for date. wholes: item or creator to how often each was
    shown to each random group of a variant; `sizes`: how many there are. known: columns of the items' table that
    metrics need and have.
    """

    people: pl.DataFrame
    cells: pl.DataFrame
    wholes: dict[str, pl.DataFrame]
    sizes: dict[str, int]
    known: frozenset[str]
    seen: Seen
    findings: Findings
    mixed: list[str]


def gather(log: Log, experiment: Experiment, rows: int = ROWS) -> Gathered:
    """Read the log once to see what it holds, and once to count.

    Raises:
        InputError: Nothing was shown under the experiment.
    """
    metrics = [experiment.metric(name) for name in experiment.all_metrics]
    seen, items, findings = look(log, experiment), Items.of(log, metrics), Findings()
    slices = _slices(log, experiment)
    people, cells, wholes = [], [], _Wholes(experiment, metrics, items)
    with cut(log, experiment, seen, rows) as shards:
        for shard in shards:
            deeds = deeds_of(shard, experiment, seen, items)
            findings.add(deeds.findings)
            people.append(_people(deeds, metrics, seen.last, slices))
            cells.append(cells_of(deeds, metrics[0], seen.last))
            wholes.add(deeds)
    mixed = names_of(findings.mixed, log, experiment)
    known = frozenset({*items.columns, *(["vector"] if items.width else [])})
    return Gathered(pl.concat(people), added(cells), wholes.counts, wholes.sizes(log), known, seen, findings, mixed)


def _slices(log: Log, experiment: Experiment) -> pl.DataFrame:
    """The users' columns that slices name, by the hash of the unit."""
    if log.users is None or experiment.unit not in log.users.columns:
        return pl.DataFrame(schema={"unit": pl.UInt64})
    there = [name for name in experiment.slices if name in log.users.columns]
    unit = pl.col(experiment.unit).cast(pl.String).hash(seed=0).alias("unit")
    return log.users.select(unit, *[pl.col(name).cast(pl.String) for name in there]).unique("unit")


def _people(deeds: Deeds, metrics: Sequence[Metric], last: int, slices: pl.DataFrame) -> pl.DataFrame:
    made = deeds.people.join(slices, on="unit", how="left")
    made = made.with_columns(pl.when("known_before").then(pl.lit("no")).otherwise(pl.lit("yes")).alias(NEWCOMER))
    asked = [metric for metric in metrics if metric.numerator is not None]
    for days, group in itertools.groupby(sorted(asked, key=lambda metric: metric.days), key=lambda metric: metric.days):
        made = made.join(_values(deeds.after, list(group), days), on="unit", how="left")
        columns = [name for metric in asked if metric.days == days for name in (f"{metric.name}.x", f"{metric.name}.y")]
        filled = [pl.col(name).fill_null(0) for name in columns if name in made.columns]
        long_enough = pl.col("exposed") + int(days * DAY) <= last
        made = made.with_columns(pl.when(long_enough if days else pl.lit(value=True)).then(each) for each in filled)
    before = [
        metric.before.cast(pl.Float64).alias(f"{metric.name}.before") for metric in asked if metric.before is not None
    ]
    if before:
        made = made.join(deeds.before.group_by("unit").agg(before), on="unit", how="left")
        made = made.with_columns(pl.col(r"^.*\.before$").fill_null(0))
    return made.drop("known_before")


def _values(after: pl.DataFrame, metrics: Sequence[Metric], days: float) -> pl.DataFrame:
    rows = after.filter(pl.col("since") < int(days * DAY)) if days else after
    return rows.lazy().group_by("unit").agg(aggregates(metrics)).collect(engine="streaming")


class _Wholes:
    """Counts of what was shown to random groups of people, added up over shards."""

    def __init__(self, experiment: Experiment, metrics: Sequence[Metric], items: Items) -> None:
        shares = list(experiment.shares.values())
        self.groups = {number: round(GROUPS * share / min(shares)) for number, share in enumerate(shares)}
        self.kinds = {metric.name: metric.whole.of for metric in metrics if metric.whole is not None}
        self.items = items
        self.counts: dict[str, pl.DataFrame] = {}

    def add(self, deeds: Deeds) -> None:
        for of in set(self.kinds.values()):
            if of == "creator" and "creator" not in self.items.columns:
                continue
            made = whole_counts(deeds.after, deeds.people, self.groups, self.items, of)
            if of in self.counts:
                made = pl.concat([self.counts[of], made]).group_by("variant", "group", "item").agg(pl.col("n").sum())
            self.counts[of] = made

    def sizes(self, log: Log) -> dict[str, int]:
        """How many items and creators there are: of the items' table, or of all that were shown."""
        sizes = {of: counts["item"].n_unique() for of, counts in self.counts.items()}
        if "item" in sizes and log.items is not None:
            sizes["item"] = max(sizes["item"], log.items.height)
        if "creator" in sizes:
            sizes["creator"] = max(sizes["creator"], self.items.table["creator"].n_unique())
        return sizes
