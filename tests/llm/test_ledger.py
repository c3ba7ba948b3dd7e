import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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
    answer = Answer(text, value, shares, "length", 3, 2, 1, 0.25, 0.125, "m", "e")
    request = ask_user("q", purpose="test", entity="7")
    with Ledger(tmp_path_factory.mktemp("ledger") / "ledger.sqlite") as ledger:
        ledger.put("k", request, answer)
        assert ledger.get(["k", "absent"]) == {"k": answer}


def test_the_key_ignores_the_books_but_not_the_question():
    request = Request((Message("user", "q"),), purpose="a", entity="1")
    same = Request((Message("user", "q"),), purpose="b", entity="2")
    assert request.key("m") == same.key("m")
    others = [ask_user("q", temperature=1.0), ask_user("q", options=("Yes", "No")), ask_user("p")]
    assert len({request.key("m"), request.key("n"), *(other.key("m") for other in others)}) == 5


def test_the_first_answer_stays(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    ledger.put("k", ask_user("q"), Answer("first", model="m", engine="e"))
    ledger.put("k", ask_user("q"), Answer("second", model="m", engine="e"))
    assert ledger.get(["k"])["k"].text == "first"


def test_many_keys_and_totals(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    for number in range(3):
        ledger.put(str(number), ask_user("q", purpose="p"), Answer(tokens_in=5, cost=0.5, model="m", engine="e"))
    assert len(ledger.get([str(number) for number in range(2000)])) == 3
    (total,) = ledger.totals()
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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_and_loses_nothing(tmp_path):
    """SQLite's own page limit stands in for a disk that is full."""
    ledger = Ledger(tmp_path / "l.sqlite")
    ledger.put("kept", ask_user("q"), Answer("kept", model="m", engine="e"))
    pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
    ledger._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StorageError, match="ledger"):
        ledger.put("big", ask_user("q"), Answer("x" * 1_000_000, model="m", engine="e"))
    assert ledger.get(["kept", "big"]).keys() == {"kept"}


_WRITER = """
import sys
from palate.llm.ledger import Ledger
from palate.llm.request import Answer, Message, Request
ledger = Ledger(sys.argv[1])
for number in range(100_000):
    ledger.put(f"{sys.argv[2]}-{number}", Request((Message("user", "q"),)), Answer(str(number), model="m", engine="e"))
    print(number, flush=True)
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
    seen = {f"{name}-{line}" for name, w in zip("ab", writers, strict=True) for line in w.communicate()[0].split()}
    with Ledger(path) as ledger:
        kept = ledger.get(seen)
    assert len(seen) >= 30
    assert kept.keys() == seen
    assert all(key.endswith(f"-{answer.text}") for key, answer in kept.items())
