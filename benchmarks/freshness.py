"""From an event to the slate that it changed, and from a new item to its being found, over loopback.

    python benchmarks/freshness.py [--state redis://HOST:PORT/DB] [--rounds 200]

One client, the real server in a thread of this process, a synthetic snapshot of 10,000 items of 64 dimensions. Items
bring their vectors, so that no encoder is timed. Prints p50 and p99 in milliseconds.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import uvicorn
from serve_snapshot import synthetic_snapshot

from palate.serving.api import create_app
from palate.serving.state import open_state

PORT = 18_765


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state")
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synthetic_snapshot(folder / "snapshots")
        state = open_state(options.state or f"sqlite:{folder / 'state.sqlite'}")
        app = create_app(folder / "snapshots", state=state, landing=folder / "landing")
        server = uvicorn.Server(uvicorn.Config(app, port=PORT, log_level="error"))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        with httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=60) as client:
            measure(client, options.rounds)
        server.should_exit = True
        thread.join()
        state.close()


def measure(client: httpx.Client, rounds: int) -> None:
    run = str(time.time_ns())
    seconds: dict[str, list[float]] = {"event to slate": [], "slate alone": [], "item to found": []}
    for number in range(rounds):
        user = f"user{number}"
        top = slate(client, user)[0]
        start = time.perf_counter()
        event = {"event_id": f"{run}-{number}", "user_id": user, "item_id": top}
        client.post("/v1/events", json={"events": [event]}).raise_for_status()
        kept = time.perf_counter()
        assert top not in slate(client, user)
        seconds["event to slate"].append(time.perf_counter() - start)
        seconds["slate alone"].append(time.perf_counter() - kept)
        vector = np.random.default_rng(number).normal(size=64).tolist()
        item = {"item_id": f"{run}-{number}", "title": "new", "vector": vector}
        start = time.perf_counter()
        client.put("/v1/items", json={"items": [item]}).raise_for_status()
        client.get(f"/v1/items/{item['item_id']}").raise_for_status()
        seconds["item to found"].append(time.perf_counter() - start)
    for name, values in seconds.items():
        p50, p99 = 1000 * np.percentile(values, [50, 99])
        print(f"{name:<15} p50 {p50:.1f}  p99 {p99:.1f} ms")


def slate(client: httpx.Client, user: str) -> list[str]:
    return [item["item_id"] for item in client.get(f"/v1/recommend/{user}").raise_for_status().json()["items"]]


if __name__ == "__main__":
    main()
