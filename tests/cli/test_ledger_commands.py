"""`palate llm ledger`: check, copy and prune the kept answers."""

import json
import sqlite3

import polars as pl
import pytest

from palate.llm.ledger import Ledger
from palate.llm.request import Answer, Message, Request


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def ledger(tmp_path):
    """Three answers of one model, two of another, a failure."""
    path = tmp_path / ".palate" / "ledger.sqlite"
    with Ledger(path) as kept:
        for i in range(5):
            model = "one" if i < 3 else "two"
            kept.put(
                Request((Message("user", f"question {i}"),), purpose="p"), Answer(f"answer {i}", model=model), model
            )
        kept.put(Request((Message("user", "lost"),)), Answer(error="HTTP 500", model="one"), "one")
    return path


def count(path):
    with Ledger(path) as kept:
        return kept.count()


def test_a_good_ledger_is_well(palate, ledger):
    code, out, _ = palate("llm", "ledger", "verify")
    assert (code, out) == (0, ".palate/ledger.sqlite: all is well\n")
    assert palate("ledger", "verify", "--ledger", ledger, "--json")[1] == "[]\n"  # the short way


def test_a_damaged_answer_is_found(palate, ledger):
    db = sqlite3.connect(ledger)
    db.execute("UPDATE answers SET answer='[red]{' WHERE id=2")
    db.commit()
    db.close()
    code, out, _ = palate("llm", "ledger", "verify")
    assert code == 1
    assert "damaged" in out
    (finding,) = json.loads(palate("llm", "ledger", "verify", "--json")[1])
    assert (finding["kind"], finding["count"]) == ("damaged", 1)


def test_answers_are_copied_to_parquet(palate, ledger, tmp_path):
    code, out, _ = palate("llm", "ledger", "export", "-o", "all.parquet", "--json")
    assert (code, json.loads(out)["answers"]) == (0, 5)
    assert sorted(pl.read_parquet(tmp_path / "all.parquet")["text"]) == [f"answer {i}" for i in range(5)]


def test_pruning_says_first_and_does_then(palate, ledger):
    assert json.loads(palate("llm", "ledger", "prune", "--model", "two", "--json")[1]) == {"would_drop": 2}
    assert count(ledger) == 5
    assert json.loads(palate("llm", "ledger", "prune", "--model", "two", "--yes", "--json")[1]) == {"dropped": 2}
    assert count(ledger) == 3
    assert json.loads(palate("llm", "ledger", "prune", "--older-than", "1", "--json")[1]) == {"would_drop": 0}
    assert json.loads(palate("llm", "ledger", "prune", "--purpose", "p", "--json")[1]) == {"would_drop": 3}
    assert json.loads(palate("llm", "ledger", "prune", "--failures", "--yes", "--json")[1]) == {"dropped": 1}
    assert count(ledger) == 3


def test_pruning_everything_must_be_said(palate, ledger):
    code, _, err = palate("llm", "ledger", "prune", "--yes")
    assert code == 2
    assert "--older-than" in err
    assert count(ledger) == 5


@pytest.mark.parametrize("command", [["verify"], ["export", "-o", "x.parquet"], ["prune", "--failures"]])
def test_where_no_ledger_is_none_is_made(palate, tmp_path, command):
    code, _, err = palate("llm", "ledger", *command)
    assert code == 2
    assert "no ledger" in err
    assert not list(tmp_path.iterdir())


def test_what_is_no_ledger_is_named(palate, tmp_path):
    (tmp_path / "text").write_text("text" * 1000)
    code, _, err = palate("llm", "ledger", "verify", "--ledger", "text")
    assert code == 2
    assert "could not be read" in err
    assert "Traceback" not in err
