"""An analysis in words for people who decide, and as plain data for machines and pages."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from palate.experiments.analyse import WEEKDAYS, Analysis
from palate.experiments.effects import Effect

_SIGN = 0.05  # p-value from which a trend over days or weekdays is mentioned


def as_data(analysis: Analysis, now: datetime) -> dict[str, Any]:
    """All of it, as `report.json` has it; intervals as `relative`, `relative_low`, `relative_high`."""
    experiment = analysis.experiment
    treated = [name for name in experiment.variants if name != experiment.baseline]
    return {
        "name": experiment.name,
        "hypothesis": experiment.hypothesis,
        "status": analysis.status,
        "analysed_at": now.isoformat(),
        "start": experiment.start.isoformat(),
        "end": experiment.end.isoformat(),
        "control": experiment.baseline,
        "primary": experiment.primary,
        "primary_words": experiment.metric(experiment.primary).words,
        "level": experiment.level,
        "minimum_effect": experiment.minimum_effect,
        "correction": experiment.correction,
        "readable": analysis.readable,
        "outcomes": {name: analysis.outcome(name) for name in treated},
        "verdict": verdict(analysis),
        "checks": [asdict(check) for check in analysis.checks],
        "people": analysis.people,
        "rows": analysis.rows,
        "effects": [_effect(each, analysis) for each in analysis.effects],
        "slices": [{"slice": name, **_effect(each, analysis)} for name, each in analysis.slices],
        "days": [{**row, "day": row["key"]} for row in analysis.days],
        "weekdays": [{**row, "weekday": WEEKDAYS[row["key"]]} for row in analysis.weekdays],
        "path": [
            {**row, "date": datetime.fromtimestamp(row["key"] * 86_400, UTC).date().isoformat()}
            for row in analysis.path
        ],
        "steady": analysis.steady,
        "declared": experiment.model_dump(mode="json"),
        "fingerprint": experiment.fingerprint(),
    }


def verdict(analysis: Analysis) -> list[str]:
    """A sentence or two for each variant, the worst news first."""
    stopped = [check.words for check in analysis.checks if check.state == "stop"]
    if stopped:
        return ["This experiment cannot be read, and no effect is shown.", *stopped]
    experiment, said = analysis.experiment, []
    for name in experiment.variants:
        if name != experiment.baseline:
            said += _on_variant(name, analysis)
    if analysis.status == "running":
        said.append(
            f"It runs until {experiment.end:%Y-%m-%d %H:%M %Z}. Until then only intervals for people who peek hold; "
            "the narrower ones are for the end, and reading them before finds effects where there are none."
        )
    return said


def _on_variant(name: str, analysis: Analysis) -> list[str]:
    experiment = analysis.experiment
    primary = next(each for each in analysis.effects if each.role == "primary" and each.variant == name)
    if primary.missing:
        return [f"{name}: nothing can be said of {primary.metric}: {primary.missing}."]
    peeking, outcome = analysis.status != "ended", analysis.outcome(name)
    found, span = primary.found(experiment.level, peeking), _span(primary, peeking)
    figures = f"{primary.words}: {_figure(primary.control)} → {_figure(primary.treated)}, {span}"
    if found == "unclear":
        said = [f"{name} is not told apart from {experiment.baseline} in {primary.metric} ({figures})."]
        if outcome == "no effect":
            said.append(
                f"A change of {experiment.minimum_effect:.1%} or more, the least that would matter, is ruled out."
            )
        elif outcome == "unclear":
            said.append("That neither shows an effect nor rules one out: it would take more people.")
    else:
        word = "raises" if primary.absolute.mean > 0 else "lowers"
        said = [f"{name} {word} {primary.metric} ({figures})."]
    said += _guardrails(name, analysis, peeking)
    return [*said, *_over_time(name, analysis)]


def _guardrails(name: str, analysis: Analysis, peeking: bool) -> list[str]:
    own = [each for each in analysis.effects if each.role == "guardrail" and each.variant == name]
    hurt = [each for each in own if each.found(analysis.experiment.level, peeking) == "worse"]
    silent = [each.metric for each in own if each.missing]
    said = [f"It makes the guardrail {each.metric} worse ({each.words}: {_span(each, peeking)})." for each in hurt]
    if silent:
        said.append(f"Nothing can be said of the guardrail {', '.join(silent)}.")
    if own and not hurt and not silent:
        said.append("No guardrail is found to be worse.")
    return said


def _over_time(name: str, analysis: Analysis) -> list[str]:
    steady, said = analysis.steady.get(name), []
    if not steady:
        return []
    slope, first = steady["slope"], steady["first_day"]
    if steady["slope_p"] < _SIGN and first:
        word = "wears off: novelty had a part in it" if slope * first < 0 else "grows with the days"
        said.append(f"Its effect {word} (p = {steady['slope_p']:.2g} for the change by day since exposure).")
    if steady["weekday_p"] < _SIGN:
        said.append(f"Its effect depends on the weekday (p = {steady['weekday_p']:.2g}).")
    return said


def _span(effect: Effect, peeking: bool) -> str:
    """The relative change with its interval, scaled to the one for people who peek where it must be that one."""
    relative, absolute = effect.relative, effect.absolute
    low, high = relative.low, relative.high
    if peeking and effect.always is not None and absolute.mean != absolute.low:
        wider = (absolute.mean - effect.always.low) / (absolute.mean - absolute.low)
        # as the interval is one of the ratio's logarithm; a lift of -100% or less has none
        ratio = 1 + relative.mean
        low, high = (ratio * ((1 + end) / ratio) ** wider - 1 if 1 + end > 0 < ratio else end for end in (low, high))
    if math.isnan(relative.mean):
        return f"a change of {_figure(absolute.mean)} [{_figure(absolute.low)}, {_figure(absolute.high)}]"
    return f"{relative.mean:+.1%} [{low:+.1%}, {high:+.1%}]"


def _figure(value: float) -> str:
    return f"{value:.4g}"


def _effect(effect: Effect, analysis: Analysis) -> dict[str, Any]:
    peeking, level = analysis.status != "ended", analysis.experiment.level
    said: dict[str, Any] = {
        name: getattr(effect, name)
        for name in (
            "metric",
            "words",
            "role",
            "variant",
            "better",
            "n_treated",
            "n_control",
            "treated",
            "control",
            "missing",
        )
    }
    for name in ("absolute", "relative"):
        interval = getattr(effect, name)
        said |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
    always = effect.always
    if always is not None:
        said |= {"always_low": always.low, "always_high": always.high, "always_p": always.p_value}
    said |= {"p_value": effect.p_value, "adjusted_p": effect.adjusted, "correlation_before": effect.correlation}
    if not math.isnan(effect.limit):
        said["winsorised_at"] = effect.limit
    return {**said, "found": "missing" if effect.missing else effect.found(level, peeking)}
