"""The whole path on a tiny project: once, again, and killed at random moments."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest
from tiny_project import StandIn, make_project

from palate.llm.ledger_tools import records
from palate.project.progress import Bars
from palate.project.project import Project
from palate.project.refresh import Limits, refreshed
from palate.project.report import write_report
from palate.project.report_data import report_of
from palate.project.run import Run
from palate.serving.arrivals import gone_item
from palate.serving.load import load_snapshot
from palate.serving.pipeline import recommend
from palate.serving.state import Event, KeptItem, open_state
from palate.serving.versions import current

pytestmark = pytest.mark.slow
pytest.importorskip("torch", reason="needs the extra `train`")


@pytest.fixture(scope="module")
def server():
    server = StandIn()
    yield server
    server.close()


def run_once(folder):
    return Run(Project(folder), Bars(quiet=True)).all()


@pytest.fixture(scope="module")
def finished(server, tmp_path_factory):
    folder = make_project(tmp_path_factory.mktemp("tiny") / "project", server.url)
    work = run_once(folder)
    yield folder, work
    work.project.close()


def test_every_step_leaves_its_result(finished):
    folder, work = finished
    names = [artefact.name for artefact in work.steps.made]
    assert names == [
        "vectors",
        "annotate",
        "distil",
        "golden",
        "interests",
        "transitions",
        "models",
        "ranker",
        "controls",
        "snapshot",
    ]
    snapshot = load_snapshot(current(folder / ".palate" / "snapshots"))
    slate = recommend(snapshot, "u3", n=6)
    assert len(slate) == 6
    assert all(item.reasons for item in slate)
    assert all(item.ranked is not None for item in slate if item.source != "popular")


def test_the_report_is_whole(finished, tmp_path):
    _, work = finished
    report = report_of(work)
    write_report(tmp_path, report)
    kept = json.loads((tmp_path / "report.json").read_text())
    assert {row["model"] for row in kept["comparison"]["rows"]} >= {"sasrec", "ease", "markov", "popularity"}
    assert {row["knowledge"] for row in kept["controls"]["rows"]} >= {"off", "noise", "permuted", "raw text, no LLM"}
    assert "<script" in (tmp_path / "report.html").read_text()


def test_again_asks_nothing_and_makes_nothing(finished, server):
    folder, _ = finished
    asked = len(server.seen)
    work = run_once(folder)
    work.project.close()
    assert len(server.seen) == asked
    assert {artefact.state for artefact in work.steps.made} == {"kept"}


def test_one_new_question_asks_only_that(finished, server):
    folder, _ = finished
    asked = len(server.seen)
    path = folder / "attributes" / "moods.yaml"
    path.write_text(path.read_text() + "- name: odd\n  question: Is this odd?\n")
    work = Run(Project(folder), Bars(quiet=True))
    assert work.annotate.state == "made"
    work.project.close()
    new = [question for _, question in server.seen[asked:]]
    assert len(new) == 16
    assert all("Is this odd?" in question for question in new)


def test_a_refresh_asks_about_what_came_and_builds_the_next_snapshot(finished, server):
    """Whatever the tests before left: it is the same project."""
    folder, _ = finished
    first = refreshed(folder, Bars(quiet=True))
    with closing(open_state(f"sqlite:{folder / '.palate' / 'state.sqlite'}")) as state:
        told = {"title": "sea story new", "text": "Quite another tale.", "categories": [], "year": None, "vector": None}
        state.put_items([KeptItem({"item_id": "n", **told}, "s", [0.0], 0, {}), gone_item("i79")])
        state.add_events([Event("e1", "u0", "n", 1_700_000_000_000_000, "click")])
        asked = len(server.seen)
        second = refreshed(folder, Bars(quiet=True), Limits(calls=10), state)
        assert state.queued() == []
    new = [question for _, question in server.seen[asked:]]
    assert sum("Quite another tale" in question for question in new) == 3  # attributes
    assert len(new) == second["calls"] <= 10
    assert (second["items_answered"], second["landed"]["events"], second["landed"]["deleted"]) == (1, 1, 1)
    assert second["snapshot_before"] == first["snapshot"] != second["snapshot"]
    snapshot = load_snapshot(current(folder / ".palate" / "snapshots"))
    assert {row["name"] for row in snapshot.known("n") if row["source"] == "llm"} == {"calm", "loud", "odd"}
    assert snapshot.history("u0")[-1] == snapshot.item_nums["n"] and "i79" not in snapshot.item_nums
    shutil.rmtree(folder / ".palate" / "snapshots" / second["snapshot"])
    third = refreshed(folder, Bars(quiet=True))
    assert (third["calls"], third["steps_made"], third["snapshot_before"]) == (0, ["snapshot"], None)
    assert current(folder / ".palate" / "snapshots").name == third["snapshot"]


def kept_questions(folder):
    """The questions whose answers are in the ledger."""
    path = folder / ".palate" / "ledger.sqlite"
    if not path.exists():
        return set()
    return {json.loads(row["request"])["messages"][1][1] for row in records(path)}


FORKS = """
import os, sys
import onnx, onnxruntime, sklearn.cluster, tokenizers, torch, palate.cli.main, palate.models.sequence_retriever
from palate.cli.entry import run
for _ in sys.stdin:
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            run()
        except SystemExit as end:
            os._exit(end.code or 0)  # an interpreter that was forked may wait for threads that are not there
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Runs:
    """`palate run` again and again, as killable as any process, from one that has imported everything.

    It has used nothing of it: threads do not live through a fork.
    """

    def __init__(self, folder):
        words = [sys.executable, "-c", FORKS, "run", "--project", str(folder), "--json"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.log = folder.with_name("log").open("w+")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.log}
        self.process = subprocess.Popen(words, env=environment, bufsize=0, **pipes)

    def once(self, seconds):
        """Whether it was killed because it took longer; what it said if it failed."""
        self.process.stdin.write(b"go\n")
        child = int(self.process.stdout.readline())
        ended, _, _ = select.select([self.process.stdout], [], [], seconds)
        if not ended:
            os.kill(child, signal.SIGKILL)
        status = int(self.process.stdout.readline())
        self.log.seek(0)
        assert status in (0, signal.SIGKILL), self.log.read()
        return status == signal.SIGKILL

    def close(self):
        self.process.communicate()
        self.log.close()


def test_killed_at_20_random_moments_it_goes_on_and_asks_nothing_twice(tmp_path):
    """`kill -9` between start and end; what the ledger holds at each death is never asked again."""
    server = StandIn(delay=0.05)
    folder = make_project(tmp_path / "project", server.url)
    runs, kills = Runs(folder), 0
    rng = np.random.default_rng(int(os.environ.get("PALATE_TEST_SEED", "0")))
    try:
        for moment in rng.uniform(0.1, 2.5, 20):
            before, kept = len(server.seen), kept_questions(folder)
            kills += runs.once(moment)
            time.sleep(0.06)  # what the stand-in was about to answer
            again = {question for _, question in server.seen[before:]} & kept
            assert not again, f"asked again: {again}"
        kept = kept_questions(folder)
        assert not runs.once(120)
    finally:
        runs.close()
        server.close()
    assert kills >= 5
    assert kept <= kept_questions(folder)
    snapshots = folder / ".palate" / "snapshots"
    load_snapshot(current(snapshots))
    leftovers = [path for path in (folder / ".palate").rglob("*") if path.name.endswith(".tmp")]
    assert not leftovers
    assert json.loads((folder / "report.json").read_text())["steps"]
