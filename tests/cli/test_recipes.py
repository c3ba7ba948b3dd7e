"""`palate recipe`: a recipe of another package, run on a small folder with a language model that is not asked."""

import json
from importlib.metadata import EntryPoint

import pytest
from typer.testing import CliRunner

from palate.cli.main import app
from palate.experiments.study import Chart, Report, ReportTable, Study

HOSTILE = "</script><script>alert(1)</script>"


def counting(study: Study) -> Report:
    """Counts items.

    Claim: none. Baseline: none.
    """
    study.progress("counting", 1, 1)
    rows = [{"what": HOSTILE, "auc": 0.7, "auc_low": 0.6, "auc_high": 0.8, "n": study.dataset.n_items}]
    points = [{"cost": 1.0, "coverage": 0.5, "route": "a"}, {"cost": 2.0, "coverage": 0.9, "route": "a"}]
    charts = [
        Chart("AUC", "intervals", rows, "what", "auc"),
        Chart("Cost", "lines", points, "cost", "coverage", "route"),
    ]
    table = ReportTable("Items", rows, f"labels: {None if study.labels is None else study.labels.height}")
    return Report("Counting", [f"{study.dataset.n_items} items", f"set: {dict(study.settings)}"], [table], charts)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    point = EntryPoint("counting", f"{__name__}:counting", "palate.recipes")
    monkeypatch.setattr("palate.recipes.registry.entry_points", lambda group: [point])
    data = tmp_path / "shop"
    data.mkdir()
    (data / "items.csv").write_text("item_id,title\n1,One\n2,Two\n")
    (data / "events.csv").write_text("user_id,item_id,timestamp\na,1,1600000000\n")
    (data / "labels.csv").write_text("item_id,label\n1,fine\n")
    return data


def run(*words):
    return CliRunner().invoke(app, ["recipe", *map(str, words)])


def test_a_recipe_is_run_and_reported(folder, tmp_path):
    out = tmp_path / "out"
    done = run("run", "counting", "--data", folder, "--workspace", out, "--set", "items=7", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["verdict"] == ["2 items", "set: {'items': '7'}"]
    assert found["tables"]["Items"][0]["n"] == 2
    report = json.loads((out / "counting" / "shop" / "report.json").read_text())
    assert report["command"] == "palate recipe run counting --data shop --set items=7"
    page = (out / "counting" / "shop" / "report.html").read_text()
    assert "0.700 [0.600, 0.800]" in page and "labels: 1" in page
    assert HOSTILE not in page


def test_recipes_are_listed_and_shown(folder):
    assert "Counts items." in run("list").stdout
    assert "Claim: none" in run("show", "counting").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "cunting", "--data", "x"], "no such recipe"),
        (["run", "counting", "--data", "nowhere"], "no such folder"),
        (["run", "counting", "--data", ".", "--set", "items"], "NAME=VALUE"),
        (["run", "counting", "--data", ".", "--base-url", "http://127.0.0.1:9/v1"], "needs a model"),
    ],
)
def test_what_cannot_be_run_is_said(folder, tmp_path, words, said):
    done = run(*words, "--workspace", tmp_path / "out") if words[0] == "run" else run(*words)
    assert said in str(done.exception)
    assert done.exception.exit_code == 2
