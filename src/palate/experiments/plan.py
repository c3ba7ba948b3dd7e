"""Before an experiment: how many people it needs, how long that takes, and what it could find, from the log so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from palate.data.assignment import Assigned, label
from palate.errors import InputError
from palate.evaluation.cuped import cuped
from palate.evaluation.power import Design
from palate.evaluation.ratio import linearised
from palate.evaluation.welch import Array
from palate.evaluation.winsorise import winsorised
from palate.experiments.declare import Experiment
from palate.experiments.gather import gather
from palate.experiments.log import Log
from palate.experiments.metrics import Metric

WINDOW = 28  # days of history that are taken for what is to come, at most
_WEEKS = (1, 2, 3, 4, 6, 8)


@dataclass(frozen=True)
class Plan:
    """What history says of the primary metric.

    Attributes:
        mean, deviation: Of one person over the window; `correlation` with what the person did before.
        effect: The relative change to be found with a chance of `power`.
        people: All variants together, so that every variant finds it against the control (alpha over the variants).
        reach: Day to how many people are met by then, of the experiment's slots.
        days: Whole weeks until enough are met; None: not within two years.
        power_declared: The chance of finding `effect` in the declared time; `detectable`: weeks to what they find.
    """

    metric: str
    mean: float
    deviation: float
    correlation: float
    effect: float
    power: float
    people: int
    days: int | None
    window_days: float
    declared_days: float
    people_declared: int
    power_declared: float
    detectable: dict[int, float]
    reach: list[int]

    def words(self) -> list[str]:
        """For people who decide."""
        said = [
            f"{self.metric} was {self.mean:.4g} (deviation {self.deviation:.4g} between people) over the last "
            f"{self.window_days:.0f} days; what people did before tells {self.correlation**2:.0%} of the variance.",
            f"To find a change of {self.effect:+.1%} with a chance of {self.power:.0%} takes {self.people:,} people.",
        ]
        said.append(
            "That many are not met within two years: test a larger change, on more traffic, or by another metric."
            if self.days is None
            else f"They are met within {self.days} days ({self.days // 7} whole weeks)."
        )
        said.append(
            f"As declared, {self.declared_days:.0f} days meet {self.people_declared:,} people and find that change "
            f"with a chance of {self.power_declared:.0%}."
        )
        return said


def plan(log: Log, experiment: Experiment, power: float = 0.8, effect: float | None = None) -> Plan:
    """Plan an experiment by a window of history in which nothing was tried.

    Args:
        effect: Relative, of the primary metric; by default the declared minimum effect.

    Raises:
        InputError: The log is too short or too thin to say, or the metric is not one of people.
    """
    metric = experiment.metric(experiment.primary)
    if metric.whole is not None or metric.quantile is not None or metric.numerator is None:
        raise InputError("Only means and ratios over people are planned for.", where="primary", got=metric.name)
    start, end = _window(log)
    values, before, exposed = _history(log, experiment, metric, start, end)
    mean, deviation = float(values.mean()), float(values.std(ddof=1))
    if not deviation > 0 or mean == 0:
        hint = "Has the log the events of this metric? Name a metric that people differ in."
        raise InputError(
            "The metric is the same for everybody, so that history says nothing.", where=metric.name, hint=hint
        )
    correlation = cuped([values], [before]).correlation
    wanted = abs(effect or experiment.minimum_effect)
    designs = _designs(experiment, deviation * math.sqrt(1 - correlation**2))
    people = max(design.people(wanted * abs(mean), power) for design in designs)
    reach = _reach(exposed, experiment)
    declared = (experiment.end - experiment.start) / timedelta(days=1)
    met = _met(reach, declared)
    return Plan(
        metric.name,
        mean,
        deviation,
        correlation,
        wanted,
        power,
        people,
        _days(reach, people),
        (end - start) / timedelta(days=1),
        declared,
        round(met),
        min(design.power(wanted * abs(mean), met) for design in designs) if met > 4 else 0.0,
        {w: max(d.detectable(max(5.0, _met(reach, 7 * w)), power) for d in designs) / abs(mean) for w in _WEEKS},
        [round(each) for each in reach],
    )


def as_data(made: Plan) -> dict[str, Any]:
    return {**vars(made), "verdict": made.words()}


def _window(log: Log) -> tuple[datetime, datetime]:
    """The last `WINDOW` days of impressions, fewer where there are not so many."""
    found = log.impressions.select(
        pl.col("timestamp").min().alias("first"), pl.col("timestamp").max().alias("last")
    ).collect(engine="streaming")
    first, last = found.row(0)
    if first is None or last - first < timedelta(days=1):
        hint = "Serve for some days first: impressions land in .palate/landing."
        raise InputError("There is no history of a day or more to plan by.", got=f"{first} to {last}", hint=hint)
    end = last + timedelta(microseconds=1)
    return max(first, end - timedelta(days=WINDOW)).astimezone(UTC), end.astimezone(UTC)


def _history(
    log: Log, experiment: Experiment, metric: Metric, start: datetime, end: datetime
) -> tuple[Array, Array, Array]:
    """Of each person of the window: the metric, what was before, and the days until first met."""
    everybody = Assigned(experiment.baseline)
    named = pl.lit(label({experiment.name: everybody})).alias("variant")
    window = log.impressions.filter(pl.col("timestamp") >= start).with_columns(named)
    said = {"start": start, "end": end, "guardrails": (), "metrics": (), "slices": (), "overrides": {}}
    people = gather(replace(log, impressions=window), experiment.model_copy(update=said)).people
    people = people.filter(pl.col(f"{metric.name}.x").is_not_null())
    if people.height < 10:
        raise InputError("Too few people were met in the history to plan by.", got=people.height, allowed="10 or more")
    x = people[f"{metric.name}.x"].to_numpy()
    if metric.winsorise is not None:
        x = winsorised([x], metric.winsorise)[0][0]
    values = x if metric.denominator is None else linearised(x, people[f"{metric.name}.y"].to_numpy())
    named_before = f"{metric.name}.before"
    before = people[named_before].to_numpy() if named_before in people.columns else np.zeros(people.height)
    days = (people["exposed"] - round(start.timestamp() * 1e6)).to_numpy() / 86_400e6
    return values, before, days


def _designs(experiment: Experiment, deviation: float) -> list[Design]:
    """One for each variant against the control."""
    control = experiment.shares[experiment.baseline]
    alpha = (1 - experiment.level) / (len(experiment.variants) - 1)
    return [
        Design(deviation, share, control, alpha)
        for name, share in experiment.shares.items()
        if name != experiment.baseline
    ]


def _reach(exposed: Array, experiment: Experiment) -> list[float]:
    """People met by the end of each whole day of the window, of the experiment's slots."""
    days = max(1, math.ceil(float(exposed.max())))
    met = np.cumsum(np.bincount(exposed.astype(np.int64), minlength=days))
    return [float(each) * (experiment.slots[1] - experiment.slots[0]) for each in met]


def _met(reach: list[float], days: float) -> float:
    """After so many days; beyond the window as many new ones a day as in its last week."""
    if days <= len(reach):
        return reach[max(0, math.ceil(days) - 1)]
    week = min(7, len(reach) - 1)
    daily = (reach[-1] - reach[-1 - week]) / week if week else reach[-1]
    return reach[-1] + daily * (days - len(reach))


def _days(reach: list[float], people: int) -> int | None:
    return next((7 * week for week in range(1, 105) if _met(reach, 7 * week) >= people), None)
