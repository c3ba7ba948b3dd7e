"""A real server under load, killed: nothing that was acknowledged is lost, nothing counts twice."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import polars as pl
import pytest
from state_stores import RedisServer

from palate.serving.landing import land
from palate.serving.state import open_state

SERVER = """
import sys, uvicorn
from pathlib import Path
from palate.serving import live
from palate.serving.api import create_app
from palate.serving.state import open_state
live._LAND = 0.05
snapshots, address, landing, port = sys.argv[1:]
uvicorn.run(create_app(Path(snapshots), state=open_state(address), landing=Path(landing)), port=int(port),
            log_level="error")
"""


class Server:
    def __init__(self, snapshots: Path, address: str, landing: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        words = [sys.executable, "-c", SERVER, str(snapshots), address, str(landing), str(port)]
        self.process = subprocess.Popen(words)
        for _ in range(600):
            try:
                httpx.get(f"{self.url}/health/live", verify=False)
                return
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError("the server did not start")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def send(url: str, name: str, acknowledged: list[str]) -> None:
    """Two events a request, one after the other, until the server is gone."""
    with httpx.Client(base_url=url) as client:
        for number in range(10_000):
            ids = [f"{name}-{number}-{k}" for k in range(2)]
            events = [{"event_id": each, "user_id": name, "item_id": f"i{number % 200}"} for each in ids]
            try:
                answer = client.post("/v1/events", json={"events": events})
            except httpx.TransportError:
                return
            assert answer.json()["new"] == 2
            acknowledged.extend(ids)


def parts(landing: Path) -> int:
    return len([*(landing / "events").glob("*.parquet")])


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_kill_9_under_load(store: str, snapshot_folder: Path, tmp_path: Path) -> None:
    redis = RedisServer(tmp_path) if store == "redis" else None
    address = redis.address if redis else f"sqlite:{tmp_path / 'state.sqlite'}"
    landing, acknowledged, moments = tmp_path / "landing", list[str](), random.Random(store)
    for round_ in range(2):
        server = Server(snapshot_folder, address, landing)
        names = [f"round{round_}-sender{k}" for k in range(4)]
        threads = [threading.Thread(target=send, args=(server.url, name, acknowledged)) for name in names]
        for thread in threads:
            thread.start()
        sent, landed, until = len(acknowledged), parts(landing), time.monotonic() + 60
        while len(acknowledged) < sent + 60 or parts(landing) <= landed:
            assert time.monotonic() < until, "nothing was landed while the load was on"
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.2))  # at any point between two landings
        server.kill()
        for thread in threads:
            thread.join()
    assert len(acknowledged) > 50
    state = open_state(address)
    land(state, landing)
    found = pl.read_parquet(landing / "events" / "*.parquet")["event_id"]
    assert found.n_unique() == len(found)
    assert set(acknowledged) <= set(found)
    remembered = {
        each.event_id
        for name in {event.rpartition("-")[0].rpartition("-")[0] for event in acknowledged}
        for each in state.recent(name)
    }
    assert remembered <= set(found) and len(remembered) > 50
    state.close()
    if redis:
        redis.stop()
