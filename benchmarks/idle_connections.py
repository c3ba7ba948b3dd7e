"""What connections cost that are open and say nothing: 10,000 of them, and people who go on being answered.

    python benchmarks/idle_connections.py [--connections 10000]

Starts `palate serve` on a synthetic snapshot of 10,000 items and times slates one after the other: alone, and while the
connections are open, each of which has sent half a request's first line. Both processes need as many open files
(`ulimit -n`). Prints a table and writes `benchmarks/results/idle_connections.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import machine_facts
from serve_load import Connections, synthetic_snapshot
from served import Server, served

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    wanted = parser.parse_args().connections
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < wanted + 200:
        raise SystemExit(f"{wanted} connections need {wanted + 200} open files, and {hard} are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as name:
        synthetic_snapshot(Path(name) / ".palate" / "snapshots")
        with served(Path(name)) as server:
            server.wait("/v1/recommend/user1")
            alone, before = asyncio.run(slates(server.port)), server.resident()
            seconds, beside, after = asyncio.run(with_idle(server, wanted))
    result = {
        "machine": machine_facts(),
        "connections": wanted,
        "seconds_to_open": round(seconds, 2),
        "bytes_a_connection": (after - before) // wanted,
        "alone_ms": percentiles(alone),
        "beside_them_ms": percentiles(beside),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "idle_connections.json").write_text(json.dumps(result, indent=1))
    print(json.dumps({name: value for name, value in result.items() if name != "machine"}, indent=1))


async def slates(port: int, rounds: int = 200) -> list[float]:
    """Milliseconds of each; all must be good."""
    connections, found = Connections(port), []
    for number in range(rounds):
        start = time.perf_counter()
        if await connections.get(f"/v1/recommend/user{number}?n=10") != 200:
            raise SystemExit("an answer was not good")
        found.append(1000 * (time.perf_counter() - start))
    connections.close()
    return found


async def with_idle(server: Server, wanted: int) -> tuple[float, list[float], int]:
    start, opened = time.perf_counter(), []
    for first in range(0, wanted, 200):
        size = min(200, wanted - first)
        opened += await asyncio.gather(*[asyncio.open_connection("127.0.0.1", server.port) for _ in range(size)])
    for _, writer in opened:
        writer.write(b"GET /v1/recom")
    while server.open_files() < wanted:  # the system holds those that the server has not taken yet
        await asyncio.sleep(0.02)
    seconds = time.perf_counter() - start
    found, memory = await slates(server.port), server.resident()
    if any(reader.at_eof() for reader, _ in opened):
        raise SystemExit("the server closed some of them")
    for _, writer in opened:
        writer.transport.abort()
    return seconds, found, memory


def percentiles(values: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(values, [50, 99]).round(2).tolist()
    return {"p50": p50, "p99": p99}


if __name__ == "__main__":
    main()
