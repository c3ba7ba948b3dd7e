"""Saturation: is a server of 200 ms latency and 256 slots kept busy, and again after a burst of 429s?

    python benchmarks/llm_saturation.py [--seconds 60] [--burst 2] [--no-ledger]

The server (`instant_server.py`, its own process) does 1,280 requests a second at most. Twice: once it answers 429 when
all slots are taken, once it queues. Nothing is told to the client but that at most 1,024 may be in flight. Answers go
through runner and ledger, as in a real run; each is counted in the second in which it was handed out. After `--seconds`
(those of the climb are not counted) the server refuses everything for `--burst` seconds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from instant_server import running
from machine import machine_facts

from palate.llm.engines.openai_http import OpenAIEngine
from palate.llm.ledger import Ledger
from palate.llm.request import ListedWork, Message, Request
from palate.llm.runner import Runner

LATENCY, SLOTS = 0.2, 256
CAPACITY = SLOTS / LATENCY
CLIMB = 5  # seconds from the start that are not counted
AFTER = 20  # seconds measured after the burst
ENOUGH = 0.95
WINDOW = 3.0  # seconds over which the recovery is judged


def questions(until: float) -> Iterator[Request]:
    for number in count():
        if time.monotonic() > until:
            return
        yield Request((Message("user", f"Is film number {number} slow?"),), max_tokens=4, purpose="benchmark")


def answers(engine: OpenAIEngine, until: float, ledger: Path | None) -> Iterator[None]:
    """One item for each answer."""
    if ledger is None:
        for batch in engine.ask(ListedWork(questions(until))):
            yield from (None for _ in batch)
        return
    with Ledger(ledger) as opened:
        for _ in Runner(engine, opened, ordered=False).run(questions(until)):
            yield None


def measure(options: list[str], seconds: float, burst: float, with_ledger: bool) -> dict[str, float]:
    tenths: Counter[int] = Counter()
    with running("--latency", str(LATENCY), "--slots", str(SLOTS), *options) as (url, server):
        engine = OpenAIEngine(url, "instant", concurrency=4 * SLOTS)
        burst_at = CLIMB + seconds
        assert server.stdin is not None
        timer = threading.Timer(burst_at, lambda: print(f"burst {burst}", file=server.stdin, flush=True))
        start = time.monotonic()
        timer.start()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "ledger.sqlite" if with_ledger else None
            for _ in answers(engine, start + burst_at + burst + AFTER, path):
                tenths[int((time.monotonic() - start) * 10)] += 1
        engine.close()

    def share(first: float, last: float) -> float:
        counted = sum(tenths[tenth] for tenth in range(round(first * 10), round(last * 10)))
        return counted / (last - first) / CAPACITY

    end = burst_at + burst
    waits = [tenth / 10 for tenth in range(round((AFTER - WINDOW) * 10))]
    back = next((wait for wait in waits if share(end + wait, end + wait + WINDOW) >= ENOUGH), float("inf"))
    return {
        "share_of_capacity": share(CLIMB, burst_at),
        "worst_second": min(share(second, second + 1) for second in range(CLIMB, int(burst_at))),
        "recovered_after_seconds": back,
        "share_from_5_s_after_burst": share(end + 5, end + AFTER),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--burst", type=float, default=2.0, help="seconds in which the server refuses everything")
    parser.add_argument("--no-ledger", action="store_true", help="the engine alone")
    args = parser.parse_args()
    found = {}
    for name, options in {"refusing": [], "queueing": ["--queue"]}.items():
        found[name] = measure(options, args.seconds, args.burst, not args.no_ledger)
        print(name, "  ".join(f"{key} {figure:.3f}" for key, figure in found[name].items()), flush=True)
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    whole = {**vars(args), "capacity": CAPACITY, **found, "machine": machine_facts()}
    (results / "llm_saturation.json").write_text(json.dumps(whole, indent=1))


if __name__ == "__main__":
    main()
