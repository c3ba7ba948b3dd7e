"""How many slates a second, and how soon each: the real server over loopback, asked by another process.

    python benchmarks/serve_load.py [--items 100000 --users 100000 --full] [--seconds 20] [--cores 0,1]

A synthetic snapshot (10,000 items of 64 dimensions and 1,000 users by default; `--full`: sequence encoder and ranker
in ONNX too, by the extra `train`, every source, caps) is served by 1 and by 2 workers, with SQLite and, where
`redis-server` is installed, with Redis. `--keep FOLDER` builds it once. For each:

- as fast as it goes (closed loop): `--connections` connections, each asking again when it is answered;
- at a steady rate (open loop, `--rate`): requests are sent at fixed moments whatever the answers do, so that a slow
  answer delays no other and its whole wait counts;
- the same server answering a constant, as fast as it goes.

The load takes its share of the same cores. Prints requests/s, p50, p99, CPU milliseconds of the server for a request
(which other work on the machine disturbs least) and memory of a worker; writes `benchmarks/results/serve_load.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from machine import machine_facts
from serve_snapshot import synthetic_snapshot

from palate.serving.load import load_snapshot
from palate.serving.versions import current

RESULTS = Path(__file__).parent / "results"
FULL = {
    "sources": {"sequence": 0.4, "exploration": 0.2, "attribute": 0.1, "similar": 0.1, "fresh": 0.1, "popular": 0.1},
    "caps": {"leaf": 3, "category": 4},
}


class Asking(asyncio.Protocol):
    """A kept-alive connection. A bare client: httpx would take more of the CPU than the server."""

    def __init__(self, load: Load) -> None:
        self.load, self.due, self.buffer, self.missing = load, 0.0, b"", -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.load.free(self)

    def ask(self, user: str, due: float) -> None:
        self.due = due
        self.transport.write(f"GET /v1/recommend/{user}?n=10 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.missing < 0:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[:end].lower()
            size = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            self.ok, self.missing = head[9:12] == b"200", end + 4 + size
        if len(self.buffer) >= self.missing:
            self.buffer, self.missing = b"", -1
            self.load.answered(self, self.ok)

    def connection_lost(self, error: Exception | None) -> None:
        self.load.lost(self)


class Load:
    """Latencies in seconds from the moment each request was due. `rate` None: closed loop."""

    def __init__(self, port: int, users: list[str], connections: int, rate: float | None, seconds: float) -> None:
        self.port, self.users, self.connections, self.rate = port, users, connections, rate
        self.seconds, self.latencies, self.failed, self.sent = seconds, list[float](), 0, 0
        self.idle, self.waiting = list[Asking](), list[float]()

    def next_user(self) -> str:
        self.sent += 1
        return self.users[self.sent % len(self.users)]

    def free(self, asking: Asking) -> None:
        if self.rate is None:
            if time.perf_counter() < self.stop:
                asking.ask(self.next_user(), time.perf_counter())
        elif self.waiting:
            asking.ask(self.next_user(), self.waiting.pop(0))
        else:
            self.idle.append(asking)

    def answered(self, asking: Asking, ok: bool) -> None:
        self.failed += not ok
        self.latencies.append(time.perf_counter() - asking.due)
        self.free(asking)

    def lost(self, asking: Asking) -> None:
        if asking in self.idle:
            self.idle.remove(asking)
        elif time.perf_counter() < self.stop:
            self.failed += 1

    async def run(self) -> Load:
        loop, start = asyncio.get_running_loop(), time.perf_counter()
        self.stop = start + self.seconds
        made = [
            await loop.create_connection(lambda: Asking(self), "127.0.0.1", self.port) for _ in range(self.connections)
        ]
        number = 0
        while self.rate is not None and (due := start + number / self.rate) < self.stop:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if self.idle:
                self.idle.pop().ask(self.next_user(), due)
            else:  # all connections wait for answers
                self.waiting.append(due)
            number += 1
        await asyncio.sleep(max(0.0, self.stop - time.perf_counter()))
        for _ in range(100):
            if len(self.latencies) >= self.sent and not self.waiting:
                break
            await asyncio.sleep(0.1)
        self.failed += self.sent - len(self.latencies) + len(self.waiting)
        for transport, _ in made:
            transport.close()
        return self


class Server:
    """Workers that share one listening socket."""

    def __init__(self, workers: int, options: dict[str, object], cores: str | None) -> None:
        self.listening = socket.socket()
        self.listening.bind(("127.0.0.1", 0))
        self.listening.listen(2048)
        self.port = self.listening.getsockname()[1]
        # One thread for each product: more would fight over the cores.
        environment = {
            **os.environ,
            "OPENBLAS_NUM_THREADS": "1",
            "POLARS_MAX_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "PALATE_BENCH": json.dumps(options),
        }
        pinned = ["taskset", "-c", cores] if cores else []
        command = [
            *pinned,
            sys.executable,
            str(Path(__file__).with_name("serve_worker.py")),
            str(self.listening.fileno()),
        ]
        handles = (self.listening.fileno(),)
        self.processes = [subprocess.Popen(command, env=environment, pass_fds=handles) for _ in range(workers)]

    def wait_until_ready(self) -> float:
        """Seconds until the first answer; then it waits until nothing is compiled any more."""
        start = time.perf_counter()
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=120) as client:
            client.get("/v1/recommend/user0").raise_for_status()
        ready = time.perf_counter() - start
        used = -1.0
        while self.cpu_seconds() - used > 0.1:
            used = self.cpu_seconds()
            time.sleep(2)
        return ready

    def cpu_seconds(self) -> float:
        fields = [Path(f"/proc/{each.pid}/stat").read_text().rsplit(")", 1)[1].split() for each in self.processes]
        return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")

    def megabytes(self) -> dict[str, float]:
        """Of a worker: resident, its part where pages are shared, and its own alone."""
        found = dict.fromkeys(("Rss", "Pss", "Private_Clean", "Private_Dirty"), 0)
        for each in self.processes:
            for line in Path(f"/proc/{each.pid}/smaps_rollup").read_text().splitlines():
                name = line.split(":")[0]
                if name in found:
                    found[name] += int(line.split()[1])
        share = {name: round(size / 1024 / len(self.processes), 1) for name, size in found.items()}
        return {
            "resident": share["Rss"],
            "proportional": share["Pss"],
            "own": share["Private_Clean"] + share["Private_Dirty"],
        }

    def stop(self) -> None:
        for each in self.processes:
            each.send_signal(signal.SIGTERM)
        for each in self.processes:
            each.wait(timeout=30)
        self.listening.close()


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A server of its own, syncing once a second (Redis' default for its journal)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = [
        "--port",
        str(port),
        "--dir",
        str(folder),
        "--appendonly",
        "yes",
        "--appendfsync",
        "everysec",
        "--save",
        "",
    ]
    process = subprocess.Popen([shutil.which("redis-server") or "redis-server", *options], stdout=subprocess.DEVNULL)
    time.sleep(0.5)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


def measured(server: Server, load: Load) -> dict[str, float]:
    before = server.cpu_seconds()
    done = asyncio.run(load.run())
    p50, p99, most = (1000 * np.percentile(done.latencies, [50, 99, 100])).round(2).tolist()
    return {
        "requests_per_s": round(len(done.latencies) / load.seconds, 1),
        "p50_ms": p50,
        "p99_ms": p99,
        "max_ms": most,
        "failed": done.failed,
        "server_cpu_ms": round(1000 * (server.cpu_seconds() - before) / max(1, len(done.latencies)), 3),
    }


def run(
    name: str, workers: int, options: dict[str, object], users: list[str], arguments: argparse.Namespace
) -> dict[str, object]:
    server = Server(workers, options, arguments.cores)
    try:
        ready = server.wait_until_ready()
        asyncio.run(Load(server.port, users[::-1], arguments.connections, None, 2).run())
        row: dict[str, object] = {"name": name, "workers": workers, "first_answer_s": round(ready, 2)}
        row["closed"] = measured(server, Load(server.port, users, arguments.connections, None, arguments.seconds))
        if not options["constant"]:
            moved = users[len(users) // 2 :] + users[: len(users) // 2]
            row["open"] = measured(server, Load(server.port, moved, 256, arguments.rate, arguments.seconds))
            row["megabytes"] = server.megabytes()
    finally:
        server.stop()
    print(json.dumps(row), flush=True)
    return row


def table(rows: list[dict[str, object]]) -> str:
    lines = ["| state | workers | requests/s | p50 ms | p99 ms | CPU ms | at the rate: p50 | p99 | failed | own MB |"]
    lines.append("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for row in rows:
        closed, open_, size = row["closed"], row.get("open", {}), row.get("megabytes", {})
        figures = [closed[key] for key in ("requests_per_s", "p50_ms", "p99_ms", "server_cpu_ms")]  # type: ignore[index]
        figures += [open_.get("p50_ms", ""), open_.get("p99_ms", "")]  # type: ignore[attr-defined]
        failed = closed["failed"] + open_.get("failed", 0)  # type: ignore[index,attr-defined]
        lines.append(
            f"| {row['name']} | {row['workers']} | "
            + " | ".join(map(str, [*figures, failed, size.get("own", "")]))
            + " |"
        )  # type: ignore[attr-defined]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--full", action="store_true", help="sequence encoder, ranker, every source, caps")
    parser.add_argument("--keep", type=Path, help="where the snapshot is built, or was before")
    parser.add_argument("--snapshot", type=Path, help="a folder of snapshots of one's own, with a current one")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--states", nargs="+", default=["constant", "sqlite", "redis"], help="also: none")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--rate", type=float, default=800)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--cores", help="of the workers, as taskset takes them")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        folder = arguments.snapshot or arguments.keep or temporary / "snapshots"
        if arguments.snapshot is None and not (folder / "current").exists():
            wide = (16, 16) if arguments.items >= 50_000 else (8, 8)
            synthetic_snapshot(folder, arguments.items, 64, arguments.users, arguments.full, wide)
        ids = load_snapshot(current(folder)).user_ids
        users = np.random.default_rng(0).permutation(ids).tolist()
        rows = []
        for workers in arguments.workers:
            for kind in arguments.states:
                own = temporary / f"{kind}{workers}"
                own.mkdir()
                options = {
                    "folder": str(folder),
                    "state": None,
                    "constant": kind == "constant",
                    "pipeline": FULL if arguments.full else {},
                }
                if kind == "redis":
                    with redis(own) as address:
                        rows.append(run(kind, workers, {**options, "state": address}, users, arguments))
                    continue
                if kind != "none":
                    options["state"] = f"sqlite:{own / 'state.sqlite'}"
                rows.append(run(kind, workers, options, users, arguments))
    RESULTS.mkdir(exist_ok=True)
    facts = {"machine": machine_facts(), "arguments": {key: str(value) for key, value in vars(arguments).items()}}
    (RESULTS / "serve_load.json").write_text(json.dumps({**facts, "rows": rows}, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
