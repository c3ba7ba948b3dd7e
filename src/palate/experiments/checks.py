"""What can be wrong with an experiment's data: looked for first, counted and named. What stops is never a win."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np
import polars as pl

from palate.evaluation.heterogeneity import heterogeneity
from palate.evaluation.sample_ratio import MISMATCH, sample_ratio
from palate.experiments.declare import Experiment
from palate.experiments.effects import Effect, person_effects
from palate.experiments.gather import Gathered
from palate.experiments.metrics import DAY
from palate.experiments.register import NOTHING, Changes

State = Literal["good", "warning", "stop"]
CROSSING = 0.01  # of people in two variants, from which nothing can be read
_HOUR = 3_600_000_000  # microseconds
_SURE = 0.001  # p-value from which a warning is worth its noise


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `words` for whoever reads the report, `figures` for machines."""

    name: str
    state: State
    words: str
    figures: dict[str, Any] = field(default_factory=dict)


def checks_of(gathered: Gathered, experiment: Experiment, now: datetime, changed: Changes = NOTHING) -> list[Check]:
    """All of them, the good ones too: a report says what was looked for.

    `changed` says what of the declaration changed since the experiment started.
    """
    return [
        _sample_ratio(gathered, experiment),
        _empty(gathered, experiment),
        _crossing(gathered),
        _declaration(changed),
        _events(gathered, experiment),
        *_counted(gathered),
        _clocks(gathered),
        _weeks(experiment, now),
    ]


def _people(gathered: Gathered, experiment: Experiment) -> dict[str, int]:
    return _counts(gathered.people, experiment)


def _counts(people: pl.DataFrame, experiment: Experiment) -> dict[str, int]:
    counts = dict(people["variant"].value_counts().iter_rows())
    return {name: int(counts.get(number, 0)) for number, name in enumerate(experiment.variants)}


def _sample_ratio(gathered: Gathered, experiment: Experiment) -> Check:
    ratio = sample_ratio(_people(gathered, experiment), experiment.shares)
    figures = {"seen": ratio.seen, "expected": ratio.expected, "p_value": ratio.p_value}
    said = ", ".join(f"{name}: {n:,} of {ratio.expected[name]:,.0f} expected" for name, n in ratio.seen.items())
    if ratio.mismatch:
        words = (
            f"The variants did not get the people that were theirs ({said}; p = {ratio.p_value:.2g} < {MISMATCH}). "
            "Something lost or moved people of one variant: find out what before anything is read."
            f"{_where_amiss(gathered, experiment)}"
        )
        return Check("sample ratio", "stop", words, figures)
    return Check(
        "sample ratio", "good", f"Each variant got its share of people ({said}; p = {ratio.p_value:.2g}).", figures
    )


def _where_amiss(gathered: Gathered, experiment: Experiment) -> str:
    """Where the people's counts are furthest from their shares: among newcomers, in a slice, from one day on."""
    people = gathered.people.with_columns(
        (pl.col("exposed") // DAY).cast(pl.Date).cast(pl.String).alias("first seen on")
    )
    found = []
    for column in ("newcomer", "first seen on", *experiment.slices):
        parts = people.drop_nulls(column).partition_by(column, as_dict=True) if column in people.columns else {}
        for (value,), part in parts.items() if len(parts) > 1 else ():
            ratio = sample_ratio(_counts(part, experiment), experiment.shares)
            found.append((ratio.p_value, f"{column}: {value}"))
    worst = min(found, default=(1.0, ""))
    return f" It is furthest off among {worst[1]} (p = {worst[0]:.2g})." if worst[0] < MISMATCH else ""


def _empty(gathered: Gathered, experiment: Experiment) -> Check:
    nobody = [name for name, n in _people(gathered, experiment).items() if n == 0]
    if nobody:
        return Check("empty variants", "stop", f"Nobody was shown {', '.join(nobody)}.", {"empty": nobody})
    return Check("empty variants", "good", "Every variant was shown to someone.")


def _crossing(gathered: Gathered) -> Check:
    counts = gathered.findings.counts
    mixed, people = counts["people in two variants"], counts["people"]
    if not mixed:
        return Check("people in two variants", "good", "Nobody saw two variants.", {"people": 0})
    share = mixed / people
    named = ", ".join(gathered.mixed)
    words = f"{mixed:,} of {people:,} people ({share:.2%}) saw two variants and are left out, as {named}."
    state: State = "warning"
    if share > CROSSING:
        state, words = "stop", f"{words} That is more than {CROSSING:.0%}: who stays is no longer left to chance."
    return Check("people in two variants", state, words, {"people": mixed, "share": share, "as": gathered.mixed})


def _declaration(changed: Changes) -> Check:
    said = f"Changed since the experiment started: {'; '.join([*changed.split, *changed.plan])}."
    if changed.split:
        return Check("declaration", "stop", f"{said} Who got what changed with it.", vars(changed))
    if changed.plan:
        return Check(
            "declaration", "warning", f"{said} What is named after a look at the data is no proof.", vars(changed)
        )
    return Check(
        "declaration", "good", "Metrics, slices and split are as they were at the start, as far as is recorded."
    )


def _events(gathered: Gathered, experiment: Experiment) -> Check:
    """Metrics for whose events the log has none."""
    types = gathered.seen.types
    metrics = [experiment.metric(name) for name in experiment.all_metrics]
    silent = [each.name for each in metrics if each.types and not any(types.get(kind) for kind in each.types)]
    if not silent:
        return Check("metrics without events", "good", "Every metric has events to rest on.")
    words = f"The log has no event for {', '.join(silent)}: it holds {', '.join(types) or 'no events'}."
    return Check(
        "metrics without events", "stop" if experiment.primary in silent else "warning", words, {"metrics": silent}
    )


_WORDS = {
    "impressions logged twice": "the same item of the same slate; counted once",
    "impressions outside the experiment's time": "before its start or from its end on; left out",
    "impressions under a variant that is not declared": "left out",
    "impressions forced by an override": "the people are left out",
    "impressions of items that are not known": "they count, but for no interest and no creator",
    "events logged twice": "counted once",
    "events after the experiment's end": "left out",
}


def _counted(gathered: Gathered) -> list[Check]:
    """Rows that were left out or doubted, one check a kind."""
    counts, made = gathered.findings.counts, []
    for name, what in _WORDS.items():
        state: State = "warning" if counts[name] else "good"
        words = f"{counts[name]:,} {name}: {what}." if counts[name] else f"No {name}."
        made.append(Check(name, state, words, {"rows": counts[name]}))
    nameless = gathered.seen.nameless
    words = f"{nameless:,} impressions of nobody known: left out." if nameless else "Every impression is somebody's."
    return [*made, Check("impressions without a unit", "warning" if nameless else "good", words, {"rows": nameless})]


def _clocks(gathered: Gathered) -> Check:
    """Events before the slate that led to them; a whole number of hours is a time zone."""
    counts, lags = gathered.findings.counts, np.array(gathered.findings.lags, dtype=np.float64)
    early, tied = counts["events before the slate that led to them"], counts["events that name their slate"]
    if not tied:
        return Check("clocks", "good", "No event names its slate, so that clocks cannot be held against each other.")
    middle = float(np.median(lags)) if len(lags) else 0.0
    hours = round(middle / (_HOUR / 2)) / 2
    figures = {"early": early, "tied": tied, "median_seconds": middle / 1e6}
    if abs(hours) >= 0.5 and float((np.abs(lags - hours * _HOUR) < _HOUR / 6).mean()) > 0.5:
        words = f"Most events come {hours:+g} hours after the slate that led to them: it looks like a time zone."
        return Check("clocks", "warning", words, figures)
    if early:
        words = f"{early:,} of {tied:,} events come before the slate that led to them: a clock is wrong."
        return Check("clocks", "warning", words, figures)
    return Check("clocks", "good", f"All {tied:,} events that name their slate come after it.", figures)


def _weeks(experiment: Experiment, now: datetime) -> Check:
    days = (min(now, experiment.end) - experiment.start).total_seconds() / 86_400
    if days < 7 or abs(days - 7 * round(days / 7)) > 0.25:
        words = (
            f"It has run for {max(days, 0):.1f} days, which is not whole weeks: some weekdays weigh more than others."
        )
        return Check("whole weeks", "warning", words, {"days": days})
    return Check("whole weeks", "good", f"It has run for {round(days / 7)} whole weeks.", {"days": days})


def interference(gathered: Gathered, experiment: Experiment) -> Check:
    """Ways in which one variant can reach the people of another, or another experiment can change the effect."""
    said, state = [], "good"
    if gathered.seen.snapshots > 1:
        state = "warning"
        said.append(
            f"{gathered.seen.snapshots} snapshots answered while it ran: each was trained on what all variants brought "
            "about, so that what one variant discovers helps the others, and the effect is understated"
        )
    for name, p_value in _interactions(gathered, experiment).items():
        if p_value < _SURE:
            state = "warning"
            said.append(f"the effect is not the same within the variants of {name} (p = {p_value:.2g}): they interact")
    words = (
        ". ".join(each[0].upper() + each[1:] for each in said) or "No sign that variants or other experiments touch."
    )
    return Check("interference", "warning" if state == "warning" else "good", words.rstrip(".") + ".")


def _interactions(gathered: Gathered, experiment: Experiment) -> dict[str, float]:
    """For each other experiment that ran beside it: how likely its variants leave the primary effect as it is."""
    metric = experiment.metric(experiment.primary)
    if metric.numerator is None or metric.quantile is not None:
        return {}
    others = {name for said in gathered.seen.others.values() for name in said} - {experiment.name}
    found = {}
    for name in sorted(others):
        said = [each.get(name) for each in gathered.seen.others.values()]
        numbers = {number: each.variant if each is not None else "" for number, each in enumerate(said)}
        people = gathered.people.with_columns(pl.col("label").replace_strict(numbers, default="").alias("within"))
        parts = [part for _, part in people.group_by("within", maintain_order=True)]
        p_values = [
            _unlike(variant, parts, experiment) for variant in experiment.variants if variant != experiment.baseline
        ]
        known = [p_value for p_value in p_values if not np.isnan(p_value)]
        if known:
            found[name] = min(1.0, min(known) * len(known))
    return found


def _unlike(variant: str, parts: Sequence[pl.DataFrame], experiment: Experiment) -> float:
    metric = experiment.metric(experiment.primary)
    blank = [Effect(metric.name, metric.words, "primary", variant, metric.better)]
    effects = [person_effects(metric, blank, part, experiment)[0] for part in parts]
    return heterogeneity([each.absolute.mean for each in effects], [each.error for each in effects])
