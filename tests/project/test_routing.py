import json
import sys

import numpy as np
import polars as pl
import pytest
import yaml
from tiny_project import StandIn, make_project

from palate.cli.main import run as palate
from palate.errors import InputError
from palate.knowledge.route import RouteConfig
from palate.project.progress import Bars
from palate.project.project import Project
from palate.project.routing import Routing
from palate.project.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    server = StandIn()
    folder = make_project(tmp_path_factory.mktemp("route") / "project", server.url)
    config = yaml.safe_load((folder / "palate.yaml").read_text())
    config["llm"]["prices"] = {"stand-in": {"tokens_in": 2.0, "tokens_out": 8.0}}
    (folder / "palate.yaml").write_text(yaml.safe_dump(config))
    (folder / "golden" / "split.json").write_text(json.dumps({"salt": "s", "dev_share": 0.6}))
    people = (folder / "golden" / "people.csv").read_text().splitlines()
    (folder / "golden" / "people.csv").write_text("\n".join(people[:121]) + "\n")  # 60 items
    project = Project(folder)
    yield Run(project, Bars(quiet=True))
    project.close()
    server.close()


@pytest.mark.slow
def test_costs_are_of_what_was_measured(run):
    costs = {row["route"]: row for row in Routing(run, RouteConfig()).costs()}
    assert list(costs) == ["student, vectors at hand", "student and encoder", "stand-in", "cascade", "people"]
    assert costs["stand-in"]["money"] == pytest.approx(2 * (10 * 2.0 + 1 * 8.0))  # two questions of 10 and 1 tokens
    assert costs["people"]["money"] == pytest.approx(1e6 * 2 * 8 / 3600 * 15)
    assert 0 < costs["student, vectors at hand"]["money"] < costs["student and encoder"]["money"] < 100


def test_where_labels_are_too_few_all_is_left_to_people_and_said(run):
    routing = Routing(run, RouteConfig(alpha=0.02))
    assert {silence.attribute for silence in routing.silences} == {"calm", "loud"}
    rows = routing.queue(limit=1000)
    assert len(rows) == 2 * 20
    assert not {row.item_id for row in rows} & run.project.golden.judged
    assert {row.why for row in rows} == {"no judge may answer calm", "no judge may answer loud"}
    assert {row["stage"]: row["answered"] for row in routing.stages() if row["attribute"] == "all"}["people"] == 160
    assert not run.project.golden.reads()  # held-out labels stay closed


@pytest.mark.slow
def test_the_command_says_who_answers_and_queues_the_rest(run, monkeypatch, capsys):
    folder = str(run.project.folder)

    def call(*more):
        monkeypatch.setattr(sys, "argv", ["palate", "route", "--project", folder, *more])
        with pytest.raises(SystemExit) as caught:
            palate()
        return caught.value.code or 0, capsys.readouterr()

    code, said = call("--json", "--alpha", "0.02", "--queue", "7", "--check", "5", "--cost")
    assert code == 0, said.err
    answer = json.loads(said.out)
    assert answer["queued"] == 7
    assert len((run.project.folder / "golden" / "queue.jsonl").read_text().splitlines()) == 7
    assert {row["attribute"] for row in answer["check"]} == {"calm", "loud"}
    code, said = call("--check", "5", "--cost", "--queue", "0")
    assert code == 0
    for words in ("At most 10% of true yes", "people", "labels of people", "A million items", "random splits"):
        assert words in said.out
    code, said = call("--alpha", "0")
    assert code == 2
    assert "--alpha" in said.err


def test_answers_are_kept_as_labels(run):
    routing = Routing(run, RouteConfig(alpha=0.6, error="class"))
    kept = pl.read_parquet(routing.keep())
    assert kept.height == int((routing.routed.takes >= 0).sum()) > 0
    assert set(kept["value"]) <= {0.0, 1.0}
    assert set(kept["model"]) <= {judge.name for judge in routing.judges}
    assert np.isfinite([row["coverage"] for row in routing.curve()]).all()


def test_an_empty_dev_side_is_an_error_that_counts(run, tmp_path):
    (run.project.folder / "golden" / "split.json").rename(tmp_path / "kept")
    (run.project.folder / "golden" / "split.json").write_text(json.dumps({"salt": "s", "dev_share": 0.0}))
    fresh = Project(run.project.folder)
    try:
        with pytest.raises(InputError, match="120 held-out labels"):
            Routing(Run(fresh, Bars(quiet=True)), RouteConfig())
    finally:
        fresh.close()
        (tmp_path / "kept").replace(run.project.folder / "golden" / "split.json")
