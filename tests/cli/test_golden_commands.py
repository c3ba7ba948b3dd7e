"""`palate golden ...` from a person's side."""

import csv
import json

import polars as pl
import pytest
import yaml

from palate.knowledge.rater_labels import Label, RaterLabels


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    (folder / "attributes").mkdir(parents=True)
    (folder / "attributes" / "a.yaml").write_text("name: calm\nquestion: Is this calm?\n")
    items = [{"item_id": f"i{n}", "title": f"Film {n}", "text": "<b>about</b>", "categories": "a"} for n in range(40)]
    pl.DataFrame(items).write_csv(folder / "items.csv")
    (folder / "events.csv").write_text("user_id,item_id,timestamp\nu,i1,1600000000\nu,i2,1600000100\n")
    (folder / "palate.yaml").write_text(yaml.safe_dump({"data": {"items": "items.csv", "events": "events.csv"}}))
    return folder


def test_help_names_every_command(palate):
    code, out, _ = palate("golden", "--help")
    assert code == 0
    for command in ("sample", "label", "import", "export"):
        assert command in out
        assert "Example" in palate("golden", command, "--help")[1]


def test_sample_says_what_it_drew_and_why(palate, project):
    code, out, _ = palate("golden", "sample", "--project", project, "-n", 10)
    assert code == 0
    for words in ("random", "tail", "stratified", "10 items queued", "queue.jsonl", "no source of labels speaks of it"):
        assert words in out
    before = len((project / "golden" / "queue.jsonl").read_text().splitlines())
    RaterLabels(project / "golden", "anna").add([Label(f"i{n}", "calm", "anna", "Yes") for n in range(25)])
    code, out, _ = palate("golden", "sample", "--project", project, "-n", 30, "--json", "--mix", "random=1,tail=1")
    answer = json.loads(out)
    assert sum(part["items"] for part in answer["parts"]) < 15  # not more are left
    assert answer["notes"]
    rows = [json.loads(line) for line in (project / "golden" / "queue.jsonl").read_text().splitlines()]
    asked = [row["item_id"] for row in rows[before:] if row["ask"]]
    assert not set(asked) & {f"i{n}" for n in range(25)}


def test_a_mix_that_cannot_be_read_is_named(palate, project):
    for mix in ("random", "rare=1"):
        code, _, err = palate("golden", "sample", "--project", project, "--mix", mix)
        assert (code, "mix" in err) == (2, True)
    assert not (project / "golden" / "queue.jsonl").exists()


def test_labelling_without_a_queue_says_what_to_do(palate, project):
    code, _, err = palate("golden", "label", "--project", project, "--port", 0)
    assert code == 2
    assert "palate golden sample" in err


@pytest.mark.parametrize("form", ["csv", "label-studio"])
def test_export_and_import_are_each_other_undone(palate, project, tmp_path, form):
    labels = [Label(f"i{n}", "calm", f"r{n % 2}", "Yes", 'why, "so"\n', None, "12345678") for n in range(20)]
    for rater in ("r0", "r1"):
        RaterLabels(project / "golden", rater).add([label for label in labels if label.rater == rater])
    out = tmp_path / "labels.out"
    code, said, _ = palate("golden", "export", "--project", project, "-o", out, "--format", form)
    assert (code, "20 labels" in said) == (0, True)
    reads = (project / "golden" / "held-out-reads.jsonl").read_text()
    assert "palate golden export" in reads
    for path in project.glob("golden/*.csv"):
        path.unlink()
    code, said, _ = palate("golden", "import", out, "--project", project, "--json")
    assert json.loads(said)["new"] == 20
    assert {label for r in ("r0", "r1") for label in RaterLabels(project / "golden", r).current().values()} == {*labels}


def test_bad_rows_of_an_import_are_named_and_counted(palate, project, tmp_path):
    file = tmp_path / "in.csv"
    with file.open("w", newline="") as stream:
        rows = [
            ["item_id", "attribute", "rater", "label"],
            ["i1", "calm", "anna", "Yes"],
            ["x\x1b[31m", "calm", "a", "Yes"],
        ]
        csv.writer(stream).writerows(rows)
    code, out, err = palate("golden", "import", file, "--project", project)
    assert (code, "1 labels new" in out) == (0, True)
    assert "1 row(s) left out: no such item (row 3" in err
    assert "\x1b" not in err
    code, _, err = palate("golden", "export", "-o", tmp_path / "x", "--project", project, "--format", "xlsx")
    assert (code, "label-studio" in err) == (2, True)
