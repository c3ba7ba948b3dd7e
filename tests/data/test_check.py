"""Each broken file: what is found, where, how often, how to mend it; and that nothing is half read."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from palate.data.check import check_files, check_tables
from palate.data.readers import read_dataset
from palate.errors import InputError

ITEMS = "item_id,title\n1,A\n2,B\n"
HEAD = "user_id,item_id,timestamp,value\n"
GOOD = HEAD + "u,1,1589716801,1\nu,2,1589716802,2\n"
E, W = "error", "warning"

# file, its content, level, words of `what`, row, line, column, count, words of the remedy
BROKEN = [
    ("e.csv", "usr,item_id,timestamp\nu,1,1\n", E, "`user_id` is missing", None, None, "user_id", 1, "mean `usr`"),
    ("e.csv", "user_id,item_id,when\nu,1,1\n", E, "`timestamp` is missing", None, None, "timestamp", 1, "understood"),
    ("e.csv", GOOD + "u,1\nu,1,2,3,4\n", E, "a row has 2 fields where the header has 4", 3, 4, None, 2, "quotes"),
    ("e.csv", GOOD + 'u,"1,1589716801,1\n', E, "a row cannot be parsed", 3, 4, None, 1, "double quotes"),
    ("e.csv", GOOD + 'u,"1"2,1589716801,1\n', E, "a row cannot be parsed", 3, 4, None, 1, "double quotes"),
    ("e.csv", GOOD + ",1,1589716803,1\n,2,1589716803,1\n", E, "an id is missing", 3, 4, "user_id", 2, "remove the row"),
    ("e.csv", GOOD + "u,9,1589716803,1\nu,8,1589716804,1\n", E, "(2 such items): 9", 3, 4, "item_id", 2, "the items"),
    ("e.csv", GOOD + "u,1,,1\n", E, "a time is missing", 3, 4, "timestamp", 1, "fill it in"),
    ("e.csv", GOOD + "u,1,soon,1\n", E, "cannot be understood: soon", 3, 4, "timestamp", 1, "ISO 8601"),
    ("e.csv", GOOD + "u,1,1589716803,five\n", E, "not a number: five", 3, 4, "value", 1, "mend the values"),
    ("e.csv", GOOD + "u,1,1589716803,inf\n", E, "infinite", 3, 4, "value", 1, "leave it empty"),
    ("e.csv", GOOD + "u,1,1589716803,nan\n", W, "NaN", 3, 4, "value", 1, "leave missing values empty"),
    ("e.csv", GOOD + "u,1,1700000000,1\n", W, "lies in the future: 2023", 3, 4, "timestamp", 1, "clock"),
    ("e.csv", GOOD + "u,1,1589716700,1\n", W, "not in the order of time", 3, 4, "timestamp", 1, "sort by user"),
    ("e.csv", GOOD + "u,2,1589716802,2\n", W, "an event occurs again", 3, 4, "item_id", 1, "remove the copies"),
    ("e.csv", "tone," + GOOD.replace("\nu", "\n1,u") + "nan,u,1,1589716803,1\n", W, "NaN", 3, 4, "tone", 1, "empty"),
    ("e.csv", HEAD + "u,1,0,1\nu,2,1,1\n", W, "positions in a sequence", None, None, "timestamp", 1, "real times"),
    ("e.csv", HEAD + "None,1,1589716801,1\n", W, "looks like a mistake: None", 1, 2, "user_id", 1, "letter by letter"),
    ("e.csv", "", E, "no rows", None, None, None, 1, "export it again"),
    ("e.csv", HEAD, E, "no rows", None, None, None, 1, "export it again"),
    ("e.csv", "user_id,item_id,item_id,timestamp\nu,1,1,1\n", E, "a column twice", None, 1, "item_id", 1, "rename it"),
    ("e.csv", "user_id,item_id,timestamp\nü,1,1\n".encode("latin-1"), E, "byte 0xfc", None, 2, None, 1, "Latin"),
    ("e.csv", GOOD.encode("utf-16"), E, "not UTF-8", None, 1, None, 1, "UTF-16"),
    ("e.csv.gz", gzip.compress(GOOD.encode())[:-9], E, "damaged or cut short", None, None, None, 1, "again"),
    ("e.csv.gz", b"not gzip", E, "damaged or cut short", None, None, None, 1, "again"),
    ("e.parquet", b"PAR1 and nothing", E, "not Parquet or is damaged", None, None, None, 1, "again"),
    ("e.xlsx", "x", E, "format .xlsx is not known", None, None, None, 1, ".parquet"),
    ("e.inter", "user_id\titem_id:token\nu\t1\n", E, "name:type", None, 1, "user_id", 1, "token_seq"),
    ("e.jsonl", '{"user_id": 1}\n{"user_id"\n', E, "is not JSON", None, 2, None, 1, "one JSON object"),
    ("e.jsonl", "[1]\n", E, "not an object", None, 1, None, 1, "one JSON object"),
    ("i.csv", "item_id,title\n1,A\n2,B\n2,C\n1,D\n", E, "occurs again: 2", 3, 4, "item_id", 2, "one row for each id"),
    ("i.csv", "item_id,title,text\n1,A,\n2,B,\n3,,\n", E, "neither title nor text: 3", 3, 4, "text", 1, "give it"),
    ("i.csv", "item_id\n1\n2\n", W, "no item has a title or a text", None, None, "text", 1, "if you have one"),
    ("i.jsonl", '{"item_id": 1, "title": "A"}\n{"item_id": 2, "title": 5}\n', W, "mixes", 2, 2, "title", 1, "one type"),
    ("i.csv", "item_id,title,price\n" + "".join(f"{i},A,{i}\n" for i in range(1, 20)) + "20,B,cheap\n", W,
     "mixes types and is read as text, first: cheap", 20, 21, "price", 1, "one type"),
    ("u.csv", "user_id\nu\nu\n", E, "occurs again: u", 2, 3, "user_id", 1, "one row"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "level", "what", "row", "line", "column", "count", "remedy"),
    BROKEN,
    ids=[f"{i}-{case[0]}" for i, case in enumerate(BROKEN)],
)
def test_what_is_wrong(tmp_path, name, content, level, what, row, line, column, count, remedy):
    paths = {"i": tmp_path / "items.csv", "e": tmp_path / "events.csv", "u": None}
    paths["i"].write_text(ITEMS)
    paths["e"].write_text(GOOD)
    paths[name[0]] = tmp_path / name
    paths[name[0]].write_bytes(content if isinstance(content, bytes) else content.encode())
    report = check_files(paths["i"], paths["e"], paths["u"], now=datetime(2021, 1, 1, tzinfo=UTC))
    (found,) = [f for f in report.findings if what in f.what]
    assert (found.level, found.file, found.row, found.line) == (level, name, row, line)
    assert (found.column, found.count) == (column, count) and remedy in found.remedy
    assert all(part in str(found) for part in (name, level))
    if level == E:
        with pytest.raises(InputError) as caught:
            read_dataset(paths["i"], paths["e"], paths["u"])
        assert caught.value.exit_code == 2 and len(str(caught.value).splitlines()) < 20
        assert name in str(caught.value) and caught.value.hint


def test_a_missing_file_suggests_its_neighbour(tmp_path):
    (tmp_path / "items.csv").write_text(ITEMS)
    (tmp_path / "events.csv").write_text(GOOD)
    report = check_files(tmp_path / "itmes.csv", tmp_path / "events.csv")
    assert "did you mean `items.csv`" in report.errors[0].remedy


def test_many_errors_fit_one_screen_and_say_how_many(tmp_path):
    (tmp_path / "i.csv").write_text("item_id,title\n1,A\n1,B\n,C\n2,\n")
    (tmp_path / "e.csv").write_text(GOOD + ",9,soon,x\nu,1,,\n")
    with pytest.raises(InputError) as caught:
        read_dataset(tmp_path / "i.csv", tmp_path / "e.csv")
    message = str(caught.value)
    assert message.startswith("The data has 8 errors, so nothing was read") and len(message.splitlines()) < 20


def test_values_cannot_forge_the_screen(tmp_path):
    (tmp_path / "i.csv").write_text(ITEMS)
    (tmp_path / "e.csv").write_text(GOOD + 'u,1,"so\x1b[2J\non",1\n')
    with pytest.raises(InputError) as caught:
        read_dataset(tmp_path / "i.csv", tmp_path / "e.csv")
    assert "\x1b" not in str(caught.value) and "so\\x1b[2J\\x0aon" in str(caught.value)


def test_tables_in_memory():
    items = pl.DataFrame({"item_id": ["a", "b"], "title": ["A", "B"]})
    events = pl.DataFrame({"user_id": ["u"], "item_id": ["c"], "timestamp": [1589716801]})
    report = check_tables(items, events, pl.DataFrame({"user_id": ["u", None]}))
    assert not report.ok
    assert {(f.file, f.column) for f in report.errors} == {("events", "item_id"), ("users", "user_id")}
    assert check_tables(items, events.with_columns(item_id=pl.lit("a"))).as_dicts() == []
    assert not check_tables(items.clear(), events).ok


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.integers(0, len(GOOD)),
    junk=st.one_of(st.binary(max_size=6), st.sampled_from([b'"', b",", b"\n", b"\xff", b"\x00", b"\r"])),
    suffix=st.sampled_from(["csv", "tsv", "jsonl", "parquet", "inter", "csv.gz"]),
)
@example(cut=37, junk=b"E", suffix="csv")  # a time of 1E589716801
def test_any_damage_is_an_input_error_or_a_whole_table(tmp_path: Path, cut: int, junk: bytes, suffix: str):
    """Bytes changed anywhere: either every row comes out, or one InputError; never another exception."""
    data = GOOD.replace(",", "\t" if suffix in ("tsv", "inter") else ",").encode()
    (tmp_path / "i.csv").write_text(ITEMS)
    path = tmp_path / f"e.{suffix}"
    path.write_bytes(data[:cut] + junk + data[cut:])
    check_files(tmp_path / "i.csv", path)
    try:
        got = read_dataset(tmp_path / "i.csv", path)
    except InputError as error:
        assert error.exit_code == 2
    else:
        assert got.events.height >= 2
