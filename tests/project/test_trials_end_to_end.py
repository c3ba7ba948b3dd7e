"""An experiment as it is: a server with two variants, people who click, events, landing, analysis."""

from __future__ import annotations

import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest
import uvicorn
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))
from tiny_snapshot import tiny_snapshot

from palate.cli.server import Served, application
from palate.experiments.analyse import analyse
from palate.project.project import Project
from palate.project.trials import Trials
from palate.serving.load import load_snapshot
from palate.serving.opened import Snapshot

PEOPLE, VISITS, EACH = 120, 2, 5
RATES = {"exploration": 0.6}  # people like what is new to them; all else they click
ELSE = 0.15
START = datetime.now(UTC) - timedelta(hours=1)
END = START + timedelta(days=7)
DECLARED = {
    "bold": {
        "variants": {"control": {"share": 0.5}, "explore": {"share": 0.5, "settings": {"sources": {"exploration": 1}}}},
        "metrics": ["novel_impression_ratio", "coverage"],
        "overrides": {"u0": "explore"},
    },
    "nothing": {"variants": {"control": {"share": 0.5}, "same": {"share": 0.5}}, "metrics": ["interests_per_user"]},
}


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    """A project after its people visited its server twice."""
    folder = tmp_path_factory.mktemp("project")
    write_history(load_snapshot(tiny_snapshot(folder / ".palate" / "snapshots", 240, PEOPLE)), folder)
    declared = {name: {**said, "start": START, "end": END} for name, said in DECLARED.items()}
    data = {"items": "items.parquet", "events": "events.parquet"}
    (folder / "palate.yaml").write_text(yaml.safe_dump({"data": data, "experiments": declared}))
    made = Trials(Project(folder))
    state, running = f"sqlite:{folder / 'state.sqlite'}", made.start(datetime.now(UTC))
    served = Served(folder / ".palate" / "snapshots", "127.0.0.1", state=state, experiments=running)
    server = uvicorn.Server(uvicorn.Config(application(served), port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    until = time.monotonic() + 20
    while not server.started and time.monotonic() < until:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        visit(client)
    server.should_exit = True
    thread.join(20)
    return made


def write_history(snapshot: Snapshot, folder: Path) -> None:
    """What the snapshot knows of people as the project's data."""
    snapshot.items.select("item_id", "title").write_parquet(folder / "items.parquet")
    rows = [
        {"user_id": user, "item_id": snapshot.item_ids[item], "timestamp": at, "event_type": "click"}
        for num, user in enumerate(snapshot.user_ids)
        for item, at in zip(snapshot.histories.of(num), snapshot.histories.times_of(num).tolist(), strict=True)
    ]
    pl.DataFrame(rows).write_parquet(folder / "events.parquet")


def visit(client: httpx.Client) -> None:
    """Every person twice: a slate, and clicks by where its items came from, whatever the variant."""
    rng = np.random.default_rng(0)
    for number in range(PEOPLE * VISITS):
        user = f"u{number % PEOPLE}"
        slate = client.get(f"/v1/recommend/{user}", params={"n": EACH, "explain": False}).raise_for_status().json()
        liked = [item for item in slate["items"] if rng.random() < RATES.get(item["source"], ELSE)]
        events = [
            {
                "event_id": f"{slate['request_id']}-{item['item_id']}",
                "user_id": user,
                "item_id": item["item_id"],
                "event_type": "click",
                "request_id": slate["request_id"],
            }
            for item in liked
        ]
        if events:
            client.post("/v1/events", json={"events": events}).raise_for_status()


@pytest.mark.slow
def test_the_planted_effect_is_found_and_the_one_that_is_not_there_is_not(trials):
    found = {name: analyse(trials.log(trials.named(name)), trials.named(name), END) for name in DECLARED}
    bold, nothing = found["bold"], found["nothing"]
    assert bold.readable and nothing.readable
    assert bold.outcome("explore") == "better" and bold.effects[0].p_value < 1e-4
    assert {each.metric: each.missing for each in bold.effects} == dict.fromkeys(
        ["click_rate", "novel_impression_ratio", "coverage"], ""
    )
    novel = bold.effects[1]
    assert novel.treated > novel.control + 0.1
    assert nothing.outcome("same") in ("unclear", "no effect") and nothing.effects[0].p_value > 0.05
    forced = next(check for check in bold.checks if check.name == "impressions forced by an override")
    assert forced.figures == {"rows": VISITS * EACH} and sum(bold.people.values()) == PEOPLE - 1
    assert all(check.state == "good" for check in nothing.checks if check.name != "whole weeks")


@pytest.mark.slow
def test_its_report_is_that_of_one_that_runs(trials):
    analysis, data, folder = trials.report("bold")
    assert analysis.status == "running" and "people who peek" in data["verdict"][-1]
    assert (folder / "report.html").exists() and (folder / "declared.json").exists()
