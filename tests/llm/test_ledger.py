import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.errors import StorageError
from palate.llm.ledger import Ledger
from palate.llm.request import Answer, Message, Request
from palate.testing import ask_user


@given(
    text=st.text(st.characters(codec="utf-8"), max_size=50),
    value=st.none() | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), st.integers(), max_size=3),
    shares=st.none() | st.lists(st.floats(0, 1), min_size=2, max_size=4).map(tuple),
)
@settings(max_examples=30, deadline=None)
def test_what_goes_in_comes_out(tmp_path_factory, text, value, shares):
    counts = {"tokens_in": 3, "tokens_cached": 2, "tokens_out": 1, "seconds": 0.25, "cost": 0.125}
    told = {"finish_reason": "length", "method": "exact", "attempts": 2, "logprobs": ((("a", -0.5), ("b", -1.0)),)}
    answer = Answer(text, value, shares, **counts, **told, model="m", engine="e")
    request = ask_user("q", purpose="test", entity="7")
    with Ledger(tmp_path_factory.mktemp("ledger") / "ledger.sqlite") as ledger:
        ledger.put(request, answer, "m")
        assert ledger.get([request.key("m"), "00" * 16]) == {request.key("m"): answer}


def test_the_key_ignores_the_books_but_not_the_question():
    request = Request((Message("user", "q"),), purpose="a", entity="1")
    same = Request((Message("user", "q"),), purpose="b", entity="2")
    assert request.key("m") == same.key("m")
    others = [ask_user("q", temperature=1.0), ask_user("q", options=("Yes", "No")), ask_user("p")]
    assert len({request.key("m"), request.key("n"), *(other.key("m") for other in others)}) == 5


def test_the_first_answer_stays(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    request = ask_user("q")
    ledger.put(request, Answer("first", model="m", engine="e"), "m")
    ledger.put(request, Answer("second", model="m", engine="e"), "m")
    assert ledger.get([request.key("m")])[request.key("m")].text == "first"


def test_many_keys_and_totals(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    requests = [ask_user(f"q{number}", purpose="p") for number in range(2000)]
    for request in requests[:3]:
        ledger.put(request, Answer(tokens_in=5, cost=0.5, model="m", engine="e"), "m")
    assert len(ledger.get([request.key("m") for request in requests])) == 3
    (total,) = ledger.totals()
    assert [row["day"] for row in ledger.totals(by_day=True)] == [datetime.now(UTC).date().isoformat()]
    assert (total["purpose"], total["calls"], total["tokens_in"], total["cost"]) == ("p", 3, 15, 1.5)


def test_vectors_are_kept(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    ledger.put_vectors({"a": np.arange(3, dtype=np.float32)})
    np.testing.assert_array_equal(ledger.get_vectors(["a", "b"])["a"], [0, 1, 2])


def test_a_file_that_is_no_ledger_is_named(tmp_path):
    path = tmp_path / "ledger.sqlite"
    path.write_text("this is not a database, but it is long enough to look like one" * 20)
    with pytest.raises(StorageError) as caught:
        Ledger(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_full_disk_is_said_and_loses_nothing(tmp_path):
    """SQLite's own page limit stands in for a disk that is full."""
    ledger = Ledger(tmp_path / "l.sqlite")
    kept, big = ask_user("kept"), ask_user("big")
    ledger.put(kept, Answer("kept", model="m", engine="e"), "m")
    pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
    ledger._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StorageError, match="ledger"):
        ledger.put(big, Answer("x" * 1_000_000, model="m", engine="e"), "m")
    assert ledger.get([kept.key("m"), big.key("m")]).keys() == {kept.key("m")}


_WRITER = """
import sys
from palate.llm.ledger import Ledger
from palate.llm.request import Answer, Message, Request
ledger = Ledger(sys.argv[1])
for number in range(100_000):
    request = Request((Message("user", f"{sys.argv[2]} {number}"),))
    ledger.put(request, Answer(str(number), model="m", engine="e"), "m")
    print(request.key("m"), number, flush=True)
"""


def test_kill_9_loses_no_answer_that_was_seen(tmp_path):
    """Two processes write at once and are killed; all they reported as kept is there."""
    path = tmp_path / "l.sqlite"
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(path), name], stdout=subprocess.PIPE, text=True)
        for name in "ab"
    ]
    deadline = time.monotonic() + 30
    with Ledger(path) as ledger:
        while ledger.count() < 40 and time.monotonic() < deadline:
            time.sleep(0.02)
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
    lines = [line.split() for writer in writers for line in writer.communicate()[0].splitlines()]
    seen = {line[0]: line[1] for line in lines if len(line) == 2}  # the last line may be cut
    with Ledger(path) as ledger:
        kept = ledger.get(seen)
    assert len(seen) >= 30
    assert {key: answer.text for key, answer in kept.items()} == seen


_VERSION_1 = """
CREATE TABLE answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, engine TEXT NOT NULL, purpose TEXT NOT NULL,
    entity TEXT NOT NULL, request TEXT NOT NULL, text TEXT NOT NULL, value TEXT, probabilities TEXT,
    finish_reason TEXT NOT NULL, tokens_in INTEGER NOT NULL, tokens_cached INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL, seconds REAL NOT NULL, cost REAL NOT NULL, created REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE failures (
    key TEXT NOT NULL, model TEXT NOT NULL, purpose TEXT NOT NULL, entity TEXT NOT NULL,
    error TEXT NOT NULL, created REAL NOT NULL
);
CREATE TABLE vectors (key TEXT PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID;
"""


def test_answers_of_the_first_version_stay(tmp_path):
    path, request = tmp_path / "l.sqlite", ask_user("q", options=("Yes", "No"))
    key = request.key("m")
    with closing(sqlite3.connect(path)) as old:
        old.executescript(_VERSION_1)
        row = (key, "m", "e", "p", "7", '[["user","q"]]', "Yes", None, "[0.75, 0.25]", "stop", 9, 4, 1, 0.5, 0.001, 1e9)
        old.execute(f"INSERT INTO answers VALUES ({','.join('?' * len(row))})", row)
        old.execute("INSERT INTO failures VALUES (?,?,?,?,?,?)", (key, "m", "p", "7", "broken", 1e9))
        old.commit()
    for _ in range(2):
        with Ledger(path) as ledger:
            answer = ledger.get([key])[key]
            (total,) = ledger.totals(by_day=True)
        assert (answer.text, answer.probabilities, answer.cost) == ("Yes", (0.75, 0.25), 0.001)
        assert (total["day"], total["calls"], total["tokens_in"]) == ("2001-09-09", 1, 9)


def test_a_ledger_of_a_later_version_is_left_alone(tmp_path):
    with closing(sqlite3.connect(tmp_path / "l.sqlite")) as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(StorageError, match="read or written") as caught:
        Ledger(tmp_path / "l.sqlite")
    assert "newer Palate" in str(caught.value)
