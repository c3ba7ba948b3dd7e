from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from test_pages import assert_harmless, page
from tiny_snapshot import tiny_snapshot

from palate.console.experiments import view
from palate.console.pages import add_console
from palate.serving.api import create_app

NOW = datetime.now(UTC)
HOSTILE = "<script>alert(1)</script>"
EFFECT = {
    "metric": "click_rate",
    "words": "clicks per impression",
    "role": "primary",
    "variant": HOSTILE,
    "treated": 0.3,
    "control": 0.2,
    "relative": 0.5,
    "relative_low": 0.4,
    "relative_high": 0.6,
    "absolute": 0.1,
    "absolute_low": 0.08,
    "absolute_high": 0.12,
    "always_low": 0.05,
    "always_high": 0.15,
    "adjusted_p": 1e-9,
    "correlation_before": 0.6,
    "missing": "",
    "found": "better",
}


def report(name: str, **said: object) -> dict[str, object]:
    ended = {"start": (NOW - timedelta(days=9)).isoformat(), "end": (NOW - timedelta(days=2)).isoformat()}
    return {
        "name": name,
        **ended,
        "analysed_at": NOW.isoformat(),
        "readable": True,
        "outcomes": {HOSTILE: "better"},
        "verdict": [f"{HOSTILE} raises click_rate"],
        "control": "control",
        "level": 0.95,
        "correction": "holm",
        "people": {"control": 10, HOSTILE: 11},
        "rows": {"impressions": 100},
        "checks": [{"name": "sample ratio", "state": "good", "words": "Each variant got its share."}],
        "effects": [EFFECT],
        "days": [{"day": 0, "variant": HOSTILE, "estimate": 0.1, "low": 0.0, "high": 0.2}],
        "path": [{"key": 20, "date": "2026-01-01", "variant": HOSTILE, "estimate": 0.1, "low": 0.0, "high": 0.2}],
        **said,
    }


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    folder = tmp_path_factory.mktemp("project")
    broken = {
        "checks": [{"name": "sample ratio", "state": "stop", "words": "Variants lost people."}],
        "readable": False,
    }
    for name, data in (
        ("novelty", report("novelty", hypothesis=HOSTILE)),
        ("broken", report("broken", **broken)),
        ("strange", {"name": "strange", "effects": 3, "checks": "?", "start": "soon"}),
    ):
        (folder / "experiments" / name).mkdir(parents=True)
        (folder / "experiments" / name / "report.json").write_text(json.dumps(data))
    declared = {"name": "fresh", "start": NOW.isoformat(), "end": (NOW + timedelta(days=1)).isoformat()}
    (folder / "experiments" / "fresh").mkdir()
    (folder / "experiments" / "fresh" / "declared.json").write_text(json.dumps(declared))
    (folder / "experiments" / "torn").mkdir()
    (folder / "experiments" / "torn" / "report.json").write_text("{")
    app: FastAPI = create_app(tiny_snapshot(folder / "snapshots"))
    add_console(app, app.state.live, folder / "experiments")
    return TestClient(app)


def test_experiments_are_listed_with_status_and_outcome(client):
    parsed = page(client, "/experiments")
    assert_harmless(parsed)
    for words in ("novelty", "ended", "better", "broken", "not readable", "fresh", "running", "not analysed yet"):
        assert words in parsed.text
    assert "torn" not in parsed.text and HOSTILE in parsed.text


def test_one_experiment_shows_checks_effects_and_intervals(client):
    parsed = page(client, "/experiment?id=novelty")
    assert_harmless(parsed)
    for words in ("What was checked", "Each variant got its share.", "+50.0% [+40.0%, +60.0%]", "< 0.0001", "20%"):
        assert words in parsed.text
    effects = next(block for block in parsed.blocks if block.get("axis") == "change, %")
    assert effects["series"][0]["points"] == [pytest.approx([50, 40, 60])]


def test_what_is_not_readable_is_never_a_win(client):
    """Whatever effects and outcomes its file holds."""
    parsed = page(client, "/experiment?id=broken")
    assert "not readable" in parsed.text and "A check stopped the report" in parsed.text
    assert "+50.0%" not in parsed.text and "better" not in parsed.text and not parsed.blocks


def test_files_that_are_no_reports_break_no_page(client):
    assert "strange" in page(client, "/experiment?id=strange").text
    assert "not analysed yet" in page(client, "/experiment?id=fresh").text
    page(client, "/experiment?id=nobody", 404)


def test_without_a_project_the_page_says_how_to_begin(tiny_app):
    assert "palate experiment plan" in page(TestClient(tiny_app), "/experiments").text


def test_while_it_runs_the_page_says_what_may_be_read():
    running = {"end": (NOW + timedelta(days=1)).isoformat()}
    assert view(report("a", **running), NOW)["peeking"] and not view(report("a"), NOW)["peeking"]
    assert Path(sys.modules["tiny_snapshot"].__file__).exists()
