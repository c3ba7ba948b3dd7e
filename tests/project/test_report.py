from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from palate.errors import StorageError
from palate.project.report import page, summary, write_report
from palate.serving.reasons import Reason

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def band(name: str, value: float, width: float = 0.01) -> dict[str, float]:
    return {name: value, f"{name}_low": value - width, f"{name}_high": value + width}


def full(text: str = "plain") -> dict[str, Any]:
    """A report with every section; `text` stands wherever data or models could put words."""
    sources = (f"large {text}", f"small {text}")
    return {
        "title": f"Palate on {text}",
        "created": "2026-11-22T20:00:00+00:00",
        "data": {
            "items": 9742,
            "users": 610,
            "events": 100836,
            "first": 828124615,
            "last": 1537799250,
            "split": "time",
        },
        "steps": [
            {"name": f"annotate {text}", "seconds": 90.0, "state": "made", "detail": text},
            {"name": "vectors", "seconds": 60.0, "state": "kept", "detail": ""},
        ],
        "llm": [
            {"model": text, "engine": "llama", "purpose": "annotate", "calls": 480, "calls_this_run": 30, "cached": 450}
            | {"tokens_in": 96_000, "tokens_cached": 70_000, "tokens_out": 480, "seconds": 88.0, "cost": 0.0}
        ],
        "golden": {
            "threshold_note": text,
            "rows": [
                {"attribute": f"funny {text}", "source": source, "n": 300, "positives": 40, "precision": 0.5}
                | band("auc", 0.9 - at / 4)
                | band("f1", 0.6)
                | band("kappa", 0.4)
                for at, source in enumerate(sources)
            ],
            "note": text,
        },
        "comparison": {
            "split": "global time",
            "n_queries": 4000,
            "n_users": 300,
            "metrics": f"NDCG@10 is {text}",
            "rows": [
                {"model": "markov", **band("ndcg", 0.061), **band("recall", 0.11), "fit_seconds": 0.2},
                {"model": f"sasrec {text}", **band("ndcg", 0.066), **band("recall", 0.12), "fit_seconds": 94.0}
                | {"difference_to_best_baseline": 0.005, "difference_low": 0.001, "difference_high": 0.009},
            ],
            "verdict": f"SASRec is better. {text}",
        },
        "controls": {
            "rows": [{"knowledge": f"off {text}", **band("ndcg", 0.06), **band("recall", 0.1), "tokens": 0}],
            "verdict": f"Not told apart. {text}",
        },
        "interests": {
            "levels": 2,
            "nodes": [
                {"node": 0, "parent": None, "level": 0, "title": "all", "n_items": 9, "traffic": 1.0},
                {"node": 1, "parent": 0, "level": 1, "title": text, "keywords": [text], "n_items": 9, "traffic": 1.0},
            ],
            "balance": {"heaviest over mean, level 1": 1.25},
            "transitions": {"pairs": 66, "distinct_next": 9, "top": [text], "examples": []},
            "examples": [{"a": "crime", "b": "war", "next": text}],
        },
        "examples": {
            "users": [
                {
                    "user_id": f"7 {text}",
                    "history": [f"Heat {text}"],
                    "items": [
                        {"title": f"Zodiac {text}", "source": "sequence", "reasons": [f"because you watched {text}"]},
                        {"title": "Alien", "source": "exploration", "reasons": (Reason(f"new for you: {text}"),)},
                    ],
                }
            ]
        },
        "memory_mb": {f"this process {text}": 2100.5},
        "notes": [text],
    }


class Parsed(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: list[Any] = []
        self.text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = str(dict(attrs).get("type", "code")) if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "application/json":
            self.blocks.append(json.loads(data))
        elif not self._inside:
            self.text += data


def shown(report: dict[str, Any]) -> list[str]:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(summary(report))
    console.file.close()
    return console.export_text().splitlines()


def test_the_page_carries_everything_inside(tmp_path: Path) -> None:
    write_report(tmp_path / "demo", full())
    html = (tmp_path / "demo" / "report.html").read_text()
    parsed = Parsed(html)
    assert not any("src" in attributes for _, attributes in parsed.tags)
    assert {a.get("href", "")[:1] for tag, a in parsed.tags if tag == "a"} == {"#"}
    assert "Apache ECharts" in parsed.text
    charts = [a["data-from"] for _, a in parsed.tags if "data-chart" in a]
    ids = [a.get("id") for tag, a in parsed.tags if tag == "script"]
    assert charts == ["c-ndcg", "c-recall", "c-auc", "c-controls", "c-tree", "c-steps", "c-tokens", "c-memory"]
    assert set(charts) <= set(ids)
    assert "0.066 [0.056, 0.076]" in parsed.text
    assert "+0.005 [+0.001, +0.009]" in parsed.text


def test_the_json_is_the_report(tmp_path: Path) -> None:
    write_report(tmp_path, full() | {"extra": float("nan")})
    said = json.loads((tmp_path / "report.json").read_text())
    assert said["comparison"]["rows"][0]["ndcg"] == 0.061
    assert said["extra"] is None
    assert said["examples"]["users"][0]["items"][1]["reasons"][0]["text"] == "new for you: plain"


def test_steps_that_were_kept_and_answers_of_earlier_runs_are_not_counted() -> None:
    text = Parsed(page(full())).text
    assert "Time1 min 30 s1 step, 1 more kept" in text
    assert "LLM calls30450 more from the ledger" in text


@pytest.mark.parametrize("missing", [*full(), "everything"])
def test_a_missing_section_is_said_in_words(missing: str) -> None:
    report = {} if missing == "everything" else {key: value for key, value in full().items() if key != missing}
    text = Parsed(page(report)).text
    words = {
        "comparison": "No models were compared in this run.",
        "golden": "The labels were not measured against people in this run.",
        "controls": "whether the knowledge helped is not known from this run.",
        "interests": "No interest tree was built in this run.",
        "steps": "No steps were recorded.",
        "llm": "No LLM was asked in this run.",
        "examples": "This run kept no examples.",
        "memory_mb": "Memory was not measured.",
    }
    for key in words if missing == "everything" else {missing} & set(words):
        assert words[key] in text
    assert shown(report)


@pytest.mark.parametrize(
    "section", ["comparison", "golden", "controls", "interests", "examples", "data", "llm", "steps"]
)
@pytest.mark.parametrize("value", [None, [], {}, "text", 3, {"rows": [{}]}, [{}], {"nodes": [{}], "users": [{}]}])
def test_a_section_of_another_shape_does_not_break_the_page(section: str, value: object) -> None:
    report = full() | {section: value}
    assert "</html>" in page(report)
    assert shown(report)


def test_nasty_texts_stay_text() -> None:
    parsed = Parsed(page(full(NASTY)))
    assert NASTY in parsed.text
    assert not any(tag == "img" or "onerror" in attributes for tag, attributes in parsed.tags)
    scripts = [attributes.get("type") for tag, attributes in parsed.tags if tag == "script"]
    assert scripts.count(None) == 2
    assert any(NASTY in json.dumps(block) for block in parsed.blocks)


def test_the_summary_fits_one_screen() -> None:
    report = full()
    for section, rows in (("comparison", 12), ("controls", 9)):
        report[section]["rows"] *= rows
    report["golden"]["rows"] = [row | {"source": f"s{at}"} for at, row in enumerate(report["golden"]["rows"] * 8)]
    report["comparison"]["verdict"] = report["controls"]["verdict"] = "long words " * 60
    lines = shown(report)
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    assert any("because you watched plain" in line for line in lines)


def test_texts_cannot_style_or_move_the_terminal() -> None:
    lines = shown(full("[red]\x1b[2J\x07 [/nothing]"))
    assert "\x1b" not in "".join(lines)
    assert any("[red]\\x1b[2J\\x07" in line for line in lines)


def test_a_report_that_cannot_be_written_says_where_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "report.json").mkdir()  # a folder stands in the way
    with pytest.raises(StorageError) as caught:
        write_report(tmp_path, full())
    assert "report could not be written" in str(caught.value)
    assert "report.json" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
