"""An experiment's analysis: checks first, and where none stops it, effects with intervals and what they come to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import polars as pl

from palate.evaluation.heterogeneity import heterogeneity, trend
from palate.evaluation.ratio import Sums
from palate.evaluation.welch import welch
from palate.experiments.cells import SUMS
from palate.experiments.checks import Check, checks_of, interference
from palate.experiments.declare import Experiment
from palate.experiments.effects import Effect, adjusted, effects_of, experiment_always, person_effects
from palate.experiments.gather import NEWCOMER, Gathered, gather
from palate.experiments.log import Log
from palate.experiments.register import NOTHING, Changes
from palate.experiments.shards import ROWS

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_VALUES = 20  # of a slice that are looked at, the largest
Outcome = Literal["not readable", "running", "better", "worse", "mixed", "no effect", "unclear"]


@dataclass(frozen=True)
class Analysis:
    """What is known of an experiment. Not `readable`: a check stopped it, and there are no effects at all.

    days, weekdays, path: the primary metric by day since exposure, by weekday, and cumulated up to each date, each row
    with variant, estimate, low, high (and always_low, always_high for `path`). slices: effects with the slice's name.
    """

    experiment: Experiment
    status: Literal["planned", "running", "ended"]
    checks: list[Check]
    people: dict[str, int]
    rows: dict[str, int]
    effects: list[Effect] = field(default_factory=list)
    slices: list[tuple[str, Effect]] = field(default_factory=list)
    days: list[dict[str, Any]] = field(default_factory=list)
    weekdays: list[dict[str, Any]] = field(default_factory=list)
    path: list[dict[str, Any]] = field(default_factory=list)
    steady: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def readable(self) -> bool:
        return all(check.state != "stop" for check in self.checks)

    def outcome(self, variant: str) -> Outcome:
        """What became of a variant. While the experiment runs only the intervals for people who peek decide."""
        if not self.readable:
            return "not readable"
        peeking, level = self.status != "ended", self.experiment.level
        own = [each for each in self.effects if each.variant == variant]
        primary = next(each for each in own if each.role == "primary")
        said = primary.found(level, peeking)
        hurt = [each for each in own if each.role == "guardrail" and each.found(level, peeking) == "worse"]
        if said == "worse":
            return "worse"
        if said == "better":
            return "mixed" if hurt else "better"
        if hurt:
            return "worse"
        if peeking:
            return "running"
        least = self.experiment.minimum_effect
        small = primary.relative.low > -least and primary.relative.high < least
        return "no effect" if small else "unclear"


def analyse(log: Log, experiment: Experiment, now: datetime, changed: Changes = NOTHING, rows: int = ROWS) -> Analysis:
    """Judge an experiment by its log.

    Args:
        now: Whether it still runs.
        changed: What of its declaration changed since it started (`Register.changes`).
        rows: Of a shard; a longer log is cut into several.

    Raises:
        InputError: Nothing was shown under the experiment.
    """
    gathered = gather(log, experiment, rows)
    checks = checks_of(gathered, experiment, now, changed)
    if log.notes:
        checks.append(Check("time zones", "warning", f"{log.notes[0][:1].upper()}{'; '.join(log.notes)[1:]}."))
    status = experiment.status(now)
    counts = dict(gathered.people["variant"].value_counts().iter_rows())
    people = {name: int(counts.get(number, 0)) for number, name in enumerate(experiment.variants)}
    read = {"impressions": gathered.seen.rows, "of other experiments": gathered.seen.outside, **gathered.seen.types}
    if any(check.state == "stop" for check in checks):
        return Analysis(experiment, status, checks, people, read)
    tables = {name: _rows(gathered.cells, name, experiment) for name in ("day", "weekday", "date")}
    return Analysis(
        experiment,
        status,
        [*checks, interference(gathered, experiment)],
        people,
        read,
        effects_of(gathered, experiment),
        _slices(gathered, experiment),
        tables["day"],
        tables["weekday"],
        tables["date"],
        _steady(tables, experiment),
    )


def _slices(gathered: Gathered, experiment: Experiment) -> list[tuple[str, Effect]]:
    """The primary metric within each value of each slice, adjusted over all of them."""
    metric = experiment.metric(experiment.primary)
    if metric.numerator is None:
        return []
    names, found = [], []
    for column in experiment.slices:
        if column not in gathered.people.columns:
            continue
        sizes = gathered.people[column].drop_nulls().value_counts(sort=True)
        for value in sizes[column].head(_VALUES).to_list():
            part = gathered.people.filter(pl.col(column) == value)
            treated = [name for name in experiment.variants if name != experiment.baseline]
            blank = [Effect(metric.name, metric.words, "primary", name, metric.better) for name in treated]
            found += person_effects(metric, blank, part, experiment)
            names += [f"{column}: {value}"] * len(blank)
    return list(zip(names, adjusted(found, experiment.correction), strict=True))


def _rows(cells: pl.DataFrame, table: str, experiment: Experiment) -> list[dict[str, Any]]:
    """A difference for each key and variant of a table of sums."""
    own = cells.filter(pl.col("table") == table)
    sums = {
        (key, number): Sums(*rest) for _, key, number, *rest in own.select("table", "key", "variant", *SUMS).iter_rows()
    }
    names, keys = list(experiment.variants), sorted({key for key, _ in sums})
    baseline, made = names.index(experiment.baseline), []
    last: dict[int, Sums] = {}
    for key in keys:
        last = {**(last if table == "date" else {}), **{n: sums[key, n] for n in range(len(names)) if (key, n) in sums}}
        for number, name in enumerate(names):
            if number != baseline and number in last and baseline in last:
                row = _difference(last[number], last[baseline], experiment, name)
                made.append({"key": key, "variant": name, **row})
    return made


def _difference(treated: Sums, control: Sums, experiment: Experiment, variant: str) -> dict[str, float]:
    a, b = treated.moments(), control.moments()
    found = welch(a, b, experiment.level)
    always = experiment_always(found, a.n + b.n, variant, experiment)
    return {
        "estimate": found.absolute.mean,
        "low": found.absolute.low,
        "high": found.absolute.high,
        "error": found.error,
        "p_value": found.p_value,
        "always_low": always.low,
        "always_high": always.high,
        "always_p": always.p_value,
        "n": a.n + b.n,
    }


def _steady(tables: dict[str, list[dict[str, Any]]], experiment: Experiment) -> dict[str, dict[str, float]]:
    """For each variant: does the effect wear off or grow with the days, and does it depend on the weekday."""
    found = {}
    for name in experiment.variants:
        if name == experiment.baseline:
            continue
        days, weekdays = ([row for row in tables[table] if row["variant"] == name] for table in ("day", "weekday"))
        slope, p_value = trend([row["estimate"] for row in days], [row["error"] for row in days])
        unlike = heterogeneity([row["estimate"] for row in weekdays], [row["error"] for row in weekdays])
        first = days[0]["estimate"] if days else math.nan
        found[name] = {"slope": slope, "slope_p": p_value, "weekday_p": unlike, "first_day": first}
    return found


__all__ = ["NEWCOMER", "WEEKDAYS", "Analysis", "Outcome", "analyse"]
