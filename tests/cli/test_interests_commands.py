"""`palate interests`: the exploration table by a batch service, and titles beside keywords."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from palate.interests.table import open_table
from palate.interests.tree import load_tree
from palate.llm.request import Answer, Bound
from palate.project.progress import Bars
from palate.project.project import Project
from palate.project.run import Run

pytestmark = pytest.mark.slow
WORDS = ("sea", "war", "love", "space", "crime", "farm", "music", "ghost")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """60 stories about eight things."""
    folder, rng = tmp_path_factory.mktemp("stories"), np.random.default_rng(0)
    items = [(f"i{n}", f"A story of {WORDS[n % 8]} {n}", f"About {WORDS[n % 8]}.") for n in range(60)]
    pl.DataFrame(items, schema=["item_id", "title", "text"], orient="row").write_parquet(folder / "items.parquet")
    events = [
        (f"u{u}", f"i{rng.integers(30) * 2 + u % 2}", 1_600_000_000 + 600 * k + u) for u in range(40) for k in range(15)
    ]
    table = pl.DataFrame(events, schema=["user_id", "item_id", "timestamp"], orient="row")
    table.sort("timestamp").write_parquet(folder / "events.parquet")
    config = {
        "data": {"items": "items.parquet", "events": "events.parquet"},
        "interests": {"branching": [2, 2], "level": 2},
    }
    (folder / "palate.yaml").write_text(yaml.safe_dump(config))
    return folder


def results(batch, path, say):
    lines = []
    for file in sorted(batch.glob("*.jsonl")):
        for line in map(json.loads, file.read_text().splitlines()):
            text = say(line["body"]["messages"][-1]["content"].splitlines())
            body = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": {}}
            lines.append({"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines[::-1]))


def test_out_as_files_back_as_a_table_that_serving_reads(palate, project, tmp_path):
    code, out, _ = palate("interests", "export", "--model", "m", "-o", tmp_path / "batch", "-p", project, "--json")
    assert code == 0
    assert json.loads(out)["requests"] == 6
    tree = load_tree(next((project / ".palate").rglob("tree.json")))
    titles = [node.title for node in tree.at_level(2)]
    results(tmp_path / "batch", tmp_path / "r.jsonl", lambda known: "\n".join([*reversed(titles), "strange"]))
    given = ("interests", "import", tmp_path / "r.jsonl", "--model", "m", "-p", project, "--json")
    code, out, _ = palate(*given)
    said = json.loads(out)
    assert (code, said["kept"], said["missing"]) == (0, 6, 0)
    assert said["match_rate"] == pytest.approx(4 / 5)
    assert said["no_names"][0] == "strange"
    table = open_table(project / ".palate" / "exploration.table")
    assert table.look_up(np.array([[0, 1], [3, 2]]))[0][:, :3].tolist() == [[3, 2, -1], [1, 0, -1]]
    work = Run(Project(project), Bars(quiet=True))
    rows = pl.read_parquet(work.transitions.folder / "transitions.parquet")
    nodes = [node.node for node in tree.at_level(2)]
    assert rows.height == 12
    assert rows.filter(node_a=nodes[0], node_b=nodes[1])["next_node"].to_list() == [nodes[3], nodes[2]]
    assert rows["model"].unique().to_list() == ["m"]
    work.project.close()
    assert json.loads(palate(*given)[1])["known"] == 6  # again: nothing is lost, nothing is twice


def test_what_is_missing_is_counted_and_a_damaged_line_is_named(palate, project, tmp_path):
    export = ("interests", "export", "--model", "other", "-o", tmp_path / "batch", "-p", project)
    assert palate(*export)[0] == 0
    assert palate(*export)[0] == 2  # not over what is there
    tree = load_tree(next((project / ".palate").rglob("tree.json")))
    titles = [node.title for node in tree.at_level(2)]

    def answer(known):
        return "no name at all\n" + next(title for title in titles if title not in known)

    results(tmp_path / "batch", tmp_path / "r.jsonl", answer)
    lines = (tmp_path / "r.jsonl").read_text().splitlines()
    (tmp_path / "r.jsonl").write_text("\n".join([*lines[:2], "{broken"]) + "\n")
    code, out, err = palate("interests", "import", tmp_path / "r.jsonl", "--model", "other", "-p", project, "--json")
    said = json.loads(out)
    assert (code, said["kept"], said["missing"], said["match_rate"]) == (2, 2, 4, 0.5)
    assert "r.jsonl, line 3" in err
    table = (project / ".palate" / "exploration.table").read_bytes()
    assert len(open_table(project / ".palate" / "exploration.table").keys) == 2
    code, _, err = palate("interests", "import", tmp_path / "r.jsonl", "--model", "third", "-p", project)
    assert (code, "None of these pairs was answered" in err) == (2, True)
    export = ("interests", "export", "--model", "worse", "-o", tmp_path / "worse", "-p", project)
    assert palate(*export)[0] == 0
    results(tmp_path / "worse", tmp_path / "w.jsonl", lambda known: "no name at all")
    code, _, err = palate("interests", "import", tmp_path / "w.jsonl", "--model", "worse", "-p", project)
    assert (code, "No answer names a new interest" in err, "no name at all" in err) == (2, True, True)
    assert (project / ".palate" / "exploration.table").read_bytes() == table  # the old one stays


class TitleEngine:
    """Answers each question about a title with one that is new."""

    name, model = "fake", "titles-1"

    def __init__(self, path=None, decoding=None):
        self.said = 0

    def close(self):
        pass

    def bound(self, request):
        return Bound(20, 0.0)

    def ask(self, work):
        while taken := work.take(8):
            for number, _ in taken:
                self.said += 1
                told = {"tokens_in": 10, "tokens_out": 3, "model": self.model, "engine": self.name}
                yield [(number, Answer(f"Tales number {self.said}", **told))]


def test_titles_are_asked_for_judged_and_kept_only_if_better(palate, project, monkeypatch):
    monkeypatch.setattr("palate.project.project.LlamaEngine", TitleEngine)
    code, out, _ = palate("interests", "name", "-p", project, "--json")
    said = json.loads(out)
    assert (code, said["chosen"], said["calls"]) == (0, "keywords", 12)  # six nodes, with and without items
    assert {each["told"]["names"] for each in said["judged"]} > {"keywords"}
    assert said["outcomes"]["LLM, shown keywords"] == {"taken": 6}
    named = load_tree(Path(said["tree"]))
    plain = load_tree(next((project / ".palate").rglob("interests*/tree.json")))
    assert [node.title for node in named.nodes] == [node.title for node in plain.nodes]
    code, out, _ = palate("interests", "name", "-p", project)  # as a person reads it
    assert code == 0
    assert "Chosen: keywords" in out
