"""A batch file of a million lines through `palate llm run`: memory at its peak, lines a second.

    python benchmarks/llm_stream.py [--lines 1000000] [--keep] [--folder DIR]

The command runs as people run it, in a process of its own, against a server that answers at once
(`instant_server.py`); then once more, with every answer in the ledger, where it asks nothing. `--keep` fills the ledger
directly instead, so that only the second run is measured: minutes instead of tens of minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from instant_server import running
from machine import machine_facts

from palate.llm.batch_files import request_of
from palate.llm.batch_lines import Line, read_lines
from palate.llm.ledger import Entry, Ledger
from palate.llm.request import Answer

_TEXT = "Would people who like slow films enjoy film number {}? It is told at length: {} Answer Yes or No."
_TOLD = "a family moves to the coast, and over one summer nothing happens that anybody would call an event. "


def write_lines(path: Path, n: int) -> None:
    with path.open("w") as file:
        for number in range(n):
            text = _TEXT.format(number, _TOLD * 3)
            body = {"model": "instant", "messages": [{"role": "user", "content": text}], "max_tokens": 4}
            line = {"custom_id": f"request-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")


def fill(path: Path, ledger: Path) -> None:
    """Every answer into the ledger, as a run of the command leaves it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "Yes"}, "finish_reason": "stop"}
    reply = {"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": "instant", "choices": [choice]}
    answer = Answer("Yes", reply, tokens_in=20, tokens_out=1, seconds=0.01, model="instant", engine="openai")
    requests = (request_of(line) for line in read_lines(path) if isinstance(line, Line))
    with Ledger(ledger) as kept:
        while part := [Entry.of(request, answer, "instant") for request in islice(requests, 1000)]:
            kept.keep(part)


def measured(folder: Path, url: str) -> dict[str, object]:
    """One run of the command: what it says of itself, its peak of memory, lines a second."""
    arguments = ["run", str(folder / "in.jsonl"), "-o", str(folder / "out.jsonl"), "--base-url", url, "--json"]
    began = time.perf_counter()
    with (folder / "said.json").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "palate", "llm", *arguments, "--ledger", str(folder / "ledger.sqlite")], stdout=said
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"palate llm run ended with {process.returncode}")
    facts = json.loads((folder / "said.json").read_text())
    seconds = time.perf_counter() - began
    return {
        "lines": facts["requests"],
        "asked": facts["calls"],
        "cached": facts["cached"],
        "peak_mebibytes": round(usage.ru_maxrss / 1024, 1),
        "seconds": round(seconds, 1),
        "lines_per_second": round(facts["requests"] / seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--keep", action="store_true", help="fill the ledger directly")
    parser.add_argument("--folder", type=Path, help="where the files go; by default a temporary folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name, running() as (url, _):
        folder, runs = Path(name), []
        write_lines(folder / "in.jsonl", given.lines)
        if given.keep:
            fill(folder / "in.jsonl", folder / "ledger.sqlite")
        else:
            runs.append(measured(folder, url))
        runs.append(measured(folder, url))
    whole = {"lines": given.lines, "filled_directly": given.keep, "runs": runs, "machine": machine_facts()}
    print(json.dumps(whole, indent=1))
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "llm_stream.json").write_text(json.dumps(whole, indent=1))


if __name__ == "__main__":
    main()
