"""What one PUT of one item costs, by the size of the catalogue.

    python benchmarks/put_items.py [--items 10000 100000] [--rounds 60]

In this process, with SQLite: an item with a vector of its own is kept and served, and the next request looks things up
by its names. Prints p50 and p99 in milliseconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np
from serve_load import synthetic_snapshot

from palate.serving.arrivals import Arrival
from palate.serving.live import Live
from palate.serving.load import load_snapshot
from palate.serving.opened import Snapshot
from palate.serving.state import open_state
from palate.serving.versions import current

FIRST = 5  # rounds in which things are made that are made once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    for n_items in options.items:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            synthetic_snapshot(folder / "snapshots", n_items)
            with closing(open_state(f"sqlite:{folder / 'state.sqlite'}")) as state:
                live = Live(load_snapshot(current(folder / "snapshots")), state)
                seconds = [put(live, number) for number in range(FIRST + options.rounds)][FIRST:]
        half, most = np.percentile(seconds, [50, 99]) * 1e3
        print(f"{n_items} items: p50 {half:.1f}, p99 {most:.1f} ms")


def put(live: Live, number: int) -> float:
    vector = np.random.default_rng(number).normal(size=live.built.vectors.shape[1]).tolist()
    start = time.perf_counter()
    live.put([Arrival(item_id=f"new{number}", title="New", vector=vector)])
    assert names(live.snapshot, live.built.n_built + number) == f"new{number}"
    return time.perf_counter() - start


def names(snapshot: Snapshot, num: int) -> str:
    """As a slate looks them up."""
    item_id = snapshot.item_ids[num]
    assert snapshot.item_nums[item_id] == num and snapshot.titles[num] == "New"
    snapshot.history(snapshot.user_ids[0])
    snapshot.known(item_id)
    return item_id


if __name__ == "__main__":
    main()
