import json

import pytest

from palate.errors import InputError
from palate.knowledge.attributes import Attribute
from palate.knowledge.golden_set import golden_split, read_golden_set

FUNNY = Attribute(name="funny", question="Is this funny?")
MOOD = Attribute(name="mood", question="How dark is it?", options=("dark", "mixed", "light"))
HEAD = "item_id,attribute,rater,label\n"
IDS = [str(number) for number in range(100)]


def read(folder, text, **more):
    (folder / "g.csv").write_text(text)
    return read_golden_set(folder, IDS, [FUNNY, MOOD], **more)


def rows(golden):
    return {
        **golden.dev.rows_by_key("item_id", named=True),
        **golden.held_out("test").rows_by_key("item_id", named=True),
    }


def test_options_ones_zeros_and_doubt_are_labels(tmp_path):
    golden = read(tmp_path, HEAD + "1,mood,a,mixed\n2,funny,a,1\n3,mood,b,0\n4,funny,b,unsure\n")
    found = {item_id: kept[0]["value"] for item_id, kept in rows(golden).items()}
    assert found == {"1": 0.5, "2": 1.0, "3": 0.0, "4": None}
    assert not golden.skipped


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("1,funy,a,1", ["row 3", "column attribute", "funy", "funny"]),
        ("x9,funny,a,1", ["row 3", "column item_id", "x9"]),
        ("1,mood,a,bleak", ["column label", "bleak", "unsure"]),
        ("1,mood,,dark", ["column rater"]),
    ],
)
def test_rows_that_do_not_fit_are_named_counted_and_left_out(tmp_path, row, words):
    golden = read(tmp_path, HEAD + f"5,funny,a,1\n{row}\n{row}\n")
    (skipped,) = golden.skipped
    for word in ["g.csv", "2 row(s)", *words]:
        assert word in str(skipped)
    assert set(rows(golden)) == {"5"}


def test_a_missing_column_or_no_file_is_an_error(tmp_path):
    with pytest.raises(InputError, match="golden labels"):
        read_golden_set(tmp_path, IDS, [FUNNY])
    with pytest.raises(InputError, match="column rater"):
        read(tmp_path, "item_id,attribute,label\n1,funny,1\n")


def test_the_split_is_drawn_once_and_holds_for_later_labels(tmp_path):
    lines = [f"{item_id},funny,a,1" for item_id in IDS]
    first = read(tmp_path, HEAD + "\n".join(lines[:50]))
    dev = set(first.dev["item_id"])
    assert 10 < len(dev) < 40
    later = read(tmp_path, HEAD + "\n".join(lines), dev_share=0.9)
    assert set(later.dev["item_id"]) & set(IDS[:50]) == dev
    (tmp_path / "split.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        read(tmp_path, HEAD + lines[0])


def test_every_read_of_what_is_held_out_is_recorded(tmp_path):
    golden = read(tmp_path, HEAD + "\n".join(f"{item_id},funny,a,1" for item_id in IDS))
    key = golden.key
    golden.held_out("palate golden")
    golden.held_out("somebody")
    assert [read["reader"] for read in golden.reads()] == ["palate golden", "somebody"]
    lines = (tmp_path / "held-out-reads.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["rows"] == golden.n_locked
    assert golden.key == key
    assert golden_split(tmp_path) == golden.split
