"""The one-screen summary of a run for the terminal: at most 40 lines at 100 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from palate.console.words import count, finite, interval, score, seconds
from palate.errors import printable
from palate.experiments.controls import OFF, RAW
from palate.project.report_view import KEPT, difference, reasons_of, rows_of, section_of, source_means, totals

WIDTH = 96


def summary(report: Mapping[str, Any]) -> RenderableType:
    """The headline figures, or words where there are none. Texts of the data cannot style or move anything."""
    parts: list[RenderableType] = [*_head(report)]
    parts += _knowledge(section_of(report, "golden"))
    parts += _comparison(section_of(report, "comparison"))
    parts += _controls(section_of(report, "controls"))
    parts += _example(rows_of(section_of(report, "examples"), "users"))
    return Group(*parts)


def _line(text: object, style: str = "", limit: int = WIDTH) -> Text:
    return Text(printable(text, limit), style=style, overflow="ellipsis", no_wrap=True)


def _head(report: Mapping[str, Any]) -> list[RenderableType]:
    data, steps, llm = section_of(report, "data"), rows_of(report, "steps"), rows_of(report, "llm")
    total = totals(steps, llm)
    ran = [step for step in steps if step.get("state") not in KEPT]
    slow = sorted(ran, key=lambda step: -(finite(step.get("seconds")) or 0))[:3]
    slowest = ", ".join(f"{step.get('name')} {seconds(step.get('seconds'))}" for step in slow)
    tree = section_of(report, "interests")
    pairs = section_of(tree, "transitions").get("pairs")
    cost = f" · {total['cost']}" if total["cost"] else ""
    cached = f" ({total['cached']})" if total["cached"] else ""
    return [
        _line(report.get("title") or "Palate's report", "bold"),
        _line(f"data       {_counts(data)}"),
        _line(f"time       {seconds(total['seconds'])} in {total['steps'] or 'no steps'}; longest: {slowest or '–'}"),
        _line(f"asked      {count(total['calls'])} calls{cached} · {count(total['tokens'])} tokens{cost}"),
        _line(f"interests  {len(rows_of(tree, 'nodes'))} nodes · {count(pairs)} pairs with a next interest"),
    ]


def _counts(data: Mapping[str, Any]) -> str:
    return " · ".join(f"{count(data.get(key))} {name}" for key, name in _COUNTED)


_COUNTED = (("items", "items"), ("users", "people"), ("events", "events"))


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left", title_style="bold", width=WIDTH)
    for at, column in enumerate(columns):
        table.add_column(
            column, justify="right" if at else "left", no_wrap=True, overflow="ellipsis", header_style="dim"
        )
    return table


def _knowledge(golden: Mapping[str, Any]) -> list[RenderableType]:
    means = source_means(rows_of(golden, "rows"))
    if not means:
        return [Text(), _line("Labels against people: not measured in this run.", "italic")]
    table = _table("Labels against people (mean over attributes)", "source", "AUC", "F1", "kappa")
    for row in means[:6]:
        table.add_row(_line(row["source"], limit=50), score(row["auc"]), score(row["f1"]), score(row["kappa"]))
    return [Text(), table]


def _comparison(comparison: Mapping[str, Any]) -> list[RenderableType]:
    rows = rows_of(comparison, "rows")
    if not rows:
        return [Text(), _line("Ranking: no models were compared in this run.", "italic")]
    split = printable(comparison.get("split") or "", 50)
    table = _table(f"Ranking{', ' + split if split else ''}", "model", "NDCG", "recall", "against best baseline")
    table.title = Text(str(table.title))
    for row in rows[:6]:
        table.add_row(_line(row.get("model"), limit=30), _figure(row, "ndcg"), _figure(row, "recall"), difference(row))
    return [Text(), table, *_verdict(comparison)]


def _controls(controls: Mapping[str, Any]) -> list[RenderableType]:
    rows = rows_of(controls, "rows")
    if not rows:
        return []
    table = _table("Controls: the same model, other knowledge", "knowledge", "NDCG", "recall", "tokens")
    first = sorted(range(len(rows)), key=lambda at: not _is_said(rows[at]))[:6]
    for row in (rows[at] for at in sorted(first)):
        cells = (_figure(row, "ndcg"), _figure(row, "recall"), count(row.get("tokens")))
        table.add_row(_line(row.get("knowledge"), limit=40), *cells)
    return [Text(), table, *_verdict(controls)]


def _is_said(row: Mapping[str, Any]) -> bool:
    """What a reader looks for first: no knowledge, the raw text, and each knowledge itself."""
    return row.get("knowledge") in (OFF, RAW) or row.get("survives") is not None


def _figure(row: Mapping[str, Any], name: str) -> str:
    return interval(row.get(name), row.get(f"{name}_low"), row.get(f"{name}_high"))


def _verdict(section: Mapping[str, Any]) -> list[RenderableType]:
    verdict = section.get("verdict")
    if not verdict:
        return []
    words = printable(verdict, 2 * WIDTH - 6)
    return [Text(words, style="green", overflow="fold")]


def _example(users: list[Mapping[str, Any]]) -> list[RenderableType]:
    if not users:
        return []
    user = users[0]
    lines: list[RenderableType] = [Text(), _line(f"For person {user.get('user_id')}", "bold")]
    for item in rows_of(user, "items")[:3]:
        why = "; ".join(reasons_of(item))
        lines.append(_line(f"  {printable(item.get('title'), 44)}  ({why})"))
    return lines
