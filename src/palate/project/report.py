"""The report of a run: `report.json`, a self-contained `report.html`, and the summary for one screen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from palate.console.words import environment, plain
from palate.data.whole_file import replace_file
from palate.project.report_summary import summary
from palate.project.report_view import view

__all__ = ["page", "rendered", "summary", "write_pages", "write_report"]

_HINT = "Free some space or choose another folder, then run again: nothing is computed twice."
ECHARTS = "echarts-6.1.0.min.js"


def write_report(folder: Path | str, report: Mapping[str, Any]) -> None:
    """Write `report.json` and `report.html` into `folder`, each whole or not at all.

    Every key of `report` may be missing: the page then says so in words. Texts are untrusted and escaped.

    Raises:
        StorageError: Where a file cannot be written.
    """
    write_pages(Path(folder), report, page(report))


def page(report: Mapping[str, Any]) -> str:
    """The report as one HTML page with its style, charts and data inside."""
    return rendered("report.html", view(report))


def rendered(template: str, context: Mapping[str, Any]) -> str:
    """A self-contained page from one of our templates."""
    return environment("palate.project").get_template(template).render(**context, **_static())


def write_pages(target: Path, data: Any, html: str) -> None:
    """`report.json` and `report.html`.

    Raises:
        StorageError: Where a file cannot be written.
    """
    text = json.dumps(plain(data), ensure_ascii=False, indent=1, allow_nan=False)
    replace_file(target / "report.json", text + "\n", "The report", _HINT)
    replace_file(target / "report.html", html.encode(errors="replace"), "The report", _HINT)


def _static() -> dict[str, Any]:
    folder = files("palate.console") / "static"
    return {
        "css": Markup((folder / "palate.css").read_text(encoding="utf-8")),  # ours
        "charts": Markup((folder / "charts.js").read_text(encoding="utf-8")),
        "echarts": Markup((folder / "vendor" / ECHARTS).read_text(encoding="utf-8")),
        "echarts_version": ECHARTS.removeprefix("echarts-").removesuffix(".min.js"),
    }
