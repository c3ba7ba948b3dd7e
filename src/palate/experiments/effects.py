"""What a variant did to a metric, against the control, with its interval: means, ratios, quantiles and wholes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl

from palate.evaluation.always_valid import AlwaysValid, always_valid
from palate.evaluation.bootstrap import Interval
from palate.evaluation.cuped import cuped
from palate.evaluation.discovery import false_discovery_q
from palate.evaluation.paired import holm
from palate.evaluation.quantile_difference import quantile_difference
from palate.evaluation.ratio import linearised
from palate.evaluation.welch import Array, Difference, moments, welch
from palate.evaluation.winsorise import winsorised
from palate.experiments.declare import Experiment
from palate.experiments.gather import Gathered
from palate.experiments.metrics import Metric

Role = Literal["primary", "guardrail", "metric"]
_UNKNOWN = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Effect:
    """Of `variant` on `metric`. `treated` and `control` are the plain figures; the intervals are of what was adjusted.

    Attributes:
        error: The standard error of the absolute difference.
        p_value: Of this test alone; `adjusted` for all tests of its family.
        always: May be read while the experiment runs.
        correlation: Of what people did before and after; intervals are sqrt(1 - correlation²) of their length without.
        missing: Why there is no figure, in words; empty where there is one.
    """

    metric: str
    words: str
    role: Role
    variant: str
    better: Literal["up", "down"]
    n_treated: int = 0
    n_control: int = 0
    treated: float = math.nan
    control: float = math.nan
    absolute: Interval = _UNKNOWN
    relative: Interval = _UNKNOWN
    error: float = math.nan
    p_value: float = math.nan
    adjusted: float = math.nan
    always: AlwaysValid | None = None
    correlation: float = 0.0
    limit: float = math.nan
    missing: str = ""

    def found(self, level: float, peeking: bool = False) -> Literal["better", "worse", "unclear"]:
        """Whether the difference is told from 0; `peeking`: by the interval that may be read at any time."""
        p_value = (self.always.p_value if self.always is not None else 1.0) if peeking else self.adjusted
        if not p_value < 1 - level or self.absolute.mean == 0:
            return "unclear"
        return "better" if (self.absolute.mean > 0) == (self.better == "up") else "worse"


def effects_of(gathered: Gathered, experiment: Experiment) -> list[Effect]:
    """Every metric in every variant, in the order declared, with p-values adjusted.

    The primary metric is a family of its own, by Holm over the variants: it was named before. All others make a second
    one, by the declared correction.
    """
    found = []
    for name in experiment.all_metrics:
        metric = experiment.metric(name)
        role: Role = (
            "primary" if name == experiment.primary else "guardrail" if name in experiment.guardrails else "metric"
        )
        found += effects_on(metric, role, gathered, experiment)
    primary = adjusted([each for each in found if each.role == "primary"], "holm")
    return primary + adjusted([each for each in found if each.role != "primary"], experiment.correction)


def effects_on(metric: Metric, role: Role, gathered: Gathered, experiment: Experiment) -> list[Effect]:
    """Of each variant but the control, not adjusted."""
    treated = [name for name in experiment.variants if name != experiment.baseline]
    blank = [Effect(metric.name, metric.words, role, name, metric.better) for name in treated]
    missing = _missing(metric, gathered)
    if missing:
        return [replace(each, missing=missing) for each in blank]
    if metric.whole is not None:
        values = _group_figures(metric, gathered, experiment)
        people = gathered.people["variant"].value_counts()
        met = {list(experiment.variants)[number]: n for number, n in people.iter_rows()}
        control = experiment.baseline
        return [
            _compared(each, values[each.variant], values[control], experiment, (met[each.variant], met[control]))
            for each in blank
        ]
    return person_effects(metric, blank, gathered.people, experiment)


def person_effects(
    metric: Metric, blank: Sequence[Effect], people: pl.DataFrame, experiment: Experiment
) -> list[Effect]:
    """Effects on what people did, over the people given."""
    names = list(experiment.variants)
    variant, known = people["variant"].to_numpy(), people[f"{metric.name}.x"].is_not_null().to_numpy()
    own = [known & (variant == number) for number in range(len(names))]

    def column(part: str) -> list[Array]:
        values = people[f"{metric.name}.{part}"].cast(pl.Float64).to_numpy()
        return [values[mask] for mask in own]

    plain, limit = column("x"), math.nan
    if metric.winsorise is not None:
        capped, limit = winsorised(plain, metric.winsorise)
        plain = list(capped)
    if metric.quantile is not None:
        figures = dict(zip(names, plain, strict=True))
        return [_quantiles(each, figures, metric.quantile, experiment) for each in blank]
    if metric.denominator is not None:
        plain = [linearised(above, below) for above, below in zip(plain, column("y"), strict=True)]
    values, correlation = plain, 0.0
    if metric.before is not None and not any(np.isnan(each).any() for each in plain):
        held = cuped(plain, column("before"))
        values, correlation = list(held.values), held.correlation
    found, control = [], names.index(experiment.baseline)
    for each in blank:
        treated = names.index(each.variant)
        counts = [len(values[treated]), len(values[control])]
        made = _compared(each, values[treated], values[control], experiment, counts)
        means = {"treated": _mean(plain[treated]), "control": _mean(plain[control])}
        found.append(replace(made, correlation=correlation, limit=limit, **means))  # type: ignore[arg-type]
    return found


def adjusted(effects: Sequence[Effect], how: Literal["holm", "bh"]) -> list[Effect]:
    """With p-values adjusted over all of them that have one."""
    known = [place for place, each in enumerate(effects) if not math.isnan(each.p_value)]
    p_values = [effects[place].p_value for place in known]
    told = holm(p_values) if how == "holm" else false_discovery_q(p_values)
    made = list(effects)
    for place, p_value in zip(known, told.tolist(), strict=True):
        made[place] = replace(made[place], adjusted=p_value)
    return made


def _compared(blank: Effect, treated: Array, control: Array, experiment: Experiment, people: Sequence[int]) -> Effect:
    """By Welch's test over the values, which stand for so many `people` treated and in the control."""
    a, b = moments(treated), moments(control)
    found = welch(a, b, experiment.level)
    always = experiment_always(found, sum(people), blank.variant, experiment)
    figures = {"n_treated": people[0], "n_control": people[1], "treated": a.mean, "control": b.mean}
    return _with_difference(replace(blank, **figures), found, always)  # type: ignore[arg-type]


def experiment_always(found: Difference, people: int, variant: str, experiment: Experiment) -> AlwaysValid:
    """The interval for people who peek: the declared level shared out over the variants (Bonferroni)."""
    planned = experiment.people * (experiment.shares[variant] + experiment.shares[experiment.baseline])
    level = 1 - (1 - experiment.level) / (len(experiment.variants) - 1)
    return always_valid(found.absolute.mean, found.error, people, max(2, round(planned)), level)


def _with_difference(blank: Effect, found: Difference, always: AlwaysValid) -> Effect:
    if math.isnan(found.p_value):
        return replace(blank, missing="fewer than two people of a variant were observed long enough")
    return replace(
        blank, absolute=found.absolute, relative=found.relative, error=found.error, p_value=found.p_value, always=always
    )


def _quantiles(blank: Effect, values: Mapping[str, Array], quantile: float, experiment: Experiment) -> Effect:
    treated, control = values[blank.variant], values[experiment.baseline]
    if not len(treated) or not len(control):
        return replace(blank, missing="nobody of a variant was observed long enough")
    found, p_value = quantile_difference(treated, control, quantile, level=experiment.level)
    figures = [float(np.sort(each)[min(len(each) - 1, int(quantile * len(each)))]) for each in (treated, control)]
    scale = figures[1] or math.nan
    relative = Interval(*(end / scale for end in (found.mean, found.low, found.high)))
    counted = replace(blank, n_treated=len(treated), n_control=len(control), treated=figures[0], control=figures[1])
    return replace(counted, absolute=found, relative=relative, p_value=p_value)


def _group_figures(metric: Metric, gathered: Gathered, experiment: Experiment) -> dict[str, Array]:
    """The statistic of each random group of each variant's people (random groups: Wolter 2007, chapter 2)."""
    assert metric.whole is not None
    counts, size = gathered.wholes[metric.whole.of], gathered.sizes[metric.whole.of]
    found: dict[str, Array] = {}
    for number, name in enumerate(experiment.variants):
        own = counts.filter(pl.col("variant") == number)
        figures = []
        for (_,), part in own.group_by("group", maintain_order=False):
            padded = np.zeros(size, dtype=np.int64)
            padded[: part.height] = part["n"].to_numpy()
            figures.append(metric.whole.statistic(padded))
        found[name] = np.sort(np.array(figures, dtype=np.float64))
    return found


def _missing(metric: Metric, gathered: Gathered) -> str:
    """Why a metric cannot be judged."""
    if metric.types and not any(gathered.seen.types.get(kind) for kind in metric.types):
        return f"the log has no event of the type {' or '.join(metric.types)}"
    if metric.whole is not None and metric.whole.of not in gathered.wholes:
        return f"the items' table has no column {metric.whole.of}"
    absent = [need for need in metric.needs if need not in gathered.known]
    return f"the items' table has no column {', '.join(absent)}" if absent else ""


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else math.nan
