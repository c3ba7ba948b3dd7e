"""The annotate step: what its settings change in the questions, and what lies beside the labels."""

import json
from contextlib import ExitStack, closing

import polars as pl
import pytest
import yaml
from tiny_project import StandIn, make_project

from palate.project.progress import Bars
from palate.project.project import Project
from palate.project.run import Run


@pytest.fixture
def server():
    stand_in = StandIn()
    yield stand_in
    stand_in.close()


@pytest.fixture
def opened(server):
    """From a folder and settings of `annotate` to the run of a project there."""
    with ExitStack() as stack:

        def make(folder, **annotate):
            if not folder.exists() or annotate:
                make_project(folder, server.url)
                config = yaml.safe_load((folder / "palate.yaml").read_text())
                config["annotate"] |= annotate
                (folder / "palate.yaml").write_text(yaml.safe_dump(config))
            return Run(stack.enter_context(closing(Project(folder))), Bars(quiet=True))

        yield make


def test_the_plan_counts_what_is_asked(tmp_path, opened, server):
    settings = {"items": 6, "orders": 2, "jury": 2, "content_free": True, "guard": {"neutral": True}}
    run = opened(tmp_path, **settings)
    planned = run.plan()
    assert run.annotate.detail["calls"] == planned.calls == len(server.seen)
    assert run.plan().calls == 0


def test_a_jury_lies_beside_its_verdict(tmp_path, opened, server):
    made = opened(tmp_path, items=6, jury=3, calibrate="none").annotate
    jurors, labels = (pl.read_parquet(made.folder / f"{name}.parquet") for name in ("jurors", "label"))
    assert jurors["model"].n_unique() == 3
    assert labels["model"].unique().to_list() == ["jury of 3: stand-in#1, stand-in#2, stand-in#3"]
    assert labels.height * 3 == jurors.height


def test_labels_are_calibrated_on_dev_and_say_so(tmp_path, opened, server):
    run = opened(tmp_path, items=80)
    reports = json.loads((run.annotate.folder / "calibration.json").read_text())
    assert [report["attribute"] for report in reports] == ["calm", "loud"]
    for report in reports:
        assert report["note"].startswith("too few dev labels")  # 80 items, half of them dev
        assert report["ece_before"] == report["ece_after"]
        assert sum(bar["n"] for bar in report["before"]) == report["n"] > 0


def test_marks_are_the_projects_own_and_answers_are_found_again(tmp_path, opened, server):
    first = opened(tmp_path / "a", items=4)
    assert first.annotate.detail["labels"] == 8
    second = opened(tmp_path / "b", items=4)
    marks = [{line for _, text in server.seen for line in text.splitlines() if line.startswith("<item-")}]
    assert second.plan().calls == second.plan().requests  # another project, other marks
    assert opened(tmp_path / "a").plan().calls == 0
    assert len(marks[0]) == 4


@pytest.mark.slow
def test_examples_come_from_people(tmp_path, opened, server):
    run = opened(tmp_path, items=4, examples=2)
    assert run.annotate.detail["labels"] == 8
    shown = [text for _, text in server.seen if "judged by people" in text]
    assert shown
    assert all(text.count("judged by people") <= 2 for text in shown)
