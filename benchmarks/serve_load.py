"""Latency of a recommendation over loopback under a steady load.

    python benchmarks/serve_load.py [--snapshot FOLDER] [--rate 50] [--seconds 20]

Starts the real server (uvicorn, one process) on a snapshot, or on a synthetic one of 10,000 items of 64
dimensions, and sends requests at fixed moments (open loop) whatever the answers do, so that a slow answer delays
no other and its whole wait counts: latency is measured from the moment a request was due. Only 127.0.0.1 is
reached. Prints p50, p95, p99 and writes `benchmarks/results/serve_load.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import polars as pl

from palate.data.dataset import Histories
from palate.interests.tree import TreeConfig, build_tree
from palate.serving.load import load_snapshot
from palate.serving.snapshot import SnapshotParts, build_snapshot
from palate.serving.versions import current, use

RESULTS = Path(__file__).parent / "results"
SERVER = (
    "import sys, uvicorn; from pathlib import Path; from palate.serving.api import create_app;"
    "uvicorn.run(create_app(Path(sys.argv[1])), host='127.0.0.1', port=int(sys.argv[2]), log_level='warning')"
)


def synthetic_snapshot(folder: Path, n_items: int = 10_000, d: int = 64, n_users: int = 1000) -> Path:
    """Items around 40 centres, users with 100 events each, two attributes, a full table of transitions."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, d))[rng.integers(40, size=n_items)] + rng.normal(size=(n_items, d))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    popularity = rng.zipf(1.5, n_items).clip(max=10_000)
    tree = build_tree(vectors, popularity, TreeConfig(branching=(8, 8)))
    nodes = np.array([node.node for node in tree.at_level(2)])
    pairs = [(a, b, int(rng.choice(nodes)), 0.5, "none", "") for a in nodes for b in nodes if a < b]
    columns = ["node_a", "node_b", "next_node", "probability", "model", "prompt_hash"]
    ids = [f"item{i}" for i in range(n_items)]
    items = pl.DataFrame({"item_id": ids, "title": ids, "categories": [["some"]] * n_items})
    length = 100
    events = np.concatenate(
        [rng.choice(n_items, length, replace=False, p=popularity / popularity.sum()) for _ in range(n_users)]
    )
    histories = Histories(np.arange(0, len(events) + 1, length), events.astype(np.int32), np.arange(len(events)))
    parts = SnapshotParts(
        items=items,
        item_vectors=vectors,
        tree=tree,
        popularity=popularity,
        histories=histories,
        user_ids=[f"user{i}" for i in range(n_users)],
        attributes={name: rng.random(n_items) for name in ("calm", "bold")},
        thresholds={"calm": 0.9, "bold": 0.7},
        transitions=pl.DataFrame(pairs, schema=columns, orient="row"),
        explore_level=2,
    )
    path = build_snapshot(folder, parts)
    use(folder, path.name)
    return path


class Connections:
    """Kept-alive connections to the server. A bare client: httpx would take more of the CPU than the server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def get(self, path: str) -> int:
        """The status of the answer, read to its end."""
        while self.idle and self.idle[-1][0].at_eof():  # the server closes what was idle for five seconds
            self.idle.pop()[1].close()
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0]))
        self.idle.insert(0, (reader, writer))  # in turn, so that none stays idle
        return int(head.split()[1])

    def close(self) -> None:
        for _, writer in self.idle:
            writer.close()


async def load(port: int, users: list[str], rate: float, seconds: float) -> tuple[np.ndarray, int]:
    """Latencies in milliseconds from the moment each request was due, and how many failed."""
    connections = Connections(port)

    async def one(user: str, due: float) -> tuple[float, bool]:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        try:
            async with asyncio.timeout(10):
                failed = await connections.get(f"/v1/recommend/{user}?n=10") != 200
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            failed = True
        return 1000 * (time.perf_counter() - due), failed

    start = time.perf_counter() + 0.2
    answers = await asyncio.gather(*[one(users[i % len(users)], start + i / rate) for i in range(int(rate * seconds))])
    connections.close()
    return np.array([latency for latency, _ in answers]), sum(failed for _, failed in answers)


def wait_until_ready(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit("the server ended before it was ready")
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit("the server was not ready within a minute")


def measure(folder: Path, rate: float, seconds: float) -> dict[str, object]:
    snapshot = load_snapshot(current(folder))
    users = list(np.random.default_rng(0).permutation([*snapshot.user_ids, "unknown-user"]))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # One thread for each product: more would fight over the two cores of a small machine.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(folder), str(port)], env=environment)
    try:
        wait_until_ready(port, server)
        asyncio.run(load(port, users, rate, 2))
        latencies, failed = asyncio.run(load(port, users, rate, seconds))
    finally:
        server.terminate()
        server.wait(timeout=10)
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99]).round(2).tolist()
    return {
        "snapshot": {"items": len(snapshot.item_ids), "d": snapshot.vectors.shape[1], "users": len(users)},
        "rate_per_s": rate,
        "seconds": seconds,
        "requests": len(latencies),
        "failed": failed,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "max_ms": round(float(latencies.max()), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--snapshot", type=Path, help="a snapshot, or a folder of snapshots with a current one")
    parser.add_argument("--rate", type=float, default=50, help="requests a second (at most 500)")
    parser.add_argument("--seconds", type=float, default=20, help="length of the load (at most 60)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.snapshot or synthetic_snapshot(Path(temporary))
        result = measure(folder, min(arguments.rate, 500), min(arguments.seconds, 60))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "serve_load.json").write_text(json.dumps(result, indent=1))
    print("| items | requests/s | requests | failed | p50 ms | p95 ms | p99 ms | max ms |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    row = [result[key] for key in ("rate_per_s", "requests", "failed", "p50_ms", "p95_ms", "p99_ms", "max_ms")]
    print(f"| {result['snapshot']['items']} | " + " | ".join(map(str, row)) + " |")


if __name__ == "__main__":
    main()
