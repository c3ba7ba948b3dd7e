"""Client overhead: requests a second through runner, ledger and HTTP engine, beside OpenAI's own async client.

    pip install -r benchmarks/requirements.txt
    python benchmarks/llm_client.py [--requests 20000] [--concurrency 64] [--repeats 3]

The server answers at once from a process of its own (`instant_server.py`). Ours keeps every answer in a ledger on disk
(committed before it is handed out); the official client, under a semaphore of the same concurrency, keeps nothing. Both
ask the same prompts, in turn, after a warm-up; medians of the repeats are compared. Processor seconds are of the
client's process alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from instant_server import running
from machine import machine_facts

from palate.llm.engines.openai_http import OpenAIEngine
from palate.llm.ledger import Ledger
from palate.llm.request import ListedWork, Message, Request
from palate.llm.runner import Runner


def prompt(number: int) -> str:
    return f"Would people who like slow films enjoy film number {number}? Answer Yes or No."


def asked(n: int) -> list[Request]:
    return [Request((Message("user", prompt(number)),), max_tokens=4, purpose="benchmark") for number in range(n)]


def palate_with_ledger(url: str, n: int, concurrency: int) -> None:
    engine = OpenAIEngine(url, "instant", concurrency=concurrency)
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        outcomes = list(Runner(engine, ledger).run(asked(n), n))
        assert len(ledger.get([outcome.request.key("instant") for outcome in outcomes])) == n
    engine.close()
    assert [outcome.answer.text for outcome in outcomes] == ["Yes"] * n


def palate_engine_alone(url: str, n: int, concurrency: int) -> None:
    engine = OpenAIEngine(url, "instant", concurrency=concurrency)
    answers = [answer for batch in engine.ask(ListedWork(asked(n))) for _, answer in batch]
    engine.close()
    assert [answer.text for answer in answers] == ["Yes"] * n


def official(url: str, n: int, concurrency: int) -> None:
    asyncio.run(_official(url, n, concurrency))


async def _official(url: str, n: int, concurrency: int) -> None:
    from openai import AsyncOpenAI

    places = asyncio.Semaphore(concurrency)
    async with AsyncOpenAI(base_url=url, api_key="none") as client:

        async def one(number: int) -> str | None:
            async with places:
                message = {"role": "user", "content": prompt(number)}
                reply = await client.chat.completions.create(
                    model="instant", messages=[message], max_tokens=4, temperature=0.0
                )
                return reply.choices[0].message.content

        assert await asyncio.gather(*map(one, range(n))) == ["Yes"] * n


def timed(client: Callable[[str, int, int], None], url: str, n: int, concurrency: int) -> dict[str, float]:
    start, processor = time.perf_counter(), time.process_time()
    client(url, n, concurrency)
    seconds, used = time.perf_counter() - start, time.process_time() - processor
    return {"requests_per_second": n / seconds, "processor_seconds_per_1000": 1000 * used / n}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    clients = {"palate_with_ledger": palate_with_ledger, "palate_engine_alone": palate_engine_alone, "openai": official}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in clients}
    with running() as (url, _):
        for client in clients.values():
            client(url, 500, args.concurrency)
        for _ in range(args.repeats):
            for name, client in clients.items():
                runs[name].append(timed(client, url, args.requests, args.concurrency))
    found = {name: {key: median(run[key] for run in of) for key in of[0]} for name, of in runs.items()}
    ratio = found["palate_with_ledger"]["requests_per_second"] / found["openai"]["requests_per_second"]
    for name, figures in found.items():
        print(f"{name:20}" + "  ".join(f"{key} {figure:,.2f}" for key, figure in figures.items()))
    print(f"with the ledger on, {ratio:.2f} times as many requests a second as the official client")
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    whole = {**vars(args), **found, "ratio": ratio, "runs": runs, "machine": machine_facts()}
    (results / "llm_client.json").write_text(json.dumps(whole, indent=1))


if __name__ == "__main__":
    main()
