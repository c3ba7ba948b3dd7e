"""A disk that fills and a clock that steps: what was acknowledged stays, once."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient
from state_stores import RedisServer

from palate.errors import StorageError
from palate.serving.api import create_app
from palate.serving.landing import land
from palate.serving.state import State, open_state

HOUR = 3600


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 1.5 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1500k", "palate-test", folder]
    if subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_fills_loses_nothing_that_was_acknowledged(snapshot_folder: Path, small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(500_000))
    state = open_state(f"sqlite:{small_disk / 'state.sqlite'}")
    landing = small_disk / "landing"
    client = TestClient(create_app(snapshot_folder, state=state, landing=landing))
    acknowledged, number, answer = [], 0, None
    while answer is None or answer.status_code == 200:
        ids = [f"e{number + each}-{'x' * 100}" for each in range(100)]
        events = [{"event_id": each, "user_id": "u0", "item_id": "i0"} for each in ids]
        answer = client.post("/v1/events", json={"events": events})
        acknowledged += ids if answer.status_code == 200 else []
        number += 100
    assert answer.status_code == 503 and "full" in answer.text and str(small_disk) not in answer.text
    assert client.get("/v1/recommend/u0").status_code == 200
    filling = small_disk / "filling"
    with filling.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while file.write(bytes(100)):
            pass
    with pytest.raises(StorageError):
        land(state, landing)
    assert not list(small_disk.rglob("*.parquet")) and not list(small_disk.rglob("*.tmp"))
    filling.unlink()
    ballast.unlink()
    assert client.post("/v1/events", json={"events": events}).json() == {"new": 100, "replayed": 0, "unknown_items": []}
    land(state, landing)
    landed = pl.read_parquet(landing / "events" / "*.parquet")["event_id"]
    assert sorted(landed) == sorted([*acknowledged, *ids]) and len(acknowledged) > 100
    state.close()


class Clock:
    """The wall clock, wrong by `off` seconds; the monotonic one goes on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.off, real, real_ns = 0, time.time, time.time_ns
        monkeypatch.setattr(time, "time", lambda: real() + self.off)
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + self.off * 10**9)


@pytest.fixture(params=["sqlite", "redis"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[State]:
    redis = RedisServer(tmp_path) if request.param == "redis" else None
    opened = open_state(redis.address if redis else f"sqlite:{tmp_path / 'state.sqlite'}")
    yield opened
    opened.close()
    if redis:
        redis.stop()


def test_a_clock_that_steps(
    snapshot_folder: Path, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, landing = Clock(monkeypatch), tmp_path / "landing"
    app = create_app(snapshot_folder, state=state, landing=landing)
    client = TestClient(app)

    def send(name: str) -> int:
        event = {"event_id": name, "user_id": "u0", "item_id": "i8"}
        new: int = client.post("/v1/events", json={"events": [event]}).json()["new"]
        return new

    told = []
    for step, off in enumerate((0, -12 * HOUR, 12 * HOUR, -12 * HOUR, 0)):
        clock.off = off
        assert send(f"e{step}") == 1
        assert [send(each) for each in (*told, f"e{step}")] == [0] * (step + 1)
        told.append(f"e{step}")
        assert [event.event_id for event in state.recent("u0")] == told  # in the order in which they came
        assert client.get("/v1/recommend/u0").status_code == 200
        app.state.live.write_behind()
        app.state.live.land()
    landed = pl.read_parquet(landing / "events" / "*.parquet")["event_id"]
    assert sorted(landed) == told
    assert [send(each) for each in told] == [0] * 5


def test_a_vector_lasts_by_the_clock_and_comes_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, state = Clock(monkeypatch), open_state(f"sqlite:{tmp_path / 's.sqlite'}")
    state.keep_vectors([("u0", "tag", np.ones(4, dtype=np.float32))], HOUR)
    for off, kept in ((0, True), (-12 * HOUR, True), (12 * HOUR, False)):
        clock.off = off
        assert (state.vector("u0", "tag") is not None) is kept
    state.close()
