"""`palate factors`: the LLM proposes, a person edits, nothing is overwritten."""

import json

import polars as pl
import pytest
import yaml

from palate.knowledge.factors import load_factors
from palate.llm.request import Answer, Bound
from palate.project import project as project_module


class Proposer:
    name, model = "fake", "fake-1"

    def __init__(self, path=None, **_):
        pass

    def close(self):
        pass

    def bound(self, request):
        return Bound(20, 0.0)

    def ask(self, work):
        said = {"factors": [{"name": "mood", "description": "how it feels", "values": ["calm", "tense"]}]}
        while taken := work.take(8):
            yield [(number, Answer(json.dumps(said), model=self.model, engine=self.name)) for number, _ in taken]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(project_module, "LlamaEngine", Proposer)
    pl.DataFrame({"item_id": ["a", "b"], "title": ["Alien", "Heat"]}).write_csv(tmp_path / "items.csv")
    events = {"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [1_600_000_000, 1_600_000_600]}
    pl.DataFrame(events).write_csv(tmp_path / "events.csv")
    (tmp_path / "palate.yaml").write_text(yaml.safe_dump({"data": {"items": "items.csv", "events": "events.csv"}}))
    return tmp_path


def test_factors_are_proposed_once(palate, project):
    out = project / "factors.yaml"
    code, said, err = palate("factors", "films", "--thing", "film", "--out", out, "--project", project, "--json")
    assert code == 0, err
    assert json.loads(said)["mood"] == "how it feels"
    found = load_factors(out)
    assert (found.scenario, found.thing, found.factors[0].values) == ("films", "film", ("calm", "tense"))
    out.write_text(out.read_text() + "# mine\n")
    code, _, err = palate("factors", "films", "--out", out, "--project", project)
    assert (code, "--replace" in err) == (2, True)
    assert "# mine" in out.read_text()
