"""How long the analysis of an experiment takes, and how much memory, on a log too large for memory.

    python benchmarks/experiment_analysis.py [--rows 100_000_000] [--folder DIR] [--metrics NAME ...]

Makes the log once, in parts (text ids, as servers land them: 20 impressions a person, ten a slate, a click on one of
twenty, as many events from before), and analyses it in a process of its own: checks, the primary metric with CUPED, by
day, weekday and date, guardrail, coverage and Gini. Prints seconds and the peak of resident memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from machine import machine_facts

from palate.experiments.analyse import analyse
from palate.experiments.declare import experiment_of
from palate.experiments.log import open_log
from palate.experiments.verdict import verdict

START = datetime(2026, 3, 2, tzinfo=UTC)
DAYS, SLATE, EACH, ITEMS = 14, 10, 20, 100_000
PART = 5_000_000
DAY = 86_400_000_000
METRICS = ("return_rate", "events_per_user", "coverage", "gini")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "palate-experiment-log")
    parser.add_argument("--metrics", nargs="*", default=METRICS)
    parser.add_argument("--only-analyse", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder / str(options.rows)
    if options.only_analyse:
        print(json.dumps(analysed(folder, options.metrics)))
        return
    if not (folder / "done").exists():
        make(folder, options.rows)
    said = subprocess.run([sys.executable, *sys.argv, "--only-analyse"], check=True, stdout=subprocess.PIPE, text=True)
    print(json.dumps({**json.loads(said.stdout), "machine": machine_facts()}, indent=1))


def make(folder: Path, rows: int) -> None:
    """`rows` impressions in parts of 5 million, and their events; people differ in taste, and `more` has 3% more."""
    for kind in ("impressions", "events"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    for number, first in enumerate(range(0, rows, PART)):
        shown, done = part(first, min(PART, rows - first), number, max(1, rows // EACH))
        shown.write_parquet(folder / "impressions" / f"{number}.parquet")
        done.write_parquet(folder / "events" / f"{number}.parquet")
    (folder / "done").touch()
    print(f"made {rows:,} impressions in {time.perf_counter() - begun:.0f} s", file=sys.stderr)


def part(first: int, rows: int, seed: int, people: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    rng = np.random.default_rng(seed)
    slates = rows // SLATE
    owner = rng.integers(0, people, slates)
    variant = owner % 2
    taste = np.random.default_rng(7).gamma(4, 0.25, people)
    at = rng.integers(0, DAYS * DAY - DAY, slates) + round(START.timestamp() * 1e6)
    person, moment = np.repeat(owner, SLATE), np.repeat(at, SLATE)
    items = (rng.pareto(1.2, rows) * 50).astype(np.int64) % ITEMS
    request = np.repeat(np.arange(first // SLATE, first // SLATE + slates), SLATE)
    clicked = rng.random(rows) < 0.05 * taste[person] * (1 + 0.03 * np.repeat(variant, SLATE))
    before = rng.random(rows) < 0.05 * taste[person]
    shown = pl.DataFrame({"user_id": person, "item_id": items, "request_id": request, "timestamp": moment})
    label = (
        pl.when(pl.Series(np.repeat(variant, SLATE) == 1)).then(pl.lit("trial:more")).otherwise(pl.lit("trial:control"))
    )
    clicks = shown.filter(pl.Series(clicked)).with_columns(pl.col("timestamp") + 60_000_000)
    past = shown.filter(pl.Series(before)).with_columns(
        request_id=pl.lit(None, pl.Int64), timestamp=pl.col("timestamp") - DAYS * DAY
    )
    done = pl.concat([clicks, past]).with_columns(event_type=pl.lit("click"), value=pl.lit(None, pl.Float32))
    return named(shown.with_columns(variant=label)), named(done)


def named(frame: pl.DataFrame) -> pl.DataFrame:
    """Ids as text, and requests as long as those of servers."""
    return frame.with_columns(
        pl.concat_str(pl.lit("user-"), "user_id").alias("user_id"),
        pl.concat_str(pl.lit("item-"), "item_id").alias("item_id"),
        (pl.lit("4f1c9a7e6b2d40c8a5e3") + pl.col("request_id").cast(pl.String).str.zfill(12)).alias("request_id"),
        pl.col("timestamp").cast(pl.Datetime("us", "UTC")),
    )


def analysed(folder: Path, metrics: list[str]) -> dict[str, object]:
    halves = {"control": {"share": 0.5}, "more": {"share": 0.5}}
    end = START + timedelta(days=DAYS)
    said = {
        "name": "trial",
        "variants": halves,
        "start": START,
        "end": end,
        "guardrails": metrics[:1],
        "metrics": metrics[1:],
    }
    begun = time.perf_counter()
    analysis = analyse(open_log(folder / "impressions", folder / "events"), experiment_of(said, "benchmark"), end)
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "rows": analysis.rows,
        "people": analysis.people,
        "metrics": ["click_rate", *metrics],
        "seconds": round(seconds, 1),
        "peak GiB": round(peak, 2),
        "checks": sorted({check.state for check in analysis.checks}),
        "verdict": verdict(analysis)[0],
    }


if __name__ == "__main__":
    main()
