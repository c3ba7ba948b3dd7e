"""Batch files: every line is read, asked and written as it should be, or named with its field."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from batch_samples import EchoBodies, line, read, write

from palate.errors import InputError
from palate.llm.batch_files import BatchFile
from palate.llm.batch_lines import BadLine, Line, count_lines, read_lines
from palate.llm.ledger import Ledger
from palate.llm.runner import Runner

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def ask(source: Path, out: Path, ledger: Path, engine: EchoBodies, **settings: object) -> BatchFile:
    """As `palate llm run` does it."""
    with Ledger(ledger) as kept:
        batch = BatchFile(source, out, engine.model, **settings)
        try:
            runner = Runner(engine, kept, ordered=batch.ordered, window=batch.window)
            for outcome in runner.run(batch.requests(), batch.lines):
                batch.write(outcome)
            assert batch.complete
            batch.finish()
        finally:
            batch.close()
    return batch


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (b"not json", "line"),
        (b"[1]", "line"),
        (b'{"custom_id": "b", "body": {"messages": [], "x": NaN}}', "line"),
        (b'{"custom_id": "\xff"}', "line"),
        (b"[" * 5000, "line"),
        ({"body": {}}, "custom_id"),
        (line(7), "custom_id"),
        (line(""), "custom_id"),
        (line("\ud800"), "custom_id"),
        (line("a"), "custom_id"),
        ({"custom_id": "b"}, "body"),
        ({**line("b"), "method": "GET"}, "method"),
        ({**line("b"), "url": "/v1/embeddings"}, "url"),
        (line("b", model=None), "body.model"),
        (line("b", messages=[]), "body.messages"),
        (line("b", messages="hello"), "body.messages"),
        (line("b", messages=[{"content": "hello"}]), "body.messages[0]"),
        (line("b", messages=[{"role": "user", "content": 3}]), "body.messages[0].content"),
        (line("b", messages=[{"role": "user", "content": [{"type": "text"}]}]), "body.messages[0].content[0].text"),
        (line("b", max_tokens=-1), "body.max_tokens"),
        (line("b", max_completion_tokens="many"), "body.max_completion_tokens"),
        (line("b", n=0), "body.n"),
        (line("b", temperature=-0.5), "body.temperature"),
        (line("b", response_format="json"), "body.response_format"),
        (line("b", response_format={"type": "json_schema"}), "body.response_format.json_schema"),
        (line("b", "\ud800"), "body"),
        (b'{"custom_id":"b","body":{"model":"m","seed":1e999,"messages":[{"role":"user","content":"x"}]}}', "body"),
        (line("b", deep=json.loads("[" * 600 + "]" * 600)), "body"),
    ],
)
def test_a_bad_line_is_named_with_its_field_and_the_others_go_on(tmp_path, wrong, field):
    source = write(tmp_path / "in.jsonl", [line("a"), wrong, line("c")])
    first, bad, last = read_lines(source)
    assert isinstance(first, Line)
    assert isinstance(bad, BadLine)
    assert (bad.number, bad.field) == (2, field)
    assert bad.cause
    assert isinstance(last, Line)
    assert last.custom_id == "c"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"type": "string", "pattern": "["},
        {"patternProperties": {"(": {}}},
        {"$ref": "#/$defs/missing"},
        {"$ref": "https://example.org/schema.json"},
    ],
)
def test_a_schema_that_cannot_be_checked_is_a_bad_line(tmp_path, schema):
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    (bad,) = read_lines(write(tmp_path / "in.jsonl", [line("a", response_format=wanted)]))
    assert isinstance(bad, BadLine)
    assert bad.field == "body.response_format.json_schema.schema"


def test_a_schema_with_references_inside_is_good(tmp_path):
    schema = {"$defs": {"a": {"type": "string"}}, "properties": {"$ref": {"$ref": "#/$defs/a"}, "pattern": {}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    (good,) = read_lines(write(tmp_path / "in.jsonl", [line("a", response_format=wanted)]))
    assert isinstance(good, Line)


def picture(url: object) -> dict[str, object]:
    return line("a", messages=[{"role": "user", "content": [{"type": "image_url", "image_url": url}]}])


def test_images_are_embedded_whatever_way_they_are_given(tmp_path):
    (tmp_path / "a.jpg").write_bytes(PNG)  # told by its bytes, not by its name
    data = f"data:image/jpeg;base64,{base64.b64encode(PNG).decode()}"
    urls = [{"url": "a.jpg", "detail": "low"}, "a.jpg", f"file://{tmp_path / 'a.jpg'}", {"url": data}]
    source = write(tmp_path / "in.jsonl", [{**picture(url), "custom_id": str(i)} for i, url in enumerate(urls)])
    found = [entry.body["messages"][0]["content"][0]["image_url"] for entry in read_lines(source)]
    assert {held["url"] for held in found} == {f"data:image/png;base64,{base64.b64encode(PNG).decode()}"}
    assert found[0]["detail"] == "low"


def test_an_image_on_the_web_is_left_to_the_server(tmp_path):
    (good,) = read_lines(write(tmp_path / "in.jsonl", [picture({"url": "https://example.org/a.png"})]))
    assert good.body["messages"][0]["content"][0]["image_url"]["url"] == "https://example.org/a.png"


@pytest.mark.parametrize(
    "url", ["missing.png", "text.png", "large.png", "data:image/png;base64,%%%", "data:image/png,abc", ".", "\0"]
)
def test_an_image_that_is_none_is_a_bad_line(tmp_path, url):
    (tmp_path / "text.png").write_text("no image")
    with (tmp_path / "large.png").open("wb") as file:
        file.write(PNG)
        file.truncate(20 * 2**20 + 1)
    (bad,) = read_lines(write(tmp_path / "in.jsonl", [picture({"url": url})]))
    assert isinstance(bad, BadLine)
    assert bad.field == "body.messages[0].content[0].image_url.url"


def test_lines_are_counted_with_and_without_an_end(tmp_path):
    for text, lines in (("", 0), ("a", 1), ("a\n", 1), ("a\nb", 2)):
        (tmp_path / "f").write_text(text)
        assert count_lines(tmp_path / "f") == lines


@pytest.mark.parametrize("ordered", [True, False])
def test_each_custom_id_comes_once_as_body_or_as_error(tmp_path, ordered):
    lines = [line(f"id {i}", f"say {i % 30}") for i in range(50)]
    lines[10:10] = [b"{", line("id 3"), line("bad", n=0), line("dead", "FAIL"), line("other", model="x")]
    source, engine = write(tmp_path / "in.jsonl", lines), EchoBodies(tmp_path / "log")
    batch = ask(source, tmp_path / "out.jsonl", tmp_path / "ledger", engine, ordered=ordered)
    assert (batch.answered, batch.dead, batch.bad) == (50, 1, 4)
    out = read(tmp_path / "out.jsonl")
    names = [entry["custom_id"] for entry in out]
    wanted = [*(f"id {i}" for i in range(10)), "bad", "dead", "other", *(f"id {i}" for i in range(10, 50))]
    assert names == wanted if ordered else sorted(names) == sorted(wanted)
    for entry in out:
        if entry["custom_id"].startswith("id"):
            said = f"{int(entry['custom_id'][3:]) % 30}"
            assert entry["error"] is None
            assert entry["response"]["status_code"] == 200
            assert entry["response"]["body"]["choices"][0]["message"]["content"] == said
        else:
            assert entry["response"] is None
            assert set(entry["error"]) == {"code", "message"}
    assert len(engine.asked()) == 31  # equal requests once
    errors = read(tmp_path / "out.errors.jsonl")
    assert sorted((e["line"], e["custom_id"]) for e in errors) == [
        (11, None), (12, None), (13, "bad"), (14, "dead"), (15, "other"),
    ]  # fmt: skip
    assert all(error["cause"] for error in errors)
    assert sorted(path.name for path in tmp_path.glob("*out*")) == ["out.errors.jsonl", "out.jsonl"]


def test_a_second_run_asks_nothing_and_writes_the_same(tmp_path):
    source = write(tmp_path / "in.jsonl", [line(str(i), f"say {i}") for i in range(20)])
    engine = EchoBodies(tmp_path / "log")
    (tmp_path / "out.errors.jsonl").write_text("of an earlier run")
    ask(source, tmp_path / "out.jsonl", tmp_path / "ledger", engine, ordered=True)
    first = (tmp_path / "out.jsonl").read_bytes()
    assert not (tmp_path / "out.errors.jsonl").exists()
    ask(source, tmp_path / "out.jsonl", tmp_path / "ledger", engine, ordered=True)
    assert (tmp_path / "out.jsonl").read_bytes() == first
    assert len(engine.asked()) == 20


def test_a_model_given_takes_the_place_of_all(tmp_path):
    source = write(tmp_path / "in.jsonl", [line("a", model="x"), line("b", "other", model="y", stream=True)])
    engine = EchoBodies(tmp_path / "log")
    batch = ask(source, tmp_path / "out.jsonl", tmp_path / "ledger", engine, override=True)
    assert (batch.answered, batch.bad) == (2, 0)


def test_no_output_where_it_cannot_be(tmp_path):
    source = write(tmp_path / "in.jsonl", [line("a")])
    link = tmp_path / "link.jsonl"
    link.symlink_to(source)
    for bad_in, bad_out, word in (
        (tmp_path / "none", tmp_path / "out", "does not exist"),
        (source, source, "same file"),
        (source, link, "same file"),
        (source, tmp_path / "no" / "out", "cannot be written"),
        (source, tmp_path, "cannot be written"),
    ):
        with pytest.raises(InputError, match=word):
            BatchFile(bad_in, bad_out, "m")
    assert read(source) == [line("a")]


def test_two_runs_do_not_write_one_output(tmp_path):
    source = write(tmp_path / "in.jsonl", [line("a")])
    first = BatchFile(source, tmp_path / "out", "m")
    with pytest.raises(InputError, match="Another run"):
        BatchFile(source, tmp_path / "out", "m")
    first.close()
    BatchFile(source, tmp_path / "out", "m").close()


KILLED = """
import sys, pathlib
sys.path.insert(0, {tests!r})
from batch_samples import EchoBodies
from test_batch_files import ask
folder = pathlib.Path({folder!r})
ask(folder / "in.jsonl", folder / "out.jsonl", folder / "ledger", EchoBodies(folder / "log", places=8, pause=0.02))
"""


def test_a_killed_run_asks_again_only_what_was_in_flight(tmp_path):
    source = write(tmp_path / "in.jsonl", [line(str(i), f"say {i}") for i in range(200)])
    log, code = tmp_path / "log", KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    killed = subprocess.Popen([sys.executable, "-c", code])
    while not log.exists() or len(log.read_text().splitlines()) < 60:
        assert killed.poll() is None
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "out.jsonl").exists()
    engine = EchoBodies(log)
    ask(source, tmp_path / "out.jsonl", tmp_path / "ledger", engine)
    assert sorted(int(entry["custom_id"]) for entry in read(tmp_path / "out.jsonl")) == list(range(200))
    assert len(engine.asked()) <= 200 + 8
    assert set(engine.asked()) == {f"say {i}" for i in range(200)}
