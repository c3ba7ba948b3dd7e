"""Experiments as pages show them: what `palate experiment report` found last, its checks first."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from palate.console import charts
from palate.console.words import ABSENT, count, finite, moment

View = dict[str, Any]
REPORT, DECLARED = "report.json", "declared.json"
_OUTCOMES = {
    "not readable": "not readable",
    "running": "undecided, still running",
    "better": "better",
    "worse": "worse",
    "mixed": "better, but a guardrail got worse",
    "no effect": "no effect that would matter",
    "unclear": "undecided",
}
_DATE = 10  # characters of 2026-03-02


def experiments(folder: Path | None, now: datetime | None = None) -> View:
    """A row for each experiment that was started or analysed in a project, the latest start first."""
    found = []
    for path in sorted(folder.iterdir()) if folder is not None and folder.is_dir() else []:
        data = _read(path / REPORT) or _read(path / DECLARED)
        if data is not None and isinstance(data.get("name"), str):
            found.append(row(data, now or datetime.now(UTC)))
    return {"experiments": sorted(found, key=lambda each: str(each["start"]), reverse=True)}


def experiment(folder: Path | None, name: str, now: datetime | None = None) -> View | None:
    """One with its report; None for a name that is not there."""
    for each in experiments(folder, now)["experiments"]:
        if each["name"] == name and folder is not None:
            paths = [path for path in folder.iterdir() if (_read(path / REPORT) or {}).get("name") == name]
            return {"row": each, "report": None if not paths else view(_read(paths[0] / REPORT) or {}, now)}
    return None


def row(data: Mapping[str, Any], now: datetime) -> View:
    """Name, status now, and what became of each variant; an experiment without an analysis has no outcomes."""
    readable, outcomes = data.get("readable"), _map(data.get("outcomes"))
    return {
        "name": data.get("name"),
        "hypothesis": data.get("hypothesis") or "",
        "start": data.get("start"),
        "end": data.get("end"),
        "status": _status(data, now),
        "analysed_at": data.get("analysed_at"),
        "readable": readable,
        "outcomes": [
            (name, "not readable" if not readable else _OUTCOMES.get(said, ABSENT)) for name, said in outcomes.items()
        ],
        "verdict": [str(each) for each in data.get("verdict") or ()][:2],
    }


def view(data: Mapping[str, Any], now: datetime | None = None) -> View:
    """A report with its charts and cells in words. What is not readable has no effects, whatever the file says."""
    readable = bool(data.get("readable"))
    effects = [_cells(each) for each in _maps(data.get("effects"))] if readable else []
    slices = [_cells(each) for each in _maps(data.get("slices"))] if readable else []
    many = len({each.get("variant") for each in effects}) > 1
    series = "variant" if many else None
    drawn = [{**each, "effect": _percent(each.get("relative")), **_ends(each)} for each in effects + slices]
    first, rest = drawn[: len(effects)], drawn[len(effects) :]
    ended = _status(data, now or datetime.now(UTC)) == "ended"
    days = _maps(data.get("days")) if readable else []
    return {
        **row(data, now or datetime.now(UTC)),
        "verdict": [str(each) for each in data.get("verdict") or ()],
        "primary": data.get("primary"),
        "primary_words": data.get("primary_words"),
        "control": data.get("control"),
        "level": data.get("level"),
        "correction": {"holm": "Holm", "bh": "Benjamini–Hochberg"}.get(str(data.get("correction")), ABSENT),
        "minimum_effect": data.get("minimum_effect"),
        "checks": [_check(each) for each in _maps(data.get("checks"))],
        "people": list(_map(data.get("people")).items()),
        "rows": [(name, count(n)) for name, n in _map(data.get("rows")).items()],
        "effects": effects,
        "slices": slices,
        "peeking": not ended,
        "figures": {
            "effects": charts.intervals(first, "effect", "metric", series, axis="change, %", reference=0),
            "slices": charts.intervals(rest, "effect", "slice", series, axis="change, %", reference=0),
            "path": charts.plane(
                _path(_maps(data.get("path")) if readable else []), "day", "difference", "line", joined=True
            ),
            "days": charts.intervals(_named(days, "day"), "estimate", "day", series, axis="difference", reference=0),
            "weekdays": charts.intervals(
                _named(_maps(data.get("weekdays")) if readable else [], "weekday"),
                "estimate",
                "weekday",
                series,
                axis="difference",
                reference=0,
            ),
        },
    }


def _cells(each: Mapping[str, Any]) -> View:
    """An effect's figures as texts."""
    found = each.get("found")
    said = {"better": "better", "worse": "worse", "missing": "no figure"}.get(str(found), "not told apart")
    return {
        **each,
        "said": said,
        "change": _span(each, "relative", _signed_percent),
        "difference": _span(each, "absolute", _signed),
        "always": _span(each, "always", _signed, point=False),
        "values": f"{_number(each.get('control'))} → {_number(each.get('treated'))}",
        "p_text": _p(each.get("adjusted_p")),
        "shorter": _shorter(each.get("correlation_before")),
    }


def _check(each: Mapping[str, Any]) -> View:
    state = str(each.get("state"))
    words = {"good": "fine", "warning": "look at it", "stop": "not readable"}
    return {"name": each.get("name"), "state": state, "said": words.get(state, state), "words": each.get("words")}


def _path(rows: Sequence[Mapping[str, Any]]) -> list[View]:
    """The difference as it was known at each date, with the ends of both intervals as lines."""
    lines = {"estimate": "difference", "low": "interval at the end", "high": "interval at the end (upper)"}
    lines |= {"always_low": "for people who peek", "always_high": "for people who peek (upper)"}
    several = len({row.get("variant") for row in rows}) > 1
    keys = [finite(row.get("key")) or 0 for row in rows]
    return [
        {
            "day": key - min(keys) + 1,
            "difference": row.get(name),
            "line": f"{row.get('variant')}: {said}" if several else said,
            "label": str(row.get("date"))[:_DATE],
        }
        for row, key in zip(rows, keys, strict=True)
        for name, said in lines.items()
    ]


def _named(rows: Sequence[Mapping[str, Any]], key: str) -> list[View]:
    word = "day " if key == "day" else ""
    return [
        {**row, key: f"{word}{row.get(key)}", "estimate_low": row.get("low"), "estimate_high": row.get("high")}
        for row in rows
    ]


def _status(data: Mapping[str, Any], now: datetime) -> str:
    try:
        start, end = (datetime.fromisoformat(str(data[key])) for key in ("start", "end"))
        return "planned" if now < start else "running" if now < end else "ended"
    except (KeyError, ValueError, TypeError):
        return str(data.get("status") or ABSENT)


def _ends(each: Mapping[str, Any]) -> View:
    return {f"effect_{end}": _percent(each.get(f"relative_{end}")) for end in ("low", "high")}


def _percent(value: object) -> float | None:
    number = finite(value)
    return None if number is None else 100 * number


def _span(each: Mapping[str, Any], name: str, said: Any, point: bool = True) -> str:
    low, high = finite(each.get(f"{name}_low")), finite(each.get(f"{name}_high"))
    interval = ABSENT if low is None or high is None else f"[{said(low)}, {said(high)}]"
    if not point:
        return interval
    value = finite(each.get(name))
    return ABSENT if value is None else said(value) if interval == ABSENT else f"{said(value)} {interval}"


def _signed_percent(value: float) -> str:
    return f"{value:+.1%}"


def _signed(value: float) -> str:
    return f"{value:+.4g}"


def _number(value: object) -> str:
    number = finite(value)
    return ABSENT if number is None else f"{number:.4g}"


def _p(value: object) -> str:
    number = finite(value)
    return ABSENT if number is None else "< 0.0001" if number < 1e-4 else f"{number:.4f}"


def _shorter(value: object) -> str:
    """By how much what people did before made the interval shorter."""
    number = finite(value)
    return ABSENT if not number else f"{1 - math.sqrt(max(0.0, 1 - number**2)):.0%}"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _maps(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


__all__ = ["experiment", "experiments", "moment", "row", "view"]
