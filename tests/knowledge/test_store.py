import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.errors import InputError, StorageError
from palate.knowledge.controls import noise, permuted
from palate.knowledge.matrix import filled, label_matrix
from palate.knowledge.recorded import read_recorded, read_rows
from palate.knowledge.store import KnowledgeStore, in_schema
from palate.knowledge.tables import Knowledge

ROWS = st.lists(
    st.tuples(st.text(st.characters(codec="utf-8"), min_size=1, max_size=4), st.floats(0, 1, width=32)), max_size=6
)


def table(rows, model="m"):
    frame = pl.DataFrame(rows, schema={"entity": pl.String, "value": pl.Float32}, orient="row")
    return in_schema("label", frame.with_columns(name=pl.lit("funny"), model=pl.lit(model)))


@given(first=ROWS, second=ROWS)
@settings(max_examples=25, deadline=None)
def test_parts_are_added_and_never_changed(tmp_path_factory, first, second):
    store = KnowledgeStore(tmp_path_factory.mktemp("knowledge"))
    one = store.add("label", table(first))
    before = one.read_bytes()
    store.add("label", table(second))
    store.add("label", table(first))
    assert one.read_bytes() == before
    found = store.load().table("label").rows()
    assert all(row in found for row in table(first).rows() + table(second).rows())
    assert len(found) == len(first) + (len(second) if second != first else 0)


def test_rows_that_do_not_fit_are_refused(tmp_path):
    store = KnowledgeStore(tmp_path)
    with pytest.raises(InputError, match="kind"):
        store.add("opinion", table([]))
    with pytest.raises(InputError, match="column"):
        store.add("label", pl.DataFrame({"entity": ["1"], "colour": ["red"]}))
    with pytest.raises(InputError, match="wrong type"):
        store.add("label", pl.DataFrame({"entity": ["1"], "value": ["high"]}))
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_damaged_part_is_named(tmp_path):
    store = KnowledgeStore(tmp_path)
    part = store.add("label", table([("1", 0.5)]))
    part.write_bytes(part.read_bytes()[:20])
    with pytest.raises(StorageError) as caught:
        store.load()
    assert part.name in str(caught.value)


def test_a_part_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "label").write_text("a file where the folder should be")
    with pytest.raises((StorageError, OSError)):
        KnowledgeStore(tmp_path).add("label", table([("1", 0.5)]))
    assert not list(tmp_path.rglob("*.tmp"))


def test_newer_labels_win_and_gaps_are_filled():
    labels = pl.concat([table([("1", 0.1), ("2", 0.2)]), table([("1", 0.9)])])
    matrix = label_matrix(labels, ["1", "2", "3"], ["funny"])
    assert matrix[:2, 0].tolist() == pytest.approx([0.9, 0.2])
    assert filled(matrix, matrix * 0 + 0.5, matrix * 0)[2, 0] != matrix[2, 0]


def test_controls_keep_the_shape_and_lose_the_meaning():
    rows = [(str(n), n / 100) for n in range(100)]
    knowledge = Knowledge({"label": table(rows)})
    for control in (noise, permuted):
        changed = control(knowledge, 3).table("label")
        assert changed.height == 100
        assert changed["entity"].n_unique() == 100
        joined = knowledge.table("label").join(changed, on="entity")
        assert abs(joined.select(pl.corr("value", "value_right")).item()) < 0.4
        assert control(knowledge, 3).table("label").equals(changed)
    assert sorted(permuted(knowledge, 1).table("label")["value"]) == sorted(knowledge.table("label")["value"])


def test_recorded_answers_keep_their_provenance(tmp_path):
    (tmp_path / "README.md").write_text("prompts")
    (tmp_path / "items.jsonl").write_text(
        '{"item_id": "1", "scores": {"funny": 9, "sad": 0}, "tags": ["a"], "facts": "f"}\n'
    )
    (tmp_path / "users.jsonl").write_text('{"user_id": "u", "profile": "likes", "as_of": 10}\n')
    tables = read_recorded(tmp_path, "big-model")
    assert tables["label"]["value"].to_list() == [1, 0]
    assert tables["profile"]["as_of"][0].timestamp() == 10
    assert {*tables} == {"label", "tag", "fact", "profile"}
    assert all(table["model"].to_list() == ["big-model"] * table.height for table in tables.values())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"item_id": "1", "scores": {"funny": 12}}', ["line 2", "scores.funny", "12"]),
        ('{"item_id": 1, "scores": {}}', ["item_id"]),
        ("{broken", ["line 2", "not JSON"]),
    ],
)
def test_a_recorded_row_that_does_not_fit_is_named(tmp_path, line, words):
    (tmp_path / "items.jsonl").write_text('{"item_id": "1", "scores": {}}\n' + line + "\n")
    (tmp_path / "users.jsonl").write_text("")
    with pytest.raises(InputError) as caught:
        read_recorded(tmp_path, "m")
    for word in words:
        assert word in str(caught.value)


def test_rows_about_unknown_entities_are_refused(tmp_path):
    path = tmp_path / "k.jsonl"
    path.write_text('{"kind": "tag", "entity": "1", "model": "m", "text": "calm"}\n')
    assert read_rows(path, {"1"})["tag"]["text"].to_list() == ["calm"]
    with pytest.raises(InputError, match="does not fit"):
        read_rows(path, {"2"})
