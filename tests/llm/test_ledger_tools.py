import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from palate.errors import InputError, StorageError
from palate.llm.ledger import Entry, Ledger
from palate.llm.ledger_tools import export, merge, prune, verify
from palate.llm.request import Answer
from palate.testing import ask_user

SCHEMA = {"type": "object", "required": ["a"]}


def fill(path, numbers, model="m", purpose="p"):
    with Ledger(path) as ledger:
        for number in numbers:
            request = ask_user(f"question {number}", purpose=purpose, entity=str(number), schema=SCHEMA)
            answer = Answer(f'{{"a":{number}}}', {"a": number}, tokens_in=5, cost=0.5, model=model, engine="e")
            ledger.put(request, answer, model)


@pytest.fixture
def path(tmp_path):
    fill(tmp_path / "l.sqlite", range(6))
    return tmp_path / "l.sqlite"


def edit(path, sql):
    with closing(sqlite3.connect(path)) as db:
        db.execute(sql)
        db.commit()


def test_a_good_ledger_has_no_findings(path):
    assert verify(path) == []


@pytest.mark.parametrize(
    ("sql", "kind", "what"),
    [
        ("UPDATE answers SET request=x'00ff' WHERE id=2", "damaged", "cannot be read"),
        ("UPDATE answers SET key=zeroblob(16) WHERE id=2", "damaged", "hash"),
        ("""UPDATE answers SET answer='{"t":"","v":[{"b":1}]}' WHERE id=2""", "drift", "schema it was asked with"),
        ("DELETE FROM names WHERE name='p'", "orphan", "not there"),
        ("ALTER TABLE failures ADD COLUMN more", "drift", "other columns"),
        ("PRAGMA user_version=1", "drift", "another version"),
        ("INSERT INTO claims VALUES (zeroblob(16), 'o', 'r', 1, 1, 1)", "note", "claimed"),
        ("INSERT INTO failures SELECT NULL, key, model, purpose, '', 'x', 1 FROM answers", "note", "answered later"),
        ("DELETE FROM answers", "orphan", "template"),
    ],
)
def test_what_is_wrong_is_found(path, sql, kind, what):
    edit(path, sql)
    assert any(finding.kind == kind and what in finding.what and finding.hint for finding in verify(path))


def test_an_export_holds_everything(path, tmp_path):
    assert export(path, tmp_path / "out.parquet") == 6
    table = pl.read_parquet(tmp_path / "out.parquet")
    assert table["entity"].to_list() == list("012345")
    assert [json.loads(value) for value in table["value"]] == [{"a": number} for number in range(6)]
    assert json.loads(table["request"][3])["messages"] == [["user", "question 3"]]
    assert table["cost"].sum() == 3.0
    assert table["key"][0] == ask_user("question 0", schema=SCHEMA).key("m")


def test_a_failed_export_leaves_nothing(path, tmp_path):
    edit(path, "UPDATE answers SET model=model")
    (tmp_path / "taken").mkdir()
    with pytest.raises(StorageError, match="could not be written"):
        export(path, tmp_path / "taken")
    assert not list(tmp_path.glob(".partial*"))


def test_pruning_keeps_the_books(path):
    fill(path, range(6, 9), purpose="other")
    old = datetime.now(UTC) - timedelta(days=1)
    assert prune(path, before=old, dry_run=False) == 0
    assert prune(path, purpose="other") == 3
    assert prune(path, purpose="other", dry_run=False) == 3
    assert prune(path, model="unknown", dry_run=False) == 0
    with Ledger(path) as ledger:
        assert ledger.count() == 6
        assert sum(row["cost"] for row in ledger.totals()) == 4.5


def test_merging_twice_is_merging_once(path, tmp_path):
    other = tmp_path / "segment.sqlite"
    fill(other, range(4, 10))
    with Ledger(other) as ledger:
        request = ask_user("broken", purpose="p")
        ledger.keep([Entry.of(request, Answer(error="no", model="m", engine="e"), "m")])
    assert [merge(path, other), merge(path, other)] == [4, 0]
    assert verify(path) == []
    with Ledger(path) as ledger:
        keys = [ask_user(f"question {number}", schema=SCHEMA).key("m") for number in range(10)]
        assert [answer.value["a"] for answer in map(ledger.get(keys).get, keys)] == list(range(10))
        assert sum(row["calls"] for row in ledger.totals()) == 10
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT COUNT(*) FROM failures").fetchone() == (1,)


def test_no_ledger_here(tmp_path):
    for work in (verify, prune):
        with pytest.raises(InputError, match="no ledger"):
            work(tmp_path / "absent.sqlite")
    assert not (tmp_path / "absent.sqlite").exists()
