"""What the report's page and summary show of a run's dict, missing keys turned into words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from palate.console import charts
from palate.console.words import count, finite, interval, moment, money, some

COMMAND = "palate demo"
KEPT = ("kept", "cached", "skipped", "unchanged")  # states of steps that did not run again
METRICS = ("auc", "precision", "recall", "f1", "kappa")


def view(report: Mapping[str, Any]) -> dict[str, Any]:
    """The context of `templates/report.html`."""
    comparison, controls = section_of(report, "comparison"), section_of(report, "controls")
    golden, interests = section_of(report, "golden"), section_of(report, "interests")
    data, steps, llm = section_of(report, "data"), rows_of(report, "steps"), rows_of(report, "llm")
    memory = section_of(report, "memory_mb")
    return {
        "command": COMMAND,
        "report": {
            **report,
            "title": report.get("title") or "Palate's report",
            "data": data,
            "steps": steps,
            "llm": llm,
        },
        "span": _span(data),
        "totals": totals(steps, llm),
        "comparison": _comparison(comparison),
        "controls": {**controls, "rows": [_metrics(row) for row in rows_of(controls, "rows")]},
        "golden": _golden(golden),
        "interests": _interests(interests),
        "examples": [_example(user) for user in rows_of(section_of(report, "examples"), "users")],
        "figures": {
            "ndcg": charts.intervals(rows_of(comparison, "rows"), "ndcg", "model", axis="NDCG"),
            "recall": charts.intervals(rows_of(comparison, "rows"), "recall", "model", axis="recall"),
            "controls": charts.intervals(rows_of(controls, "rows"), "ndcg", "knowledge", axis="NDCG"),
            "auc": _auc_chart(rows_of(golden, "rows")),
            "tree": charts.tree(rows_of(interests, "nodes")),
            "steps": charts.timeline(steps),
            "tokens": charts.tokens(llm),
            "memory": _memory_chart(memory),
        },
    }


def _auc_chart(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    coin = {"reference": 0.5, "reference_label": "a coin"}
    return charts.intervals(rows, "auc", "attribute", "source", axis="AUC", max=1, **coin)


def _memory_chart(memory: Mapping[str, Any]) -> dict[str, Any]:
    series = [{"name": "peak", "values": [finite(value) for value in memory.values()]}]
    return {"axis": "MB", "categories": [str(name) for name in memory], "series": series}


def _span(data: Mapping[str, Any]) -> str:
    if data.get("first") is None or data.get("last") is None:
        return ""
    return f"{moment(data['first'])[:10]} to {moment(data['last'])[:10]}"


def _sum(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    found = [number for number in (finite(row.get(key)) for row in rows) if number is not None]
    return sum(found) if found else None


def totals(steps: list[Mapping[str, Any]], llm: list[Mapping[str, Any]]) -> dict[str, Any]:
    tokens = [_sum(llm, "tokens_in"), _sum(llm, "tokens_out")]
    cached, cost = _sum(llm, "cached"), _sum(llm, "cost")
    ran = [step for step in steps if step.get("state") not in KEPT]
    kept = len(steps) - len(ran)
    return {
        "seconds": _sum(ran, "seconds") if ran or not steps else 0.0,
        "steps": some(len(ran), "step") + (f", {kept} more kept" if kept else "") if steps else "",
        # a row's `calls` are all that the ledger holds; `calls_this_run` are those paid for now
        "calls": _sum(llm, "calls_this_run" if _sum(llm, "calls_this_run") is not None else "calls"),
        "cached": f"{count(cached)} more from the ledger" if cached else "",
        "tokens": sum(one or 0 for one in tokens) if any(one is not None for one in tokens) else None,
        "cost": "" if cost is None else f"cost: {money(cost)}",
    }


def _metrics(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **row,
        **{
            f"{name}_text": interval(row.get(name), row.get(f"{name}_low"), row.get(f"{name}_high"))
            for name in ("ndcg", "recall")
        },
    }


def _comparison(comparison: Mapping[str, Any]) -> dict[str, Any]:
    rows = [_metrics(row) for row in rows_of(comparison, "rows")]
    best = max((finite(row.get("ndcg")) or 0.0 for row in rows), default=0.0)
    for row in rows:
        row["best"] = finite(row.get("ndcg")) == best
        row["difference_text"] = difference(row)
    said = [str(comparison["split"]) if comparison.get("split") else ""]
    said += [f"{count(comparison[key])} {name}" for key, name in _ASKED if comparison.get(key) is not None]
    return {
        **comparison,
        "rows": rows,
        "protocol": ", ".join(part for part in said if part),
        "definitions": _definitions(comparison),
    }


_ASKED = (("n_queries", "queries"), ("n_users", "people"))


def _definitions(comparison: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found = comparison.get("metric_definitions") or comparison.get("definitions") or comparison.get("metrics") or {}
    if isinstance(found, Mapping):
        return [(str(name), meaning) for name, meaning in found.items()]
    return [("metrics", found)]


def difference(row: Mapping[str, Any]) -> str:
    value = finite(row.get("difference_to_best_baseline"))
    if value is None:
        return "–"
    low, high = finite(row.get("difference_low")), finite(row.get("difference_high"))
    return f"{value:+.3f}" if low is None or high is None else f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def _golden(golden: Mapping[str, Any]) -> dict[str, Any]:
    rows = rows_of(golden, "rows")
    cells = [
        {**row, "cells": [interval(row.get(m), row.get(f"{m}_low"), row.get(f"{m}_high"), 2) for m in METRICS]}
        for row in rows
    ]
    return {**golden, "rows": cells, "metrics": METRICS, "means": source_means(rows)}


def source_means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The plain mean over attributes of AUC, F1 and kappa for each source of labels, in order of appearance."""
    by_source: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_source.setdefault(str(row.get("source", "")), []).append(row)
    return [
        {"source": source, "n": len(found)} | {metric: _mean(found, metric) for metric in ("auc", "f1", "kappa")}
        for source, found in by_source.items()
    ]


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    found = [number for number in (finite(row.get(key)) for row in rows) if number is not None]
    return sum(found) / len(found) if found else None


def _interests(interests: Mapping[str, Any]) -> dict[str, Any]:
    levels = interests.get("levels")
    balance = interests.get("balance")
    transitions = section_of(interests, "transitions")
    depth = levels if isinstance(levels, int) else len(levels) if isinstance(levels, list | tuple | dict) else None
    said = [f"{depth} levels"] if depth else []
    said += [f"{len(rows_of(interests, 'nodes'))} nodes", "areas by traffic"]
    said += [_said(balance, "balance")] if balance is not None else []
    asked = {"pairs": "pairs of interests asked about", "distinct_next": "different answers"}
    return {
        **interests,
        "said": ", ".join(said),
        "transitions": transitions,
        "transitions_said": ", ".join(
            f"{count(transitions[key])} {name}" for key, name in asked.items() if transitions.get(key) is not None
        ),
        "top": [_said(one) for one in transitions.get("top") or ()],
        "examples": [_said(one) for one in transitions.get("examples") or ()],
    }


def _said(value: Any, name: str = "") -> str:
    """A figure, a pair, a list or a map in plain words."""
    lead = f"{name} " if name else ""
    if isinstance(value, Mapping):
        if "next" in value and ("a" in value or "first" in value):
            return f"{value.get('a', value.get('first'))} + {value.get('b', value.get('second'))} → {value['next']}"
        return lead + ", ".join(f"{str(key).replace('_', ' ')} {_said(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        if len(value) == 3 and all(isinstance(one, str) for one in value):
            return f"{value[0]} + {value[1]} → {value[2]}"
        return lead + " · ".join(_said(one) for one in value)
    number = finite(value) if isinstance(value, float) else None
    return lead + (str(value) if number is None else f"{number:.3g}")


def _example(user: Mapping[str, Any]) -> dict[str, Any]:
    return {**user, "items": [{**item, "reasons": reasons_of(item)} for item in rows_of(user, "items")]}


def reasons_of(item: Mapping[str, Any]) -> list[str]:
    """Reasons as texts, whether they came as texts or as `serving.reasons.Reason`."""
    reasons = item.get("reasons") or ()
    found = [reasons] if isinstance(reasons, str) else reasons
    return [str(getattr(reason, "text", reason)) for reason in found]


def section_of(report: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = report.get(key)
    if isinstance(value, list) and key == "examples":
        return {"users": value}
    return dict(value) if isinstance(value, Mapping) else {}


def rows_of(section: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = section.get(key)
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list | tuple) else []
