"""What the charts of the console and the report are drawn from: plain dicts for `static/charts.js`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from palate.console.words import finite

Rows = Sequence[Mapping[str, Any]]


def intervals(rows: Rows, metric: str, category: str, series: str | None = None, **extra: Any) -> dict[str, Any]:
    """Dots with error bars of `row[metric]`, `row[metric_low]`, `row[metric_high]`.

    One line for each `row[category]`, one colour for each `row[series]`, both in order of appearance. `extra`
    goes to the chart (`axis`, `reference`, `reference_label`, `min`, `max`).
    """
    kept = [row for row in rows if finite(row.get(metric)) is not None]
    categories = _distinct(kept, category)
    names = _distinct(kept, series) if series else [metric]
    points: dict[tuple[str, str], list[float | None]] = {}
    for row in kept:
        cell = (_text(row, series) if series else metric, _text(row, category))
        points[cell] = [finite(row.get(f"{metric}{end}")) for end in ("", "_low", "_high")]
    return {
        "axis": metric,
        "categories": categories,
        "series": [{"name": name, "points": [points.get((name, at)) for at in categories]} for name in names],
        **extra,
    }


def plane(rows: Rows, x: str, y: str, series: str | None = None, joined: bool = False) -> dict[str, Any]:
    """`row[y]` against `row[x]`, one line (`joined`) or cloud for each `row[series]`; `row["label"]` names a point."""
    kept = [row for row in rows if finite(row.get(x)) is not None and finite(row.get(y)) is not None]
    names = _distinct(kept, series) if series else [y]
    points: dict[str, list[list[Any]]] = {name: [] for name in names}
    for row in kept:
        figures = [finite(row.get(key)) for key in (x, y, f"{y}_low", f"{y}_high")]
        points[_text(row, series) if series else y].append([*figures, _text(row, "label") or None])
    if joined:
        points = {name: sorted(of, key=lambda point: float(point[0])) for name, of in points.items()}
    listed = [{"name": name, "points": of} for name, of in points.items()]
    return {"x": x.replace("_", " "), "y": y.replace("_", " "), "joined": joined, "series": listed}


def timeline(steps: Rows) -> dict[str, Any]:
    """Steps laid end to end, in seconds since the first began."""
    laid, now = [], 0.0
    for step in steps:
        took = finite(step.get("seconds")) or 0.0
        laid.append(
            {
                "name": _text(step, "name"),
                "start": now,
                "seconds": took,
                "state": _text(step, "state"),
                "detail": _text(step, "detail"),
            }
        )
        now += took
    return {"steps": laid}


def tokens(llm: Rows) -> dict[str, Any]:
    """Tokens read, read from a cache and written, one bar for each purpose and model."""
    kinds = (("read", "tokens_in"), ("read from cache", "tokens_cached"), ("written", "tokens_out"))
    totals: dict[str, list[float]] = {}
    for row in llm:
        name = " · ".join(part for part in (_text(row, "purpose"), _text(row, "model")) if part) or "unnamed"
        sums = totals.setdefault(name, [0.0] * len(kinds))
        for at, (_, key) in enumerate(kinds):
            sums[at] += finite(row.get(key)) or 0.0
        # tokens_in counts those that a cache saved the reading of
        sums[0] -= min(sums[0], finite(row.get("tokens_cached")) or 0.0)
    return {
        "axis": "tokens",
        "stacked": True,
        "categories": list(totals),
        "series": [
            {"name": name, "values": [sums[at] for sums in totals.values()]} for at, (name, _) in enumerate(kinds)
        ],
    }


def tree(nodes: Iterable[Mapping[str, Any]], unit: str = "traffic") -> dict[str, Any]:
    """The interest tree for the map: children of the root, sized by traffic (items where there is no traffic)."""
    rows = [dict(node) for node in nodes]
    by_traffic = any((finite(row.get("traffic")) or 0) > 0 for row in rows)
    size = "traffic" if by_traffic else "n_items"
    cells = {str(row.get("node")): _cell(row, size) for row in rows}
    roots = []
    for row in rows:
        cell = cells[str(row.get("node"))]
        parent = cells.get(str(row["parent"])) if row.get("parent") is not None else None
        if parent is None or parent is cell:
            roots.append(cell)
        else:
            parent.setdefault("children", []).append(cell)
    if len(roots) == 1 and roots[0].get("children"):
        roots = roots[0]["children"]
    return {"unit": unit if by_traffic else "items", "name": "All", "roots": roots}


def _cell(row: Mapping[str, Any], size: str) -> dict[str, Any]:
    # A node nobody visited is still there: it gets a sliver instead of nothing.
    title = _text(row, "title") or f"Interest {row.get('node')}"
    told = {part.strip() for part in title.split(",")}
    return {
        "id": str(row.get("node")),
        "name": title,
        "value": max(finite(row.get(size)) or 0.0, 1e-9),
        "n_items": finite(row.get("n_items")),
        "keywords": [word for word in map(str, row.get("keywords") or ()) if word not in told][:6],
    }


def labels(rows: Rows) -> dict[str, Any]:
    """Probabilities of an item's attributes, one bar for each teacher. Rows: `name`, `teacher`, `value`."""
    teachers, attributes = _distinct(rows, "teacher"), _distinct(rows, "name")
    values = {(_text(row, "teacher"), _text(row, "name")): finite(row.get("value")) for row in rows}
    return {
        "axis": "probability that the word fits",
        "max": 1,
        "categories": attributes,
        "series": [{"name": one, "values": [values.get((one, at)) for at in attributes]} for one in teachers],
    }


def _distinct(rows: Rows, key: str) -> list[str]:
    return list(dict.fromkeys(_text(row, key) for row in rows))


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    return "" if value is None else str(value)
