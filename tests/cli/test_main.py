"""What a person sees: help, and one screen for each thing that can be wrong, exit code 2, nothing half-written."""

import json
import socket
from pathlib import Path

import pytest
import yaml

ITEMS = "item_id,title,text,categories\n1,One,about one,a\n2,Two,about two,b\n"
EVENTS = "user_id,item_id,timestamp\nu,1,1600000000\nu,2,1600000100\n"


@pytest.fixture
def files(tmp_path):
    (tmp_path / "items.csv").write_text(ITEMS)
    (tmp_path / "events.csv").write_text(EVENTS)
    return tmp_path


@pytest.fixture
def project(files):
    folder = files / "project"
    (folder / "attributes").mkdir(parents=True)
    (folder / "attributes" / "a.yaml").write_text("name: calm\nquestion: Is this calm?\n")
    config = {"data": {"items": str(files / "items.csv"), "events": str(files / "events.csv")}}
    (folder / "palate.yaml").write_text(yaml.safe_dump(config))
    return folder


def one_screen(err, *words):
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 24
    for word in words:
        assert str(word) in err, err


def test_help_teaches(palate):
    code, out, _ = palate("--help")
    assert code == 0
    for command in ("demo", "init", "run", "check", "annotate", "distill", "golden", "compare", "serve", "snapshot"):
        assert command in out
    assert "Example" in palate("demo", "--help")[1]


def test_check_finds_nothing_to_mend(palate, files):
    code, out, _ = palate("check", "--items", files / "items.csv", "--events", files / "events.csv")
    assert (code, "Nothing to mend" in out) == (0, True)


def test_check_speaks_json(palate, files):
    (files / "events.csv").write_text(EVENTS + "u,99,1600000200\n")
    code, out, _ = palate("check", "--items", files / "items.csv", "--events", files / "events.csv", "--json")
    answer = json.loads(out)
    assert (code, answer["ok"]) == (2, False)
    assert answer["findings"][0]["column"] == "item_id"


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("items.csv", ITEMS.replace("item_id", "sku_nr"), ["items.csv", "item_id"]),
        ("items.csv", ITEMS + "3,Three\n4,Four,about,b,too,many\n", ["items.csv", "row"]),
        ("items.csv", ITEMS + "1,Again,twice,b\n", ["items.csv", "item_id", "row 3"]),
        ("items.csv", ITEMS + "3,,,\n", ["items.csv", "row 3"]),
        ("items.csv", "", ["items.csv", "no rows"]),
        ("events.csv", EVENTS + "u,1,yesterday\n", ["events.csv", "timestamp", "row 3"]),
        ("events.csv", EVENTS + "u,77,1600000200\n", ["events.csv", "item_id", "row 3"]),
    ],
)
def test_bad_data_is_named_and_no_project_is_made(palate, files, file, text, words):
    (files / file).write_text(text)
    target = files / "new"
    code, _, err = palate("init", target, "--items", files / "items.csv", "--events", files / "events.csv")
    assert code == 2
    one_screen(err, *words)
    assert not target.exists()


def test_init_makes_a_project_that_passes_its_check(palate, files):
    code, out, _ = palate("init", files / "new", "--items", files / "items.csv", "--events", files / "events.csv")
    assert (code, "2 items" in out) == (0, True)
    assert palate("check", "--project", files / "new")[0] == 0
    assert palate("init", files / "new", "--items", files / "items.csv", "--events", files / "events.csv")[0] == 2


def test_a_yaml_typo_is_named(palate, project):
    (project / "palate.yaml").write_text("data:\n  items: [oops\n")
    code, _, err = palate("run", "--project", project)
    assert code == 2
    one_screen(err, "palate.yaml, line", "not valid YAML")


def test_an_unknown_attribute_option_is_named(palate, project):
    path = project / "attributes" / "a.yaml"
    path.write_text(path.read_text() + "examples: [{item: A sea, answer: Perhaps}]\n")
    code, _, err = palate("check", "--project", project)
    assert code == 2
    one_screen(err, "a.yaml", "Perhaps", "Yes, No")


def test_a_missing_model_file_is_named(palate, project, monkeypatch):
    monkeypatch.setenv("PALATE__LLM__MODEL", "absent.gguf")
    code, _, err = palate("annotate", "--project", project)
    assert code == 2
    one_screen(err, "absent.gguf", "llm.model")


def test_a_missing_data_file_is_named(palate, project, files):
    (files / "items.csv").unlink()
    code, _, err = palate("run", "--project", project)
    assert code == 2
    one_screen(err, "items.csv", "does not exist")


def test_a_port_in_use_is_named_before_any_work(palate, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = palate("demo", tmp_path / "demo", "--serve", "--port", port)
    assert code == 2
    one_screen(err, f"127.0.0.1:{port}", "--port")
    assert not (tmp_path / "demo").exists()


def test_serving_without_a_snapshot_says_what_to_run(palate, project):
    code, _, err = palate("serve", "--project", project, "--port", 0)
    assert code == 2
    one_screen(err, "No snapshot is in use")
    assert not (project / ".palate" / "state.sqlite").exists()


def test_a_folder_that_cannot_be_written_is_named(palate, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, _, err = palate("demo", tmp_path / "file" / "demo")
    assert code == 2
    one_screen(err, "could not be written")


def test_the_plan_counts_the_questions(palate, project):
    code, out, _ = palate("run", "--project", project, "--plan", "--json")
    assert code == 0
    plan = json.loads(out)
    assert (plan["annotation_questions"], plan["annotation_calls"]) == (2, 2)
    assert plan["answers_in_the_ledger"] == 0


@pytest.mark.slow
def test_the_budget_ends_a_run_before_it_is_exceeded(palate, project, monkeypatch):
    monkeypatch.setenv("PALATE__LLM__MAX_CALLS", "1")
    code, _, err = palate("annotate", "--project", project)
    assert code == 1
    one_screen(err, "budget", "1 calls")


def test_hostile_text_cannot_style_the_terminal(palate, files):
    (files / "items.csv").write_text(ITEMS.replace("item_id", "\x1b[31m[bold]evil"))
    _, _, err = palate("init", files / "new", "--items", files / "items.csv", "--events", files / "events.csv")
    assert "\x1b[31m" not in err


def test_the_sample_needs_a_clone(palate, tmp_path, monkeypatch):
    monkeypatch.setattr("palate.project.sample._ROOT", Path(tmp_path))
    code, _, err = palate("demo", tmp_path / "demo")
    assert code == 2
    one_screen(err, "no sample data", "clone")
