from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))
sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))
from planted_log import END, START, planted_tables
from tiny_snapshot import tiny_snapshot

HALVES = {"control": {"share": 0.5}, "more": {"share": 0.5, "settings": {"sources": {"exploration": 0.4}}}}


def declare(folder: Path, **said: object) -> None:
    trial = {"variants": HALVES, "start": START, "end": END, **said}
    data = {"items": "items.parquet", "events": "events.parquet"}
    (folder / "palate.yaml").write_text(yaml.safe_dump({"data": data, "experiments": {"trial": trial}}))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose servers landed two weeks of an experiment; its data are elsewhere."""
    tiny_snapshot(tmp_path / ".palate" / "snapshots")
    declare(tmp_path, metrics=["novel_impression_ratio", "intra_list_distance"])
    for name, table in zip(("impressions", "events"), planted_tables({"control": 0.2, "more": 0.3}, 500), strict=True):
        folder = tmp_path / ".palate" / "landing" / name
        folder.mkdir(parents=True)
        table.write_parquet(folder / "0_1.parquet")
    return tmp_path


def test_report_writes_pages_and_says_what_it_came_to(palate, project):
    code, out, err = palate("experiment", "report", "trial", "--project", project)
    assert code == 0, err
    assert "more raises click_rate" in out
    folder = project / ".palate" / "experiments" / "trial"
    data, html = json.loads((folder / "report.json").read_text()), (folder / "report.html").read_text()
    assert data["outcomes"] == {"more": "better"} and data["readable"]
    by_name = {effect["metric"]: effect for effect in data["effects"]}
    assert not any(by_name[name]["missing"] for name in ("novel_impression_ratio", "intra_list_distance"))
    assert "What was checked" in html and "sample ratio" in html and "c-effects" in html
    code, out, _ = palate("experiment", "report", "trial", "--project", project, "--json")
    assert code == 0 and json.loads(out)["outcomes"] == {"more": "better"}


def test_a_report_that_cannot_be_read_ends_with_1_and_shows_no_effect(palate, project):
    declare(project, variants={"control": {"share": 0.8}, "more": {"share": 0.2}})
    code, out, _ = palate("experiment", "report", "trial", "--project", project)
    assert code == 1 and "cannot be read" in out and "raises" not in out
    html = (project / ".palate" / "experiments" / "trial" / "report.html").read_text()
    assert "not readable" in html and "c-effects" not in html


def test_plan_says_how_many_people(palate, project):
    code, out, _ = palate("experiment", "plan", "trial", "--effect", "0.1", "--project", project)
    assert code == 0 and "people" in out and "weeks" in out
    answer = json.loads(palate("experiment", "plan", "trial", "--effect", "0.1", "-p", project, "--json")[1])
    assert answer["people"] > 100 and answer["power"] == 0.8
    for option in (("--power", "1"), ("--effect", "0")):
        code, _, err = palate("experiment", "plan", "trial", *option, "--project", project)
        assert code == 2 and option[0] in err


def test_check_finds_what_changed_while_it_runs(palate, project):
    now = datetime.now(UTC)
    running = {"start": now - timedelta(days=1), "end": now + timedelta(days=1)}
    declare(project, **running)
    code, out, _ = palate("experiment", "check", "--project", project, "--json")
    assert code == 0 and json.loads(out)["experiments"][0]["status"] == "running"
    declare(project, **running, guardrails=["return_rate"])
    code, out, _ = palate("experiment", "check", "--project", project)
    assert code == 0 and "guardrails was" in out
    declare(project, **running, salt="another")
    code, _, err = palate("experiment", "check", "--project", project)
    assert code == 2 and "changed while it runs" in err and "another" in err


def test_bad_declarations_and_missing_logs_end_with_2(palate, project):
    code, _, err = palate("experiment", "report", "novelty", "--project", project)
    assert code == 2 and "trial" in err
    code, _, err = palate("experiment", "report", "trial", "--landing", project / "nowhere", "--project", project)
    assert code == 2 and "no impressions" in err
    declare(project, primary="clicks")
    code, _, err = palate("experiment", "check", "--project", project)
    assert code == 2 and "click_rate" in err


def log_slates(landing: Path, n: int = 400) -> pl.DataFrame:
    """Slates of one place: a coin lays a good item (taken by every second) or a bad one (by nobody). Returns them."""
    good = np.random.default_rng(0).random(n) < 0.5
    shown = pl.DataFrame({"request_id": [f"r{k}" for k in range(n)], "item_id": np.where(good, "good", "bad")})
    shown = shown.with_columns(
        user_id=pl.col("request_id"),
        timestamp=pl.lit(datetime(2026, 1, 1, tzinfo=UTC)),
        position=pl.lit(0, pl.Int32),
        variant=pl.lit("control"),
        propensity=pl.lit(0.5, pl.Float32),
    )
    done = shown.filter(good).gather_every(2).with_columns(event_type=pl.lit("click"))
    for name, table in (("impressions", shown), ("events", done.drop("position", "propensity", "variant"))):
        (landing / name).mkdir(parents=True)
        table.write_parquet(landing / name / "0_1.parquet")
    return shown


def test_replay_says_what_another_policy_would_have_earned(palate, tmp_path):
    shown = log_slates(tmp_path / "landing")
    chance = pl.when(pl.col("item_id") == "good").then(0.9).otherwise(0.1)
    shown.select("request_id", "position", probability=chance).write_csv(tmp_path / "chances.csv")
    asked = ("experiment", "replay", tmp_path / "chances.csv", "--landing", tmp_path / "landing")
    code, out, err = palate(*asked, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["as logged"]["value"]["mean"] == pytest.approx(0.25, abs=0.05)
    assert found["SNIPS"]["value"]["low"] < 0.45 < found["SNIPS"]["value"]["high"]
    code, out, _ = palate(*asked)
    assert code == 0 and "IPS" in out and "effective" in out


def test_replay_refuses_a_policy_that_the_log_never_played(palate, tmp_path):
    shown = log_slates(tmp_path / "landing")
    path = tmp_path / "chances.csv"
    asked = ("experiment", "replay", path, "--landing", tmp_path / "landing")
    shown.select("request_id", "position", probability=pl.lit(0.01)).write_csv(path)
    code, _, err = palate(*asked)
    assert code == 2 and "never could" in err
    path.write_text(path.read_text().replace("0.01", "much", 1))
    code, _, err = palate(*asked)
    assert code == 2 and "row 1" in err and "probability" in err and "much" in err
    code, _, err = palate(*asked, "--clip", "0")
    assert code == 2 and "--clip" in err
