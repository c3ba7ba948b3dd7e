"""`palate annotate errors | refine | versions` on a project of 120 items, with a stand-in for the LLM."""

import json

import pytest
import yaml
from film_project import MOODS, FilmEngine, palate, project  # noqa: F401  (fixtures)


def test_errors_are_shown_by_kind_category_and_cluster(palate, project):  # noqa: F811
    code, out, _ = palate("errors", "-p", project, "--attribute", "calm", "--json")
    (found,) = json.loads(out)["errors"]
    assert code == 0
    assert found["errors"] == len(found["shown"]) or len(found["shown"]) == 10
    margins = [row["margin"] for row in found["shown"]]
    assert margins == sorted(margins, reverse=True)
    assert {row["by"] for row in found["groups"]} == {"kind", "category", "cluster"}
    assert {row["group"] for row in found["groups"] if row["by"] == "category"} == {"Meadow", "Battle"}
    everything = json.loads(palate("errors", "-p", project, "--all", "--json")[1])["errors"][0]
    assert everything["judged"] > found["judged"]
    shown = palate("errors", "-p", project)[1]
    assert "false yes" in shown
    assert not (project / "golden" / "held-out-reads.jsonl").exists()


def test_a_refinement_is_kept_reported_and_put_into_the_yaml(palate, project):  # noqa: F811
    command = ("refine", "-p", project, "-a", "calm", "--candidates", 2, "--items", 60)
    code, out, _ = palate(*command, "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["final"] != answer["start"]
    (kept,) = [version for version in answer["rounds"][0] if version["fate"] == "kept"]
    assert kept["figures"]["p_holm"] <= 0.05
    assert [version["fate"] for version in answer["rounds"][0]].count("refused") == 1  # both wrote the same
    assert (project / "attributes" / "moods.yaml").read_text() == MOODS  # not without --apply
    assert not (project / "golden" / "held-out-reads.jsonl").exists()  # the loop never reads it
    history = (project / "attributes" / "versions" / "calm.jsonl").read_text()
    calls = len(FilmEngine.asked)
    again = json.loads(palate(*command, "--report", "--apply", "--json")[1])
    assert again["rounds"] and again["rounds"][0][0]["figures"] == answer["rounds"][0][0]["figures"]
    assert (project / "attributes" / "versions" / "calm.jsonl").read_text().startswith(history)
    reads = (project / "golden" / "held-out-reads.jsonl").read_text().splitlines()
    assert len(reads) == 1
    assert "refine --attribute calm --report" in reads[0]
    assert again["held_out"]["difference"] > 0.2
    held_out = again["held_out"]["items"]
    assert len(FilmEngine.asked) == calls + 2 * held_out  # nothing of dev was asked twice
    text = (project / "attributes" / "moods.yaml").read_text()
    assert "# What we ask.\n" in text
    assert yaml.safe_load(text)[0]["question"] == "Is this gentle?"
    back = palate("versions", "-p", project, "-a", "calm", "--use", answer["start"])
    assert back[0] == 0
    assert yaml.safe_load((project / "attributes" / "moods.yaml").read_text())[0]["question"] == "Is this calm?"


def test_proposals_of_people_are_compared(palate, project, tmp_path):  # noqa: F811
    (tmp_path / "mine.yaml").write_text("- {question: 'Is this calm, at ease?', why: a guess}\n- {guidance: Gentle.}\n")
    code, out, _ = palate("refine", "-p", project, "-a", "calm", "--proposals", tmp_path / "mine.yaml")
    assert code == 0
    assert "a guess" in out
    assert "significantly better" in out
    assert "kept" in palate("versions", "-p", project, "-a", "calm")[1]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("refine", "-a", "calmm"), ["no such attribute", "calmm", "calm"]),
        (("errors", "-a", "loud"), ["no such attribute", "loud"]),
        (("errors", "--source", "recorded"), ["no recorded answers"]),
        (("versions", "-a", "calm", "--use", "12345678"), ["no such version", "12345678"]),
        (("refine", "-a", "calm", "--proposals", "absent.yaml"), ["absent.yaml", "could not be read"]),
    ],
)
def test_what_is_wrong_is_named(palate, project, command, words):  # noqa: F811
    code, _, err = palate(*command, "-p", project)
    assert code == 2
    for word in words:
        assert word in err


def test_an_empty_dev_side_is_named(palate, project):  # noqa: F811
    (project / "golden" / "people.csv").write_text("item_id,attribute,rater,label\ni1,calm,a,unsure\n")
    code, _, err = palate("refine", "-p", project, "-a", "calm")
    assert (code, "0 true, 0 untrue" in err) == (2, True)


def test_hostile_words_cannot_style_the_terminal(palate, project, tmp_path):  # noqa: F811
    (tmp_path / "mine.yaml").write_text('- {question: "Is this [red]calm\\u202e[/red]?", why: "\\e[31m"}\n')
    out = palate("refine", "-p", project, "-a", "calm", "--proposals", tmp_path / "mine.yaml")[1]
    assert "\x1b[31m" not in out
    assert "\u202e" not in out
