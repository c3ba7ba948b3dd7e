"""What a refresh asks, with the packaged language model; `test_run.py` has the whole of it with a stand-in."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
import yaml
from tiny_project import make_project

from palate.project.progress import Bars
from palate.project.project import Project
from palate.project.refresh import Limits, Refresh
from palate.serving.state import KeptItem, open_state

pytest.importorskip("xllamacpp", reason="needs the extra `embedded`")


@pytest.mark.slow
def test_the_packaged_model_labels_a_new_item_and_writes_a_profile_as_planned(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "p", None)
    pl.read_parquet(folder / "items.parquet").head(12).write_parquet(folder / "items.parquet")
    events = pl.read_parquet(folder / "events.parquet").filter(pl.col("user_id") == "u0")
    some = events.filter(pl.col("item_id").is_in([f"i{k}" for k in range(12)]))
    some.write_parquet(folder / "events.parquet")
    config = yaml.safe_load((folder / "palate.yaml").read_text())
    config["annotate"] = {"items": 3}
    config["refresh"] = {"factors": "moods.yaml", "answer": "closed", "least": 2}
    asked = {"scenario": "stories", "factors": [{"name": "mood", "values": ["calm", "tense"]}]}
    (folder / "moods.yaml").write_text(yaml.safe_dump(asked))
    (folder / "palate.yaml").write_text(yaml.safe_dump(config))
    item = {"item_id": "n", "title": "A quiet farm", "text": "Slow days on a farm.", "categories": []}
    with closing(open_state(f"sqlite:{folder / '.palate' / 'state.sqlite'}")) as state:
        state.put_items([KeptItem({**item, "year": None, "vector": None}, "s", [0.0], 0, {})])
        with closing(Project(folder)) as project:
            work = Refresh(project, Bars(quiet=True), Limits(calls=20), state)
            work.land()
            due, planned = work.due, work.plan()["calls"]
            answer = work.renew()
            calls = sum(row["calls"] for row in project.ledger.totals())
            labels, profiles = work.visits.labels, work.visits.profiles
    assert len(due.items) == 1 and calls == planned <= 20
    assert profiles.height == 1 and profiles["text"].is_not_null().all() and {*profiles["entity"]} == {"u0"}
    assert {*labels["entity"]} == {"n"} and labels.height == 2 and answer["items_answered"] == 1
    assert labels["value"].is_between(0, 1).all()
