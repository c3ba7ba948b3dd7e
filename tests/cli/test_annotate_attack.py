"""`palate annotate attack` as a person calls it."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "project"))
from tiny_project import StandIn, make_project


@pytest.fixture
def project(tmp_path):
    server = StandIn()
    folder = make_project(tmp_path, server.url)
    rows = "".join(
        f"i{n},{name},a,{int((n % 3 == 0) == (name == 'calm'))}\n" for n in range(80) for name in ("calm", "loud")
    )
    (folder / "golden" / "people.csv").write_text("item_id,attribute,rater,label\n" + rows)
    yield folder
    server.close()


@pytest.mark.slow
def test_attack_reports_rates_and_price(palate, project):
    arguments = ("annotate", "attack", "--project", project, "--items", 4, "--only", "command", "--only", "polite")
    code, out, err = palate(*arguments, "--json")
    report = json.loads(out)
    assert code == (0 if report["holds"] else 1), err
    assert {rate["injection"] for rate in report["rates"]} == {"all", "held out", "command", "polite"}
    assert [price["arm"] for price in report["prices"]] == ["without", "with"]
    assert report["model"] == "stand-in"
    code, out, _ = palate(*arguments, "--each")
    for word in ("delimit", "strip", "cut", "repeat", "F1", "AUC", "benign", "polite"):
        assert word in out


def test_an_unknown_injection_is_named(palate, project):
    code, _, err = palate("annotate", "attack", "--project", project, "--only", "polit")
    assert code == 2
    assert "polit" in err
    assert "authority" in err
