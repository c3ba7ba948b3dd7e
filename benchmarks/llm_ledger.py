"""The ledger at size: commits a second, look-ups a second, bytes an answer, time to open.

    python benchmarks/llm_ledger.py [--rows 1000000] [--folder DIR]

Requests are those of `palate annotate` about real films (the bundled sample, numbered so that each differs), answers
those of a choice between two options. The ledger is filled in transactions of 256, as a runner at full speed does;
single commits and commits of 64 are measured on the full ledger. Look-ups are of random keys, half of them absent, in
parts of 256, as the runner asks. The floor of a commit is what one fsync takes on this disk.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from machine import machine_facts

from palate.data.movielens import read_movielens
from palate.knowledge.annotate import item_text, label_request
from palate.knowledge.attributes import load_attributes
from palate.llm.ledger import Entry, Ledger
from palate.llm.request import Answer

ROOT = Path(__file__).resolve().parent.parent
KEPT = 500_000
MODEL = "SmolLM2-135M-Instruct.Q4_1"


def entries(first: int) -> Iterator[Entry]:
    """Endless, each different."""
    dataset = read_movielens(ROOT / "data" / "ml-latest-small")
    attributes = load_attributes(ROOT / "examples" / "movielens" / "attributes")
    texts = [item_text(dataset, num) for num in range(dataset.n_items)]
    number = first
    while True:
        attribute = attributes[number % len(attributes)]
        text = f"{texts[number % len(texts)]}\nNumber {number}"
        share = (number * 2654435761 % 10**9) / 10**9
        answer = Answer(
            attribute.options[0],
            probabilities=(share, 1 - share),
            method="exact",
            tokens_in=150 + number % 100,
            tokens_cached=120,
            tokens_out=1,
            seconds=0.05 + share / 10,
            model=MODEL,
            engine="llama.cpp",
        )
        yield Entry.of(label_request(text, attribute, str(number)), answer, MODEL)
        number += 1


def fsync_seconds(folder: Path, times: int = 200) -> float:
    path = folder / "fsync"
    with path.open("wb") as file:
        start = time.perf_counter()
        for _ in range(times):
            file.write(b"0" * 4096)
            file.flush()
            os.fsync(file.fileno())
        return (time.perf_counter() - start) / times


def fill(ledger: Ledger, rows: int) -> tuple[float, list[str]]:
    """Seconds within the ledger, and a sample of the keys."""
    source, seconds, sample = entries(0), 0.0, []
    for _ in range(0, rows, 256):
        part = list(islice(source, 256))
        start = time.perf_counter()
        ledger.keep(part)
        seconds += time.perf_counter() - start
        sample.append(random.choice(part).key)
    return seconds, sample


def multiply(path: Path, rows: int) -> list[str]:
    """Copies of the rows there are, under keys of their own, until there are `rows`; a sample of the keys."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA cache_size=-1000000")
        columns = [name for _, name, *_ in db.execute("PRAGMA table_info(answers)") if name not in ("id", "key")]
        (there,) = db.execute("SELECT COUNT(*) FROM answers").fetchone()
        copied = f"key, {', '.join(columns)}"
        for first in range(there, rows, there):
            part = f"SELECT randomblob(16), {', '.join(columns)} FROM answers WHERE id <= ?"
            db.execute(f"INSERT INTO answers ({copied}) {part}", (min(there, rows - first),))
        ids = [str(random.randint(1, rows)) for _ in range(100_000)]
        return [key.hex() for (key,) in db.execute(f"SELECT key FROM answers WHERE id IN ({','.join(ids)})")]


def commits(ledger: Ledger, first: int, size: int, times: int) -> float:
    """Commits a second."""
    source = entries(first)
    parts = [list(islice(source, size)) for _ in range(times)]
    start = time.perf_counter()
    for part in parts:
        ledger.keep(part)
    return times / (time.perf_counter() - start)


def look_ups(ledger: Ledger, sample: list[str], n: int = 50_000) -> float:
    """Keys a second."""
    absent = [f"{random.getrandbits(128):032x}" for _ in range(n // 2)]
    keys = random.choices(sample, k=n - len(absent)) + absent
    random.shuffle(keys)
    start = time.perf_counter()
    for first in range(0, n, 256):
        ledger.get(keys[first : first + 256])
    return n / (time.perf_counter() - start)


def measure(folder: Path, rows: int) -> dict[str, float]:
    path = folder / "ledger.sqlite"
    with Ledger(path) as ledger:
        kept = min(rows, KEPT)
        seconds, sample = fill(ledger, kept)
    if rows > kept:
        sample = multiply(path, rows)
    size = path.stat().st_size
    start = time.perf_counter()
    with Ledger(path) as ledger:
        opened = time.perf_counter() - start
        return {
            "rows": rows,
            "filled_rows_per_second": kept / seconds,
            "bytes_per_answer": size / rows,
            "open_seconds": opened,
            "look_ups_per_second": look_ups(ledger, sample),
            "commits_of_1_per_second": commits(ledger, 10 * rows, 1, 500),
            "commits_of_64_per_second": commits(ledger, 20 * rows, 64, 100),
            "fsync_per_second": 1 / fsync_seconds(folder),
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: the temporary folder")
    args = parser.parse_args()
    random.seed(0)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        found = measure(Path(folder), args.rows)
    for name, figure in found.items():
        print(f"{name:26} {figure:14,.1f}" if figure >= 1 else f"{name:26} {figure:14,.4f}")
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "llm_ledger.json").write_text(json.dumps({**found, "machine": machine_facts()}, indent=1))


if __name__ == "__main__":
    main()
