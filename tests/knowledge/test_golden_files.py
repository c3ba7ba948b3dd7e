import json
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.errors import InputError
from palate.knowledge.attributes import Attribute
from palate.knowledge.golden_files import import_labels, label_studio_config, read_labels, to_csv, to_label_studio
from palate.knowledge.rater_labels import Label, RaterLabels

FUNNY = Attribute(name="funny", question="Is this <funny> & dry?")
MOOD = Attribute(name="mood", question="How dark is it?", options=("very dark", "mixed, so so", "light"))
IDS = [f"i{n}" for n in range(6)]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
OPTIONS = {"funny": ["Yes", "No", "1", "0", "unsure"], "mood": [*MOOD.options, "unsure"]}


@st.composite
def labels(draw):
    attribute = draw(st.sampled_from(sorted(OPTIONS)))
    rater = draw(st.sampled_from(["anna", "ben@example.org", "../x", "=1+1", "<b>", "ש"]) | TEXTS.filter(bool))
    said = draw(st.sampled_from(OPTIONS[attribute]))
    more = [draw(st.none() | TEXTS) for _ in range(3)]
    return Label(draw(st.sampled_from(IDS)), attribute, rater, said, *more)


def lists():
    return st.lists(labels(), max_size=12, unique_by=lambda label: (*label.key, label.rater))


def everything(folder, raters):
    return {label for rater in raters for label in RaterLabels(folder, rater).current().values()}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "label-studio"])
@given(said=lists())
@settings(deadline=None, max_examples=30)
def test_out_and_in_again_loses_nothing(form, said):
    with tempfile.TemporaryDirectory() as name:
        folder, file = Path(name) / "golden", Path(name) / "labels"
        text = to_csv(said) if form == "csv" else to_label_studio(said, {"i1": {"title": "One", "item_id": "x"}})
        file.write_text(text, encoding="utf-8", newline="")
        done = import_labels(file, folder, IDS, [FUNNY, MOOD])
        assert (done.new, done.changed, done.same, done.skipped) == (len(said), 0, 0, [])
        assert everything(folder, {label.rater for label in said}) == set(said)
        again = import_labels(file, folder, IDS, [FUNNY, MOOD])
        assert (again.new, again.changed, again.same) == (0, 0, len(said))


def test_rows_that_do_not_fit_are_named_counted_and_left_out(tmp_path):
    rows = ["i1,funny,a,Yes", "i99,funny,a,Yes", "i98,funny,a,No", "i1,fun,a,Yes", "i2,funny,a,Perhaps", "i3,funny,,1"]
    file = tmp_path / "in.csv"
    file.write_text("item_id,attribute,rater,label\n" + "\n".join(rows))
    done = import_labels(file, tmp_path / "golden", IDS, [FUNNY])
    assert (done.new, list(done.raters)) == (1, ["a"])
    said = "\n".join(map(str, done.skipped))
    for words in ("2 row(s)", "row 3", "i99", "1 row(s)", "row 5, column attribute", "fun", "Perhaps", "column rater"):
        assert words in said


def task(item_id="i1", rater=7, choices=("Yes",), **more):
    result = [{"from_name": "funny", "to_name": "t", "type": "choices", "value": {"choices": list(choices)}}]
    result.append({"from_name": "box", "to_name": "t", "type": "rectanglelabels", "value": {"x": 1}})
    return {"data": {"item_id": item_id}, "annotations": [{"completed_by": rater, "result": result, **more}]}


def test_an_export_of_label_studio_is_read(tmp_path):
    file = tmp_path / "export.json"
    person = {"id": 3, "email": "eva@example.org"}
    bad = [{"data": {"text": "?"}}, task(choices=("Yes", "No")), task(was_cancelled=True), task(rater=None), "nonsense"]
    file.write_text(json.dumps([task(updated_at="2026-01-02"), task("i2", person, ("No",)), *bad]))
    found = [each for _, each in read_labels(file)]
    good = [each for each in found if isinstance(each, Label)]
    assert [(each.item_id, each.rater, each.label) for each in good] == [
        ("i1", "7", "Yes"),
        ("i2", "eva@example.org", "No"),
    ]
    assert good[0].at == "2026-01-02"
    done = import_labels(file, tmp_path / "golden", IDS, [FUNNY])
    assert sum(skip.count for skip in done.skipped) == len(bad)


def test_a_changed_label_goes_behind_the_old_one(tmp_path):
    RaterLabels(tmp_path, "a").add([Label("i1", "funny", "a", "Yes")])
    file = tmp_path / "in.txt"
    file.write_text("item_id,attribute,rater,label\ni1,funny,a,No\ni2,funny,a,No\n")
    done = import_labels(file, tmp_path, IDS, [FUNNY])
    assert (done.new, done.changed) == (1, 1)
    assert RaterLabels(tmp_path, "a").current()["i1", "funny"].label == "No"


def test_half_a_character_is_left_out(tmp_path):
    file = tmp_path / "in.json"
    said = task()
    said["annotations"][0]["result"][0]["meta"] = {"text": ["\ud800"]}
    file.write_text(json.dumps([said, task("i2")]))
    done = import_labels(file, tmp_path / "golden", IDS, [FUNNY])
    assert (done.new, [skip.what for skip in done.skipped]) == (1, ["not a text"])


@pytest.mark.parametrize(("text", "words"), [("[{]", "JSON"), ("a,b\n1,2\n", "column is missing"), ("\xff", "UTF-8")])
def test_a_file_of_neither_kind_is_an_error(tmp_path, text, words):
    file = tmp_path / "in"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=words):
        list(read_labels(file))


def test_the_interface_for_label_studio_names_every_attribute():
    tree = ElementTree.fromstring(label_studio_config([FUNNY, MOOD]))
    assert [each.get("name") for each in tree.iter("Choices")] == ["funny", "mood"]
    assert [each.get("value") for each in tree.iter("Choice")][:3] == ["Yes", "No", "unsure"]
