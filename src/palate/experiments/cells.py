"""Sums over people of a metric by day since exposure, by weekday and up to each date: they add up over shards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from palate.experiments.deeds import Deeds
from palate.experiments.metrics import DAY, Metric

SUMS = ("n", "x", "y", "xx", "xy", "yy")
"""As `evaluation.ratio.Sums` has them."""
_SCHEMA = pl.Schema(
    {"table": pl.String(), "key": pl.Int64(), "variant": pl.UInt8(), **dict.fromkeys(SUMS, pl.Float64())}
)
_DAY, _DATE = pl.col("since") // DAY, pl.col("at") // DAY
_KEYS = {"day": pl.col("day"), "date": pl.col("date"), "weekday": (pl.col("date") + 3) % 7}
"""1970 began on a Thursday; weekday 0 is Monday."""


def aggregates(metrics: Iterable[Metric]) -> list[pl.Expr]:
    """`name.x` and, of a ratio, `name.y`."""
    return [
        aggregate.cast(pl.Float64).alias(f"{metric.name}.{part}")
        for metric in metrics
        for part, aggregate in (("x", metric.numerator), ("y", metric.denominator))
        if aggregate is not None
    ]


def cells_of(deeds: Deeds, metric: Metric, last: int) -> pl.DataFrame:
    """`table`, `key`, variant and `SUMS` of a shard; nothing of a metric that does not add up over days.

    A day since exposure is about the people who were observed through all of it; a date about what people did up to and
    with it, as what the date adds to the sums (`added` cumulates them).
    """
    if not metric.adds:
        return pl.DataFrame(schema=_SCHEMA)
    people, tables = deeds.people.select("unit", "variant", "exposed"), []
    x, y = pl.col(f"{metric.name}.x"), pl.col(f"{metric.name}.y") if metric.denominator is not None else pl.lit(0.0)
    grouped = deeds.after.lazy().group_by("unit", day=_DAY, date=_DATE).agg(aggregates([metric]))
    daily = grouped.select("unit", "day", "date", x1=x, y1=y).collect(engine="streaming").join(people, on="unit")
    for table, key in _KEYS.items():
        values = daily.group_by("unit", "variant", "exposed", key.alias("key")).agg(pl.col("x1", "y1").sum())
        if table == "day":
            values = values.filter(pl.col("exposed") + (pl.col("key") + 1) * DAY <= last)
        summed = _sums(values, metric, running=table == "date")
        about = _people(people, table, last, metric)
        tables += [
            each.select(pl.lit(table).alias("table"), *list(_SCHEMA)[1:]).cast(_SCHEMA) for each in (summed, about)
        ]
    return pl.concat(tables)


def added(cells: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Over shards; dates become cumulative."""
    summed = pl.concat(cells).group_by("table", "key", "variant").agg(pl.col(*SUMS).sum())
    dates = summed.filter(pl.col("table") == "date").sort("key")
    whole = dates.with_columns(pl.col(*SUMS).cum_sum().over("variant"))
    return pl.concat([summed.filter(pl.col("table") != "date"), whole]).sort("table", "key", "variant")


def _sums(values: pl.DataFrame, metric: Metric, running: bool) -> pl.DataFrame:
    """Over people, by key and variant; `running`: of each one's values so far, as what each key adds to the sums."""
    if running:
        values = values.sort("unit", "key").with_columns(
            pl.col("x1", "y1").cum_sum().over("unit"), x0=pl.col("x1"), y0=pl.col("y1")
        )
        values = values.with_columns(x0=pl.col("x1") - pl.col("x0"), y0=pl.col("y1") - pl.col("y0"))
    else:
        values = values.with_columns(x0=pl.lit(0.0), y0=pl.lit(0.0))
    x1, y1, x0, y0 = (pl.col(name) for name in ("x1", "y1", "x0", "y0"))
    xy = x1 * y1 - x0 * y0 if metric.denominator is not None else x1 - x0  # below the line of a mean stands a 1
    grown = {"n": pl.lit(0.0), "x": x1 - x0, "y": y1 - y0, "xx": x1**2 - x0**2, "xy": xy, "yy": y1**2 - y0**2}
    return values.group_by("key", "variant").agg(each.sum().alias(name) for name, each in grown.items())


def _people(people: pl.DataFrame, table: str, last: int, metric: Metric) -> pl.DataFrame:
    """How many people a cell is about: observed through that day, exposed on that date, or all."""
    if table == "weekday":
        made = people.group_by("variant").agg(n=pl.len()).join(pl.DataFrame({"key": range(7)}), how="cross")
    else:
        observed = ((pl.lit(last) - pl.col("exposed")) // DAY).clip(0)
        key = pl.col("exposed") // DAY if table == "date" else pl.int_ranges(0, observed)
        made = people.select("variant", key=key)
        if table == "day":
            made = made.filter(pl.col("key").list.len() > 0).explode("key")
        made = made.group_by("key", "variant").agg(n=pl.len())
    n, nothing = pl.col("n").cast(pl.Float64), pl.lit(0.0)
    one = n if metric.denominator is None else nothing
    return made.select("key", "variant", n=n, x=nothing, y=one, xx=nothing, xy=nothing, yy=one)
