"""A new server on an empty machine: from the command to the first good slate.

    python benchmarks/cold_start.py [--snapshots FOLDER] [--items 100000] [--rounds 3]

Starts `palate serve` on a snapshot that is there (a synthetic one of 64 dimensions by default), with an empty state,
an empty cache of compiled code and, where this process may (root), no page of any file in memory, and asks for a slate
until one comes. Beside it the same with caches as the first start left them, and the seconds that parts take. Prints
a table and writes `benchmarks/results/cold_start.json`. The bar: under 3 seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine_facts
from serve_load import synthetic_snapshot
from served import served

RESULTS = Path(__file__).parent / "results"
PARTS = """
import sys, time
start = time.perf_counter()
def told(what):
    global start
    now = time.perf_counter()
    print(what, now - start)
    start = now
from pathlib import Path
from palate.serving.api import create_app, _warm
from palate.serving.load import load_snapshot
from palate.serving.versions import current
told("import")
snapshot = load_snapshot(current(Path(sys.argv[1])))
told("check and load")
_warm(snapshot)
told("warm")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=Path, help="a folder of snapshots with a current one")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = folder / "made"
        if options.snapshots is None:
            synthetic_snapshot(made, n_items=options.items, n_users=options.items // 10)
        rows = measure(options.snapshots or made, folder, options.rounds)
    RESULTS.mkdir(exist_ok=True)
    result = {"machine": machine_facts(), "items": options.items, "seconds": rows}
    (RESULTS / "cold_start.json").write_text(json.dumps(result, indent=1))
    for what, seconds in rows.items():
        print(f"{what:<34} " + "  ".join(f"{each:6.2f}" for each in seconds))


def measure(snapshots: Path, folder: Path, rounds: int) -> dict[str, list[float]]:
    rows: dict[str, list[float]] = {}
    for number in range(rounds):
        project = folder / f"project{number}"
        shutil.copytree(snapshots, project / ".palate" / "snapshots")
        os.environ["NUMBA_CACHE_DIR"] = str(project / "compiled")
        forgotten = forget_pages()
        first = f"first start{' (nothing in memory)' if forgotten else ''}"
        for what in (first, "again"):
            seconds, worked = first_slate(project)
            rows.setdefault(what, []).append(seconds)
            rows.setdefault(f"  processor time, {what.partition(' (')[0]}", []).append(worked)
        words = [sys.executable, "-c", PARTS, str(project / ".palate" / "snapshots")]
        said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        for line in said.splitlines():
            what, _, seconds = line.rpartition(" ")
            rows.setdefault(f"  of which {what}", []).append(float(seconds))
        shutil.rmtree(project)
    return rows


def first_slate(project: Path) -> tuple[float, float]:
    """Seconds until it came, and of processor time."""
    with served(project) as server:
        answer = json.loads(server.wait("/v1/recommend/user1?n=10"))
        seconds, worked = time.perf_counter() - server.started, server.worked()
    assert len(answer["items"]) == 10
    return seconds, worked


def forget_pages() -> bool:
    """Of all files; needs root."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("1")
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
