"""`palate llm run` killed with -9 at 100 random moments over a server that fails in all kinds of ways."""

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from fault_server import answer_to, prompt_of

from palate.cli.main import app
from palate.llm.ledger import Ledger
from palate.llm.ledger_tools import records

N, KILLS, PLACES = 1500, int(os.environ.get("PALATE_TEST_KILLS", "100")), 4
FAULTS = "429,429-after,500,502,503,reset,half,html,utf8,nan,empty,surplus,surplus-late,same-id"


@pytest.fixture
def server():
    command = [sys.executable, str(Path(__file__).with_name("fault_server.py")), "--seed", "1", "--share", "0.03"]
    command += ["--tick", "--latency", "0.03", "--faults", FAULTS]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0)
    yield process.stdout.readline().decode().strip(), process.stdout.fileno()
    process.kill()
    process.communicate()


def wait_for(ticks, requests):
    """Until so many more have come."""
    while requests:
        assert select.select([ticks], [], [], 60)[0]
        requests -= len(os.read(ticks, requests))


def lines(n=N):
    for number in range(n):
        body = {"model": "m", "messages": [{"role": "user", "content": f"question {number}"}], "max_tokens": 5}
        yield {"custom_id": f"id-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def start(arguments):
    """A child with everything imported already; it is as killable as any process."""
    child = os.fork()
    if child:
        return child
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        app(arguments, standalone_mode=False)
    finally:
        os._exit(1)


def kept(ledger):
    if not ledger.exists():
        return set()
    return {prompt_of(json.loads(row["request"])["body"]) for row in records(ledger)}


@pytest.mark.slow
def test_killed_at_random_moments_it_loses_nothing_and_repeats_only_what_was_in_flight(tmp_path, server):
    (server, ticks), source = server, tmp_path / "in.jsonl"
    out, ledger = tmp_path / "out.jsonl", tmp_path / "ledger.sqlite"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines()))
    arguments = ["llm", "run", str(source), "-o", str(out), "--base-url", server, "--ledger", str(ledger)]
    arguments += ["--concurrency", str(PLACES), "--max-calls", str(3 * N), "--attempts", "20"]
    moments, asked_when_kept, kills = random.Random(0), {}, 0
    for _ in range(KILLS):
        child = start(arguments)
        wait_for(ticks, moments.randrange(12))
        time.sleep(moments.uniform(0.0, 0.05))
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            break
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
        time.sleep(0.05)  # what the server was about to answer
        while select.select([ticks], [], [], 0)[0]:
            os.read(ticks, 1000)
        received = httpx.get(server.replace("/v1", "/counts"), verify=False).json()["received"]
        for prompt in kept(ledger):
            asked_when_kept.setdefault(prompt, received[prompt])
        assert not out.exists()
    assert kills == KILLS
    assert 100 <= len(asked_when_kept) < N
    with pytest.raises(SystemExit) as end:
        app([*arguments, "--concurrency", "64"])
    assert end.value.code == 0
    counts = httpx.get(server.replace("/v1", "/counts"), verify=False).json()
    assert {prompt: counts["received"][prompt] for prompt in asked_when_kept} == asked_when_kept
    assert counts["answered"]["ok"] <= N + KILLS * PLACES  # and not the whole file again
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    said = {row["custom_id"]: row["response"]["body"]["choices"][0]["message"]["content"] for row in rows}
    assert len(rows) == N
    assert said == {f"id-{number}": answer_to(f"question {number}") for number in range(N)}
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name or "owner" in path.name]
    with Ledger(ledger) as opened:
        assert opened.count() == N
