"""`palate serve` with two workers, from its start to SIGTERM, under load and beside 10,000 idle connections."""

from __future__ import annotations

import json
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import polars as pl
import pytest
from tiny_snapshot import tiny_snapshot

from palate.serving.keys import new_key
from palate.serving.versions import rollback, use

KEY, ENTRY = new_key("load", ["read", "events"])


class Served:
    def __init__(self, project: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url, self.log = f"http://127.0.0.1:{self.port}", project / "log"
        (project / "keys.yaml").write_text(json.dumps({"keys": [ENTRY.model_dump()]}))
        words = ["serve", "--project", project, "--port", self.port, "--keys", project / "keys.yaml"]
        words += ["--workers", 2, "--drain", 1]
        with self.log.open("w") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "palate", *map(str, words)], stderr=log)
        self.until(lambda: len(self.gauges("palate_snapshot_info")) == 2)

    def gauges(self, name: str) -> list[str]:
        """The lines of a gauge that are 1: one for each worker."""
        try:
            text = httpx.get(f"{self.url}/metrics", verify=False).text
        except httpx.TransportError:
            return []
        return [line for line in text.splitlines() if line.startswith(f"{name}{{") and line.endswith(" 1.0")]

    def serves(self, name: str) -> bool:
        return sum(f'"{name}"' in line for line in self.gauges("palate_snapshot_info")) == 2

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline and self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)


class Load(threading.Thread):
    """One client that keeps its connection: an event, then a slate."""

    def __init__(self, served: Served, name: str) -> None:
        super().__init__()
        self.served, self.user, self.enough = served, name, threading.Event()
        self.failed: list[str] = []
        self.slates, self.events, self.snapshots = 0, 0, set[str]()

    def run(self) -> None:
        with httpx.Client(base_url=self.served.url, headers={"X-API-Key": KEY}) as client:
            while not self.enough.is_set():
                event = {
                    "event_id": f"{self.user}-{self.events}",
                    "user_id": self.user,
                    "item_id": f"i{self.events % 200}",
                }
                try:
                    sent = client.post("/v1/events", json={"events": [event]})
                    slate = client.get(f"/v1/recommend/{self.user}")
                except httpx.TransportError as error:
                    self.failed.append(repr(error))
                    continue
                self.failed += [each.text for each in (sent, slate) if each.status_code != 200]
                self.events, self.slates = self.events + 1, self.slates + 1
                self.snapshots.add(slate.json()["snapshot"])
                time.sleep(0.02)


@pytest.fixture
def many_files() -> Iterator[int]:
    """As many open files as may be, here and in what is started here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def project(snapshot_folder: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(snapshot_folder, tmp_path / ".palate" / "snapshots")
    yield tmp_path


def refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.slow
def test_swap_refusal_rollback_and_a_good_end_under_load(project: Path, many_files: int) -> None:
    snapshots = project / ".palate" / "snapshots"
    first = (snapshots / "current").read_text().split()[0]
    served = Served(project)
    idle = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(min(10_000, many_files - 1000))]
    loads = [Load(served, f"person{number}") for number in range(3)]
    for each in loads:
        each.start()
    second = tiny_snapshot(snapshots, n_items=200, seed=1).name  # builds it and makes it current
    served.process.send_signal(signal.SIGHUP)
    served.until(lambda: served.serves(second))
    shutil.copytree(snapshots / second, snapshots / "truncated")
    with (snapshots / "truncated" / "vectors.npy").open("r+b") as file:
        file.truncate(1000)
    use(snapshots, "truncated")  # as if it had been damaged later
    served.until(lambda: len(served.gauges("palate_snapshot_stale")) == 2)
    assert served.serves(second)
    assert rollback(snapshots) == second and rollback(snapshots) == first
    served.until(lambda: served.serves(first))
    for each in loads:
        each.enough.set()
        each.join()
    assert [each.failed for each in loads] == [[], [], []]
    assert all(each.snapshots == {first, second} for each in loads)
    slates, events = sum(each.slates for each in loads), sum(each.events for each in loads)
    text = httpx.get(f"{served.url}/metrics").text
    assert f'palate_requests_total{{route="/v1/recommend/{{user_id}}",status="200"}} {slates}.0' in text
    with socket.create_connection(("127.0.0.1", served.port)) as late:
        body = json.dumps({"events": [{"event_id": "late", "user_id": "u", "item_id": "i0"}]}).encode()
        head = f"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n"
        late.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:10])
        time.sleep(0.1)
        served.process.send_signal(signal.SIGTERM)
        served.until(lambda: httpx.get(f"{served.url}/health/ready", verify=False).status_code == 503)
        answer = httpx.get(f"{served.url}/v1/recommend/u0", headers={"X-API-Key": KEY})
        assert answer.status_code == 200 and answer.headers["connection"] == "close"
        served.until(lambda: refused(served.port))
        late.sendall(body[10:])
        assert b'"new":1' in late.makefile("rb").read()
    assert served.process.wait(20) == 0
    for each in idle:
        each.close()
    landed = pl.read_parquet(project / ".palate" / "landing" / "events" / "*.parquet")["event_id"]
    assert len(landed) == landed.n_unique() == events + 1
    lines = [line for line in served.log.read_text().splitlines() if not re.match("console|API|Stop", line)]
    told = [json.loads(line) for line in lines]
    assert {"serving", "snapshot swapped", "snapshot refused", "request", "stopped"} == {each["event"] for each in told}
    assert KEY not in served.log.read_text()
