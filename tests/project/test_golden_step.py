"""The golden step of a tiny project, and what `palate golden` prints of it."""

import json
import sys

import pytest
from tiny_project import StandIn, make_project

from palate.cli.main import run
from palate.knowledge.golden_queue import Pick, extend_queue
from palate.project.knowledge_steps import ZERO_SHOT
from palate.project.progress import Bars
from palate.project.project import Project
from palate.project.run import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three raters who agree but for one item in eight, two with nasty names; a stand-in LLM."""
    server = StandIn()
    made = make_project(tmp_path_factory.mktemp("golden") / "project", server.url)
    rows = [
        f"i{n},calm,{rater},{int((n % 8 < 3) != (n % 8 == k))}\n"
        for n in range(80)
        for k, rater in enumerate(("anna", "[red]ben", "cleo\x1b[2J"))
    ]
    (made / "golden" / "people.csv").write_text("item_id,attribute,rater,label\n" + "".join(rows) + "i1,gone,a,1\n")
    yield made
    server.close()


@pytest.fixture
def palate(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["palate", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "300")
        with pytest.raises(SystemExit) as caught:
            run()
        return caught.value.code or 0, capsys.readouterr().out

    return call


def golden_of(folder):
    work = Run(Project(folder), Bars(quiet=True))
    try:
        return work.golden
    finally:
        work.project.close()


def report_in(made):
    return json.loads((made.folder / "agreement.json").read_text())


def test_the_step_is_kept_until_something_changes(folder):
    first = golden_of(folder)
    report = report_in(first)
    assert report["rows"] == json.loads((first.folder / "golden.json").read_text())
    assert {part["attribute"] for part in report["attributes"]} == {"calm", "loud"}
    assert len(report["attributes"][0]["raters"]) == 3
    assert golden_of(folder).key == first.key
    extend_queue(folder / "golden", [Pick(f"i{n}", "random", 0.5) for n in range(40)])
    second = golden_of(folder)
    assert second.key != first.key
    prevalence = report_in(second)["attributes"][0]["prevalence"]
    assert (prevalence["n"], prevalence["drawn_at_random"]) == (40, True)
    assert [name.partition(" of")[0] for name in prevalence["sources"]] == ["student"]  # it alone spoke of every item
    assert f"{ZERO_SHOT}: gives no probabilities" in prevalence["skipped"]


def test_people_see_the_verdict_first_and_what_was_left_out_last(folder, palate):
    code, out = palate("golden", "--project", folder)
    lines = out.splitlines()
    assert code == 0
    assert "person" in lines[0] or "chance" in lines[0]
    assert any(line.startswith("calm:") for line in lines[:4])
    for words in ("Sources against people", "Sources in a person's place", "[red]ben", "no such attribute"):
        assert words in out
    assert "\x1b[2J" not in out
    assert "loud: cannot be said" in out


def test_machines_get_the_whole_report(folder, palate):
    _, out = palate("golden", "--project", folder, "--json")
    report = json.loads(out, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert {"verdict", "attributes", "rows", "terms", "left_out"} <= set(report)
