"""A recipe's report as a page and as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from palate.console import charts
from palate.console.words import ABSENT, count, finite, interval, score
from palate.experiments.study import Chart, Report, ReportTable
from palate.project.report import rendered, write_pages

_ENDS = ("_low", "_high")


def write_study(folder: Path, report: Report, data: str, command: str, facts: Mapping[str, Any]) -> None:
    """`report.html` and `report.json` into `folder`; `facts` (tokens, seconds, ...) go into both.

    Raises:
        StorageError: A file cannot be written.
    """
    notes = [*report.notes, *(f"{name.replace('_', ' ')}: {_cell(value)}" for name, value in facts.items())]
    context = {
        "report": report,
        "data": data,
        "command": command,
        "notes": notes,
        "drawings": [_drawing(number, chart) for number, chart in enumerate(report.charts)],
        "tables": [table_view(table) for table in report.tables],
    }
    whole = {**asdict(report), "data": data, "command": command, "facts": dict(facts)}
    write_pages(folder, whole, rendered("study.html", context))


def table_view(table: ReportTable) -> dict[str, Any]:
    """Columns in order of appearance, ends of intervals within the cell of their figure, everything as text."""
    names = list(dict.fromkeys(name for row in table.rows for name in row))
    ends = {name for name in names for end in _ENDS if name.endswith(end) and name.removesuffix(end) in names}
    shown = [name for name in names if name not in ends]
    rows = [[_figure(row, name) for name in shown] for row in table.rows]
    numeric = [k for k, name in enumerate(shown) if all(_is_number(row.get(name)) for row in table.rows)]
    columns = [name.replace("_", " ") for name in shown]
    return {"title": table.title, "note": table.note, "columns": columns, "rows": rows, "numeric": numeric}


def _figure(row: Mapping[str, Any], name: str) -> str:
    low, high = (row.get(f"{name}{end}") for end in _ENDS)
    return _cell(row.get(name)) if low is None else interval(row.get(name), low, high)


def _cell(value: Any) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    if isinstance(value, float):
        return score(value) if abs(value) < 1000 else count(value)
    return ", ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _drawing(number: int, chart: Chart) -> dict[str, Any]:
    if chart.kind == "intervals":
        data = charts.intervals(chart.rows, chart.y, chart.x, chart.series, axis=chart.y.replace("_", " "))
    else:
        data = charts.plane(chart.rows, chart.x, chart.y, chart.series, joined=chart.kind == "lines")
    kind = "intervals" if chart.kind == "intervals" else "plane"
    anything = any(finite(row.get(chart.y)) is not None for row in chart.rows)
    note = chart.note if anything else "There is nothing to draw."
    return {"id": f"c-{number}", "kind": kind, "title": chart.title, "data": data, "note": note}
