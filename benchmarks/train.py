"""How fast sequence models train: SASRec beside RecBole's, HSTU, a Transformer on PyTorch's own attention, the limit.

    python benchmarks/train.py [--set movielens-100k] [--recbole VENV]   # VENV of recbole/setup.sh
    python benchmarks/train.py --memory [--events 100000000]             # a log that does not fit, from disk

Every row is a process of its own, one after the other: same training events (each person's last two left out, as
RecBole cuts them), same sizes, dropout, loss and events a step. One predicted event counts as one event: RecBole makes
a sample of each prefix of a history and predicts one event from it; a window here predicts each of its events. Only
whole epochs after the first are timed (of RecBole: batches after the first), and the fastest counts on both sides:
other work on the machine only slows. Beside seconds of the clock stand those of the processor, all threads together.
Prints Markdown tables, writes benchmarks/results/train.json (or train-memory.json).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from data_sets import NAMES, load
from machine import machine_facts
from torch import Tensor, nn

from palate.data.event_log import Chunk, open_log, write_log
from palate.data.splits import split_leave_last_one_out
from palate.models.hstu import Hstu, HstuConfig
from palate.models.sasrec import SasRec, SasRecConfig
from palate.models.sequence_retriever import SequenceNetwork, SequenceRetriever

HERE = Path(__file__).resolve().parent
SIZES: dict[str, Any] = {"dimensions": 64, "length": 50, "dropout": 0.5}
DEEP: dict[str, Any] = {"blocks": 2, "heads": 2}
BATCH = 2048  # RecBole's default
EPOCHS = 6  # the first is not timed
UNITS = ("events_per_second", "events_per_cpu_second")


class Sdpa(SequenceNetwork):
    """A Transformer of SASRec's size as one writes it with PyTorch's own parts."""

    def __init__(self, items: nn.Module, config: SasRecConfig) -> None:
        super().__init__(items)
        d, p = config.dimensions, config.dropout
        self.heads, self.dropout, self.p = config.heads, nn.Dropout(p), p
        self.places = nn.Embedding(config.length, d)
        self.mixes = nn.ModuleList(nn.Linear(d, 3 * d) for _ in range(config.blocks))
        self.outs = nn.ModuleList(nn.Linear(d, d) for _ in range(config.blocks))
        wide = config.widening * d
        self.feeds = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(d), nn.Linear(d, wide), nn.GELU(), nn.Linear(wide, d), nn.Dropout(p))
            for _ in range(config.blocks)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(config.blocks + 1))

    def hidden(self, tokens: Tensor, times: Tensor) -> Tensor:
        x = self.dropout(self.items(tokens) + self.places.weight[: tokens.shape[1]])
        for norm, mix, out, feed in zip(self.norms, self.mixes, self.outs, self.feeds, strict=False):
            q, k, v = mix(norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            read = F.scaled_dot_product_attention(q, k, v, dropout_p=self.p * self.training, is_causal=True)
            x = x + self.dropout(out(read.transpose(1, 2).flatten(2)))
            x = x + feed(x)
        return self.norms[-1](x)


class SdpaModel(SequenceRetriever[SasRecConfig]):
    name = "sdpa"
    config_kind = SasRecConfig

    def network(self, items: nn.Module) -> Sdpa:
        return Sdpa(items, self.config)


FULL, PAIRS = {"loss": "full", "label_smoothing": 0.0}, {"loss": "bpr"}
# name -> (class, configuration beyond `SIZES`)
OURS: dict[str, tuple[Any, dict[str, Any]]] = {
    "SASRec, 2048 events a step": (SasRec, {**DEEP, **FULL}),
    "SASRec, 512 events a step": (SasRec, {**DEEP, **FULL, "batch_targets": 512}),
    "SASRec, bfloat16": (SasRec, {**DEEP, **FULL, "precision": "bfloat16"}),
    "SASRec, torch.compile": (SasRec, {**DEEP, **FULL, "compile": True}),
    "SASRec, BPR": (SasRec, {**DEEP, **PAIRS}),
    "Transformer on SDPA": (SdpaModel, {**DEEP, **FULL}),
    "HSTU": (Hstu, {**DEEP, **FULL, "temperature": None}),
    "HSTU without time bias": (Hstu, {**DEEP, **FULL, "temperature": None, "time_bias": False}),
}
RECBOLE: dict[str, dict[str, Any]] = {
    "RecBole SASRec, as it comes": {"loss": "CE", "anomaly": True},
    "RecBole SASRec, anomaly detection off": {"loss": "CE", "anomaly": False},
    "RecBole SASRec, BPR, anomaly detection off": {"loss": "BPR", "anomaly": False},
}


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def time_ours(name: str, data: str, length: int, threads: int) -> dict[str, Any]:
    """Events predicted per second over whole epochs after the first."""
    kind, params = OURS[name]
    train = split_leave_last_one_out(load(data)).train
    config = {**SIZES, "length": length, "batch_targets": BATCH, "epochs": EPOCHS, "threads": threads, **params}
    marks: list[float] = []
    spent: list[float] = []
    losses: list[float] = []
    epochs: list[float] = []

    def mark(_: str, done: int, total: int, figures: dict[str, float]) -> None:
        marks.append(time.perf_counter())
        spent.append(time.process_time())
        losses.append(figures["loss"])
        epochs.append(figures["epoch"])

    model = kind((HstuConfig if kind is Hstu else SasRecConfig)(**config), on_progress=mark).fit(train)
    events, ends = train.events.height, [i for i, epoch in enumerate(epochs) if epochs[i + 1 : i + 2] != [epoch]]
    wall, cpu = (np.diff([clock[i] for i in ends]) for clock in (marks, spent))
    return {
        "events_per_second": events / float(wall.min()),
        "events_per_cpu_second": events / float(cpu.min()),
        "events": events * (EPOCHS - 1),
        "seconds": wall.tolist(),
        "parameters": sum(p.numel() for p in model._network.parameters()),
        "mean_loss": float(np.mean(losses[ends[-2] + 1 :])),
        "peak_mib": peak_mib(),
        "items": int((train.item_counts > 0).sum()),
        "mean_window": events / np.ceil(np.diff(train.histories.offsets) / length).sum(),
    }


def time_products(threads: int) -> dict[str, float]:
    """Floating point operations per second of matrix products on this machine: a large one and the model's own."""
    torch.set_num_threads(threads)
    shapes = {
        "1024x1024x1024": (1024, 1024, 1024),
        "events x d x 4d": (BATCH, 64, 256),
        "events x d x items": (BATCH, 64, 1680),
    }
    found = {}
    for name, (n, k, m) in shapes.items():
        a, b, best = torch.randn(n, k), torch.randn(k, m), float("inf")
        for _ in range(60):
            begun = time.perf_counter()
            a @ b
            best = min(best, time.perf_counter() - begun)
        found[name] = 2 * n * k * m / best / 1e9
    return found


def operations(name: str, found: dict[str, Any], length: int) -> float:
    """Of the matrix products for one event, forward and twice that backward."""
    d, blocks, t = SIZES["dimensions"], DEEP["blocks"], min(length, found["mean_window"])
    dense = 5 * d * d if name.startswith("HSTU") else 12 * d * d
    scored = 2 if "BPR" in name else found["items"]
    return 3 * 2 * (blocks * (dense + 2 * t * d) + scored * d)


def alone(arguments: list[str], python: str = sys.executable) -> dict[str, Any]:
    """The JSON on the last line of a fresh process."""
    done = subprocess.run([python, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def time_recbole(venv: Path, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Each of `RECBOLE` in its own environment over the same events."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / args.set).mkdir()
        events = load(args.set).events
        table = events.select(
            pl.col("user_num").alias("user_id:token"),
            pl.col("item_num").alias("item_id:token"),
            pl.col("timestamp").dt.epoch("us").cast(pl.Float64).alias("timestamp:float"),
        )
        table.write_csv(Path(folder) / args.set / f"{args.set}.inter", separator="\t")
        for name, given in RECBOLE.items():
            if args.only and not any(part in name for part in args.only):
                continue
            options = {**SIZES, **DEEP, **given, "length": args.length, "widening": 4, "batch": BATCH, "set": args.set}
            options |= {"threads": args.threads, "seconds": args.seconds}
            script = [str(HERE / "recbole" / "speed.py"), folder, json.dumps(options)]
            rows[name] = alone(script, str(venv / "bin" / "python"))
            print(f"{name}: {rows[name]}", file=sys.stderr, flush=True)
    return rows


def compare(args: argparse.Namespace) -> None:
    rows: dict[str, dict[str, Any]] = {}
    shared = ["--set", args.set, "--length", str(args.length), "--threads", str(args.threads)]
    products = alone([__file__, "--one", "products", *shared])
    for name in OURS:
        if not args.only or any(part in name for part in args.only):
            rows[name] = alone([__file__, "--one", name, *shared])
            print(f"{name}: {rows[name]}", file=sys.stderr, flush=True)
            flops = operations(name, rows[name], args.length)
            rows[name] |= {"flop_per_event": flops, "limit": products["1024x1024x1024"] * 1e9 / flops}
    if args.recbole is not None:
        rows |= time_recbole(args.recbole, args)
    if args.only:  # the rows of an earlier run stay beside these
        kept = HERE / "results" / "train.json"
        rows = (json.loads(kept.read_text())["rows"] if kept.exists() else {}) | rows
    said = {"set": args.set, "sizes": {**SIZES, **DEEP, "length": args.length}, "batch": BATCH, "threads": args.threads}
    save("train", {**said, "gflops": products, "rows": rows, "machine": machine_facts()})
    peers = [row for name, row in rows.items() if "RecBole" in name and "BPR" not in name]
    fastest = {unit: max((row[unit] for row in peers), default=None) for unit in UNITS}
    print(f"\n{args.set}, length {args.length}, {args.threads} threads; matrix products, GFLOP/s: {products}\n")
    print("| model | events/s | a CPU second | times RecBole's faster | share of the limit | parameters | peak MiB |")
    print("|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        speeds = [row[unit] for unit in UNITS]
        times = [f"{row[unit] / most:.1f}" for unit, most in fastest.items() if most and "BPR" not in name]
        share = f"{speeds[0] / row['limit']:.0%} of {row['limit']:,.0f}" if "limit" in row else ""
        print(
            f"| {name} | {speeds[0]:,.0f} | {speeds[1]:,.0f} | {' / '.join(times)} | {share} | {row['parameters']:,} "
            f"| {row['peak_mib']:,.0f} |"
        )


def synthetic(events: int, users: int, items: int) -> Iterator[Chunk]:
    """Events of skewed people and items in random order, the same at each call."""
    size = 4_000_000
    for number, start in enumerate(range(0, events, size)):
        rng, n = np.random.default_rng(number), min(size, events - start)
        user = (users * rng.random(n) ** 1.5).astype(np.int32)
        item = (items * rng.random(n) ** 3).astype(np.int32)
        yield user, item, rng.integers(1_600_000_000, 1_660_000_000, n) * 1_000_000


class EnoughError(Exception):
    """The steps that were asked for are done."""


def train_from_disk(folder: Path, steps: int, threads: int) -> dict[str, Any]:
    """Some steps of an epoch over a mapped log."""
    marks: list[float] = []
    config = SasRecConfig(loss="sampled", negatives=4096, batch_targets=4096, length=50, threads=threads)

    def mark(_: str, done: int, total: int, figures: dict[str, float]) -> None:
        marks.append(time.perf_counter())
        if done == steps:
            raise EnoughError

    begun, log = time.perf_counter(), open_log(folder)
    with contextlib.suppress(EnoughError):
        SasRec(config, on_progress=mark).fit(log)
    return {
        "events": len(log.histories.items),
        "items": log.n_items,
        "seconds_to_first_step": marks[0] - begun,
        "events_per_second": config.batch_targets * (len(marks) - 11) / (marks[-1] - marks[10]),
        "steps": len(marks),
        "peak_gib": peak_mib() / 1024,
    }


def memory(args: argparse.Namespace) -> None:
    folder = args.folder or Path(tempfile.mkdtemp())
    given = ["--events", str(args.events), "--items", str(args.items), "--folder", str(folder)]
    given += ["--steps", str(args.steps), "--threads", str(args.threads)]
    written = {} if (folder / "log").exists() else alone([__file__, "--one", "write", *given])
    print(f"written: {written}", file=sys.stderr, flush=True)
    trained = alone([__file__, "--one", "memory", *given])
    save("train-memory", {"written": written, "trained": trained, "machine": machine_facts()})
    print("| step | events | peak GiB | seconds | events/s |\n|---|---|---|---|---|")
    if written:
        speed = f"{args.events / written['seconds']:,.0f}"
        print(f"| writing the log | {args.events:,} | {written['peak_gib']:.2f} | {written['seconds']:.0f} | {speed} |")
    speed, first = f"{trained['events_per_second']:,.0f}", f"{trained['seconds_to_first_step']:.0f} to the first"
    print(f"| {args.steps} steps of training | {args.events:,} | {trained['peak_gib']:.2f} | {first} | {speed} |")


def write(args: argparse.Namespace) -> dict[str, float]:
    begun, users = time.perf_counter(), max(1, args.events // 100)
    write_log(lambda: synthetic(args.events, users, args.items), args.folder / "log", users, args.items)
    return {"seconds": time.perf_counter() - begun, "peak_gib": peak_mib() / 1024}


def save(name: str, content: dict[str, Any]) -> None:
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / f"{name}.json").write_text(json.dumps(content, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=NAMES, default="movielens-100k")
    parser.add_argument("--length", type=int, default=SIZES["length"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+", help="parts of names of rows")
    parser.add_argument("--recbole", type=Path, help="the environment that recbole/setup.sh made")
    parser.add_argument("--seconds", type=float, default=12, help="for which each of RecBole's rows is timed")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--events", type=int, default=100_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="where the log is kept; else a temporary one")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    single = {
        "products": lambda: time_products(args.threads),
        "write": lambda: write(args),
        "memory": lambda: train_from_disk(args.folder / "log", args.steps, args.threads),
    }
    if args.one is None:
        memory(args) if args.memory else compare(args)
    elif args.one in single:
        print(json.dumps(single[args.one]()))
    else:
        print(json.dumps(time_ours(args.one, args.set, args.length, args.threads)))


if __name__ == "__main__":
    main()
