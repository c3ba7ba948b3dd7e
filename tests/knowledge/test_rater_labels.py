import threading

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.errors import InputError, StorageError
from palate.knowledge.attributes import Attribute
from palate.knowledge.golden_set import read_golden_set
from palate.knowledge.rater_labels import ConflictError, Label, RaterLabels, file_stem, rater_name

FUNNY = Attribute(name="funny", question="Is this funny?")


def said(item, label="Yes", rater="anna", comment=None):
    return Label(item, "funny", rater, label, comment)


def test_labels_are_read_back_as_golden_labels(tmp_path):
    mine = RaterLabels(tmp_path, "anna")
    mine.say(said("1"), None)
    mine.say(said("2", "unsure", comment='a "quoted",\nbroken line'), None)
    golden = read_golden_set(tmp_path, ["1", "2"], [FUNNY])
    rows = pl.concat([golden.dev, golden.held_out("test")]).sort("item_id")
    assert rows.select("rater", "value", "comment").rows() == [
        ("anna", 1.0, None),
        ("anna", None, 'a "quoted",\nbroken line'),
    ]


def test_a_label_said_again_holds_and_undo_brings_the_old_one_back(tmp_path):
    mine = RaterLabels(tmp_path, "anna")
    mine.say(said("1", "Yes"), None)
    mine.say(said("1", "No"), ("Yes", None))
    assert mine.current()["1", "funny"].label == "No"
    undone, holds = mine.undo()
    assert (undone.label, holds.label) == ("No", "Yes")
    assert mine.undo()[1] is None
    assert mine.undo() is None


def test_another_window_is_not_overwritten_unseen(tmp_path):
    one, other = RaterLabels(tmp_path, "anna"), RaterLabels(tmp_path, "anna")
    one.say(said("1", "Yes"), None)
    with pytest.raises(ConflictError) as caught:
        other.say(said("1", "No"), None)
    assert caught.value.now.label == "Yes"
    assert one.current()["1", "funny"].label == "Yes"
    other.say(said("1", "No"), ("Yes", None))


def test_raters_and_windows_at_once_lose_nothing(tmp_path):
    def work(rater, start):
        for number in range(start, start + 25):
            RaterLabels(tmp_path, rater).say(said(str(number), rater=rater), None)

    jobs = [("anna", 0), ("anna", 100), ("ben", 0), ("ben", 100)]
    threads = [threading.Thread(target=work, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(RaterLabels(tmp_path, rater).current()) for rater in ("anna", "ben")] == [50, 50]
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["anna.csv", "ben.csv"]


def test_rows_and_columns_put_there_by_hand_stay(tmp_path):
    (tmp_path / "anna.csv").write_text("item_id,attribute,rater,label,mood\n1,funny,ben,1,glad\n2,funny,anna,0,sad\n")
    mine = RaterLabels(tmp_path, "anna")
    mine.say(said("3"), None)
    mine.undo()
    table = pl.read_csv(tmp_path / "anna.csv", infer_schema=False)
    assert table.select("item_id", "rater", "mood").rows() == [("1", "ben", "glad"), ("2", "anna", "sad")]


def test_a_full_disk_leaves_the_old_file_whole(tmp_path, monkeypatch):
    mine = RaterLabels(tmp_path, "anna")
    mine.say(said("1"), None)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("palate.data.whole_file.os.fsync", full)
    with pytest.raises(StorageError, match="could not be written"):
        mine.say(said("2"), None)
    monkeypatch.undo()
    assert set(mine.current()) == {("1", "funny")}
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_file_that_is_no_csv_is_named(tmp_path):
    (tmp_path / "anna.csv").write_text("item_id,funny\n1,1\n")
    with pytest.raises(InputError, match=r"anna\.csv, column attribute"):
        RaterLabels(tmp_path, "anna").say(said("1"), None)


@given(st.text(min_size=1), st.text(min_size=1))
def test_no_name_leads_out_of_the_folder_and_no_two_share_a_file(first, second):
    first, second = (name.encode(errors="ignore").decode() or "x" for name in (first, second))
    stem = file_stem(first)
    assert stem.isascii()
    assert stem.replace("-", "").isalnum()
    assert len(stem) < 60
    if first != second:
        assert stem.lower() != file_stem(second).lower()


@pytest.mark.parametrize("name", ["", "   ", "a\x00b", "\u202eevil", "x" * 61])
def test_names_that_cannot_be_shown_are_refused(name):
    with pytest.raises(InputError, match="rater's name"):
        rater_name(name)
    assert rater_name("  Änne   o'Hara ") == "Änne o'Hara"
