"""`palate llm`: batch files through a real server, from the command line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chat_server import serving

from palate.llm.ledger_tools import records

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


def line(custom_id, text, **body):
    told = {"model": "m", "messages": [{"role": "user", "content": text}], **body}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": told}


def write(path, lines):
    path.write_text("".join((entry if isinstance(entry, str) else json.dumps(entry)) + "\n" for entry in lines))
    return path


def read(path):
    return [json.loads(raw) for raw in path.read_text().splitlines()]


def answers(path):
    return {
        entry["custom_id"]: entry["response"]["body"]["choices"][0]["message"]["content"]
        for entry in read(path)
        if entry["error"] is None
    }


def one_screen(err, *words):
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 24
    for word in words:
        assert str(word) in err, err


def test_a_file_is_asked_once_and_its_answers_are_kept(palate, server, tmp_path):
    source = write(tmp_path / "in.jsonl", [line(f"id-{i}", f"once {i}") for i in range(30)])
    command = ("llm", "run", source, "-o", tmp_path / "out.jsonl", "--base-url", server.url, "--json")
    before = server.calls
    code, out, err = palate(*command, "--price-in", "1000", "--price-out", "10000")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert (facts["requests"], facts["answered"], facts["failed"], facts["cached"]) == (30, 30, 0, 0)
    assert facts["cost"] == pytest.approx(30 * (0.01 + 0.02))
    assert answers(tmp_path / "out.jsonl") == {f"id-{i}": str(i) for i in range(30)}
    assert (tmp_path / ".palate" / "ledger.sqlite").exists()
    code, out, _ = palate(*command)
    assert (code, json.loads(out)["cached"]) == (0, 30)
    assert server.calls - before == 30


def test_lines_that_are_wrong_are_named_and_the_others_go_on(palate, server, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "good.png").write_bytes(PNG)
    picture = [{"type": "image_url", "image_url": {"url": "pictures/good.png"}}]
    lines = [
        line("good", "wrong 1"),
        "not json",
        line("schema", "x", response_format={"type": "json_schema", "json_schema": {"schema": {"type": "no"}}}),
        line("picture", "x", messages=[{"role": "user", "content": picture}]),
        line("no picture", "x", messages=[{"role": "user", "content": [{**picture[0], "image_url": "none.png"}]}]),
        line("other", "x", model="another"),
        line("refused", "FAIL"),
    ]
    out = tmp_path / "out.jsonl"
    source = write(tmp_path / "in.jsonl", lines)
    code, said, _ = palate("llm", "run", source, "-o", out, "--base-url", server.url, "--ordered")
    assert code == 2
    assert "bad lines: 4" in said
    assert answers(out) == {"good": "1", "picture": "picture"}
    assert [entry["custom_id"] for entry in read(out)] == [
        "good", "schema", "picture", "no picture", "other", "refused",
    ]  # fmt: skip
    errors = {error["line"]: error["cause"] for error in read(tmp_path / "out.errors.jsonl")}
    assert sorted(errors) == [2, 3, 5, 6, 7]
    assert "body.response_format" in errors[3]
    assert "image_url.url" in errors[5]
    assert "body.model" in errors[6]
    assert "400" in errors[7]


def test_dead_letters_alone_are_exit_code_1(palate, server, tmp_path):
    source = write(tmp_path / "in.jsonl", [line("a", "fine"), line("b", "FAIL")])
    code, _, _ = palate("llm", "run", source, "-o", "out.jsonl", "--base-url", server.url, "--json")
    assert code == 1
    assert [error["custom_id"] for error in read(tmp_path / "out.errors.jsonl")] == ["b"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.jsonl", "-o", "out.jsonl"], ["does not exist", "none.jsonl"]),
        (["in.jsonl", "-o", "in.jsonl"], ["same file"]),
        (["in.jsonl", "-o", "no/folder/out.jsonl"], ["cannot be written"]),
        (["in.jsonl"], ["-o OUT.jsonl"]),
        (["in.jsonl", "-o", "out.jsonl", "--max-calls", "-1"], ["negative", "calls"]),
        (["in.jsonl", "-o", "out.jsonl", "--max-money", "-1", "--price-in", "1"], ["negative", "money"]),
        (["in.jsonl", "-o", "out.jsonl", "--max-money", "1"], ["needs prices"]),
        (["in.jsonl", "-o", "out.jsonl", "--concurrency", "0"], ["concurrency"]),
        (["in.jsonl", "-o", "out.jsonl", "--on", "spark"], ["ray"]),
        (["in.jsonl", "-o", "out.jsonl", "--tokenizer", "in.jsonl"], ["tokenizer"]),
        (["in.jsonl", "-o", "out.jsonl", "--ledger", "."], ["ledger"]),
    ],
)
def test_what_cannot_be_run_asks_nothing(palate, server, tmp_path, arguments, words):
    source = write(tmp_path / "in.jsonl", [line("a", "never asked")])
    before = source.read_bytes()
    code, _, err = palate("llm", "run", *arguments, "--base-url", server.url)
    assert code == 2
    one_screen(err, *words)
    assert source.read_bytes() == before
    assert server.asked["never asked"] == 0
    assert not list(tmp_path.glob("*out*"))


def test_an_address_that_is_none_is_named(palate, tmp_path):
    write(tmp_path / "in.jsonl", [line("a", "x")])
    code, _, err = palate("llm", "run", "in.jsonl", "-o", "out.jsonl", "--base-url", "localhost")
    assert code == 2
    one_screen(err, "localhost")


def test_a_budget_holds_and_more_of_it_goes_on(palate, server, tmp_path):
    write(tmp_path / "in.jsonl", [line(f"id-{i}", f"budget {i}") for i in range(20)])
    command = ("llm", "run", "in.jsonl", "-o", "out.jsonl", "--base-url", server.url, "--json")
    before = server.calls
    for _ in range(2):  # a second start of the same run has no budget of its own
        code, _, err = palate(*command, "--max-calls", 7)
        assert code == 1
        one_screen(err, "budget", "7 calls")
        assert server.calls - before == 7
    assert not (tmp_path / "out.jsonl").exists()
    code, out, _ = palate(*command, "--max-calls", 20)
    assert (code, json.loads(out)["cached"]) == (0, 7)
    assert server.calls - before == 20
    write(tmp_path / "in.jsonl", [line("more", "budget more")])
    assert palate(*command, "--max-calls", 1)[0] == 0  # complete: the next run begins anew


def test_a_plan_asks_nothing_and_says_what_it_would(palate, server, tmp_path):
    write(tmp_path / "in.jsonl", [line(f"id-{i}", f"plan {i % 8}", max_tokens=50) for i in range(10)] + ["{"])
    command = ("llm", "run", "in.jsonl", "--plan", "--json", "--price-in", "1000", "--price-out", "1000")
    before = server.calls
    code, out, err = palate(*command)
    plan = json.loads(out)
    assert code == 2
    assert "line 11" in err
    assert (plan["requests"], plan["calls"], plan["cached"], plan["bad_lines"]) == (10, 8, 2, 1)
    assert plan["tokens_out"] == 400
    assert plan["money"] == pytest.approx((plan["tokens_in"] + 400) / 1000)
    assert "estimate" in plan["tokens_are"]
    assert plan["seconds"] is None
    assert server.calls == before
    assert not (tmp_path / ".palate").exists()
    palate("llm", "run", "in.jsonl", "-o", "out.jsonl", "--base-url", server.url)
    plan = json.loads(palate(*command)[1])
    assert (plan["calls"], plan["seconds"]) == (0, 0)


def test_through_a_batch_service_and_back(palate, server, tmp_path):
    write(tmp_path / "in.jsonl", [line(f"id-{i}", f"service {i}") for i in range(6)] + ["{"])
    code, out, err = palate("llm", "export", "in.jsonl", "-o", "batch", "--json")
    assert code == 2
    assert "line 7" in err
    (path,) = (Path(file) for file in json.loads(out)["files"])
    results = []
    for entry in read(path)[:4]:
        word = entry["body"]["messages"][0]["content"].split()[-1]
        choice = {"message": {"content": word}, "finish_reason": "stop"}
        results.append(
            {"custom_id": entry["custom_id"], "response": {"status_code": 200, "body": {"choices": [choice]}}}
        )
    failed = {"custom_id": read(path)[4]["custom_id"], "error": {"code": "batch_expired", "message": "late"}}
    write(tmp_path / "results.jsonl", results)
    write(tmp_path / "errors.jsonl", [failed])
    command = ("llm", "import", "results.jsonl", "--errors", "errors.jsonl", "--requests", "batch", "--json")
    code, out, _ = palate(*command)
    facts = json.loads(out)
    assert (code, facts["kept"], facts["failed"], facts["missing"], facts["unknown"]) == (1, 4, 1, 1, 0)
    code, out, _ = palate("llm", "run", "in.jsonl", "-o", "out.jsonl", "--base-url", server.url, "--json")
    assert json.loads(out)["cached"] == 4
    assert answers(tmp_path / "out.jsonl") == {f"id-{i}": str(i) for i in range(6)}
    assert "not empty" in palate("llm", "export", "in.jsonl", "-o", "batch")[2]


def test_costs_are_shown_by_model_purpose_and_day(palate, server, tmp_path):
    code, _, err = palate("llm", "cost")
    assert code == 2
    one_screen(err, "no ledger")
    write(tmp_path / "in.jsonl", [line("a", "cost [bold]a")])
    palate("llm", "run", "in.jsonl", "-o", "o", "--base-url", server.url, "-m", "[red]m", "--price-in", "1000")
    code, out, _ = palate("llm", "cost", "--by-day")
    assert code == 0
    assert "[red]m" in out
    (row,) = json.loads(palate("llm", "cost", "--by-day", "--json")[1])
    assert (row["model"], row["purpose"], row["calls"], row["cost"]) == ("[red]m", "batch", 1, 0.01)
    assert len(row["day"]) == 10


def test_ray_is_asked_for_by_name_where_it_is_missing(palate, server, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    write(tmp_path / "in.jsonl", [line("a", "no ray")])
    code, _, err = palate("llm", "run", "in.jsonl", "-o", "out.jsonl", "--base-url", server.url, "--on", "ray")
    assert code == 1
    one_screen(err, "palate[ray]")
    assert server.asked["no ray"] == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own code uses what it deprecates
def test_workers_of_ray_fill_the_output(palate, server, tmp_path):
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    lines = [line(f"id-{i}", f"ray {i % 20}") for i in range(40)]
    write(tmp_path / "in.jsonl", [*lines, "{", line("refused", "ray FAIL")])
    command = ("llm", "run", "in.jsonl", "-o", "out.jsonl", "--base-url", server.url, "--json", "--ordered")
    before = server.calls
    code, out, err = palate(*command, "--on", "ray", "--workers", 2, "--max-calls", 30)
    assert code == 2, err
    facts = json.loads(out)
    assert (facts["answered"], facts["failed"], facts["bad_lines"], facts["calls"]) == (40, 1, 1, 21)
    assert answers(tmp_path / "out.jsonl") == {f"id-{i}": str(i % 20) for i in range(40)}
    assert [entry["custom_id"] for entry in read(tmp_path / "out.jsonl")] == [
        *(f"id-{i}" for i in range(40)),
        "refused",
    ]
    assert server.calls - before == 21


def start(folder, server, *more):
    command = ["-m", "palate", "llm", "run", "in.jsonl", "-o", "out.jsonl", "--base-url", server.url, *more]
    return subprocess.Popen([sys.executable, *command], cwd=folder, stderr=subprocess.PIPE, text=True)


def wait_for(server, calls, process):
    end = time.monotonic() + 60
    while server.calls < calls:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_ctrl_c_finishes_what_is_in_flight_and_a_second_one_ends(palate, tmp_path):
    write(tmp_path / "in.jsonl", [line(f"id-{i}", f"stop {i}") for i in range(300)])
    with serving(pause=0.2) as server:
        process = start(tmp_path, server, "--concurrency", "4")
        wait_for(server, 12, process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        one_screen(err, "Finishing", "goes on from here")
        asked = server.calls
        assert asked < 100
        process = start(tmp_path, server, "--concurrency", "16")
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert server.calls == 300  # not even what was in flight was asked twice
        server.pause = 30.0
        write(tmp_path / "in.jsonl", [line("slow", "stop slowly")])
        process = start(tmp_path, server)
        wait_for(server, 301, process)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130
        process.stderr.close()
    assert answers(tmp_path / "out.jsonl") == {f"id-{i}": str(i) for i in range(300)}


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(palate, tmp_path):
    write(tmp_path / "in.jsonl", [line(f"id-{i}", f"kill {i}") for i in range(300)])
    with serving(pause=0.1) as server:
        process = start(tmp_path, server, "--concurrency", "8")
        wait_for(server, 60, process)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert not (tmp_path / "out.jsonl").exists()
        time.sleep(0.5)  # what it had sent and the server had not read yet
        kept, asked = sum(1 for _ in records(tmp_path / ".palate" / "ledger.sqlite")), server.calls
        assert asked - kept <= 16  # eight in flight, and answers that had just come and were not written yet
        process = start(tmp_path, server, "--concurrency", "8")
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert server.calls == asked + 300 - kept  # nothing that was kept is asked again
    assert answers(tmp_path / "out.jsonl") == {f"id-{i}": str(i) for i in range(300)}
