"""Writing knowledge with drafts from earlier answers, beside greedy decoding, prompt lookup and llama.cpp.

    python benchmarks/decoding.py ways      # every way on the same prompts, items and users, both precisions
    python benchmarks/decoding.py changed   # by how many of 30 events are new since the stored answer
    python benchmarks/decoding.py pools     # by the number of stored answers, global and grouped
    python benchmarks/decoding.py look-ups  # milliseconds of a look-up, and bytes, by the size of the pool
    python benchmarks/decoding.py passes    # milliseconds of a pass by the tokens it reads, weights packed or not

KAR's notes (`palate.knowledge.profiles`) on movielens-small by SmolLM2. *Items*: notes about other films are stored.
*Users*: notes about the same people are stored, made when some of their events had not happened. Rates are over all
tokens written, the reading of the prompts included, one request at a time (as DARE's own figures are) or several; on a
CPU a second is one of processor time of one thread, so that a busy machine does not change them much.
Results go to results/decoding-PART.json and .html (tables and plots).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import load
from machine import machine_facts

from palate.data.dataset import Dataset
from palate.experiments.study import Chart, Report, ReportTable
from palate.knowledge.draft_groups import groups_of
from palate.knowledge.factors import SCENARIOS, load_factors
from palate.knowledge.profile_prompts import text_request
from palate.knowledge.profiles import ProfileConfig, seen_windows, shown_history, shown_item
from palate.llm.decoding.drafting import DraftConfig
from palate.llm.decoding.pools import DecodingConfig
from palate.llm.decoding.rows import RowCache
from palate.llm.decoding.store import DraftStore
from palate.llm.engines.llama import LlamaEngine
from palate.llm.engines.torch_lm import TorchEngine
from palate.llm.request import Answer, Engine, ListedWork, Request
from palate.project.study_page import write_study

RESULTS = Path(__file__).parent / "results"
SIZES = (1_000, 10_000, 100_000, 1_000_000)
WORDS = 60
Requests = list[Request]
Row = dict[str, Any]


class Task:
    """What is written: `stored` before the clock starts, `now` by every way."""

    def __init__(self, dataset: Dataset, args: argparse.Namespace) -> None:
        self.dataset, self.config = dataset, ProfileConfig()
        self.factors = load_factors(SCENARIOS / "films.yaml")
        self.tokens, self.n, self.stored = args.tokens, args.n, args.stored

    def items(self, stored: int | None = None) -> tuple[Requests, Requests]:
        """Every second of the films met most; others of them are stored."""
        met = np.argsort(-self.dataset.item_counts, kind="stable")[: 2 * max(self.n, self.stored)]
        made = [
            self._request(shown_item(self.dataset, int(i), self.config), self.dataset.item_ids[i], "item") for i in met
        ]
        return made[0::2][: self.stored if stored is None else stored], made[1::2][: self.n]

    def users(self, changed: int) -> tuple[Requests, Requests]:
        """Notes of now about `n` people, and stored ones about `stored`, these among them, `changed` events ago."""
        counts = np.diff(self.dataset.histories.offsets)
        chosen = np.flatnonzero(counts > 30)[: self.stored]
        now = np.zeros(self.dataset.n_users, np.int64)
        now[chosen] = 30
        before = np.where(now > 0, np.maximum(now - changed, 1), 0)
        return self._profiles(before), self._profiles(now)[: self.n]

    def _profiles(self, ends: np.ndarray) -> Requests:
        windows = seen_windows(self.dataset, np.zeros(self.dataset.n_users, np.int64), ends)
        return [
            self._request(shown_history(self.dataset, seen, self.config), self.dataset.user_ids[seen.user_num], "user")
            for seen in windows
        ]

    def _request(self, shown: str, entity: str, side: str) -> Request:
        return text_request(shown, self.factors, entity, side=side, words=WORDS, max_tokens=self.tokens)


def clock() -> float:
    import torch

    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def asked(engine: Engine, requests: Sequence[Request]) -> tuple[list[Answer], float]:
    begun = clock()
    found = [pair for batch in engine.ask(ListedWork(requests)) for pair in batch]
    return [answer for _, answer in sorted(found, key=lambda pair: pair[0])], clock() - begun


class PromptLookup:
    """transformers' own prompt lookup, one request at a time: it takes no batches."""

    def __init__(self, engine: TorchEngine) -> None:
        self.engine = engine

    def run(self, requests: Sequence[Request]) -> tuple[list[str], int, float]:
        import torch

        engine, begun, texts, tokens = self.engine, clock(), [], 0
        for request in requests:
            ids, mask = engine.padded([engine.prompt_tokens(request)])
            with torch.inference_mode():
                out = engine.network.generate(
                    ids,
                    attention_mask=mask,
                    max_new_tokens=request.max_tokens,
                    do_sample=False,
                    prompt_lookup_num_tokens=10,
                )
            written = out[0, ids.shape[1] :]
            texts.append(engine._tokenizer.decode(written, skip_special_tokens=True))
            tokens += len(written)
        return texts, tokens, clock() - begun


def row(way: str, answers: Sequence[Answer], seconds: float, like: Sequence[str] | None) -> Row:
    tokens = sum(answer.tokens_out for answer in answers)
    found: Row = {"way": way, "answers/s": len(answers) / seconds, "tokens/s": tokens / seconds}
    drafts = [answer.drafts for answer in answers if answer.drafts]
    if drafts:
        passes = sum(d.passes for d in drafts)
        found |= {"tokens a pass": tokens / passes, "drafted a pass": sum(d.drafted for d in drafts) / passes}
        found["not the likeliest %"] = 100 * sum(d.unlike for d in drafts) / tokens
    if like is not None:
        found["as greedy %"] = 100 * float(np.mean([a.text == text for a, text in zip(answers, like, strict=True)]))
    return found


class Bench:
    """Engines by precision; what is stored is written once, strictly, sixteen at a time, and not timed."""

    def __init__(self, args: argparse.Namespace, dataset: Dataset) -> None:
        self.args, self.group_of = args, groups_of(dataset)
        self._written: dict[tuple[str, str], list[int]] = {}

    def plain(self, now: Requests, dtype: str, at_once: int) -> tuple[Row, list[str], TorchEngine]:
        """transformers' own greedy decoding of its own model, which `packed` has not touched."""
        engine = TorchEngine(device=self.args.device, batch_size=at_once, dtype=dtype)
        assert engine.network is not None  # taken: it stays as it was loaded
        asked(engine, now[:1])
        answers, seconds = asked(engine, now)
        return row("transformers, greedy", answers, seconds, None), [answer.text for answer in answers], engine

    def drafted(
        self, stored: Requests, now: Requests, mode: str, pool: str, dtype: str, at_once: int, like: list[str]
    ) -> Row:
        """Mode `plain`: no drafts; as in every way weights are packed, and like beginnings of prompts are read once."""
        if mode == "plain":
            config = DecodingConfig(pool=pool, drafts=DraftConfig(most=0))
        else:
            config = DecodingConfig(mode=mode, pool=pool)
        engine = TorchEngine(
            device=self.args.device, batch_size=at_once, dtype=dtype, decoding=config, group_of=self.group_of
        )
        asked(engine, [replace(stored[-1], max_tokens=2, purpose="warm")])
        engine.pools.add(stored, self.stored_tokens(stored, dtype) if pool != "none" else [[] for _ in stored])
        found = row(f"Palate, {mode}, pool {pool}", *asked(engine, now), like)
        engine.close()
        return found

    def stored_tokens(self, stored: Requests, dtype: str) -> list[list[int]]:
        missing = [r for r in stored if (r.key(""), dtype) not in self._written]
        if missing:
            engine = TorchEngine(device=self.args.device, batch_size=16, dtype=dtype, decoding=DecodingConfig())
            answers, _ = asked(engine, missing)
            for request, answer in zip(missing, answers, strict=True):
                whole = answer.finish_reason == "stop"
                tokens = engine.answer_tokens(answer.text) if whole else engine.tokens(answer.text)
                self._written[request.key(""), dtype] = tokens
            engine.close()
        return [self._written[request.key(""), dtype] for request in stored]

    def llama(self, way: str, stored: Requests, now: Requests, decoding: DecodingConfig | None, like: list[str]) -> Row:
        engine = LlamaEngine(threads=self.args.threads, decoding=decoding)
        asked(engine, (stored if decoding is not None and decoding.pool == "global" else now[:1])[:16])
        found = row(way, *asked(engine, now), like)
        engine.close()
        return found


def ways(bench: Bench, task: Task) -> list[Row]:
    rows: list[Row] = []
    for side, (stored, now) in (("items", task.items()), ("users, 1 of 30 new", task.users(1))):
        for dtype, at_once in bench.args.settings:
            first, greedy, engine = bench.plain(now, dtype, at_once)
            found = [first]
            if at_once == 1:
                texts, tokens, seconds = PromptLookup(engine).run(now)
                same = 100 * float(np.mean([a == b for a, b in zip(texts, greedy, strict=True)]))
                rates = {"answers/s": len(now) / seconds, "tokens/s": tokens / seconds, "as greedy %": same}
                found.append({"way": "transformers, prompt lookup", **rates})
            engine.close()
            for mode, pool in (
                ("plain", "none"),
                ("strict", "none"),
                ("strict", "global"),
                ("strict", "grouped"),
                *RELAXED,
            ):
                found.append(bench.drafted(stored, now, mode, pool, dtype, at_once, greedy))
            for one in found:
                said(rows, {"task": side, "weights": dtype, "at once": at_once, **one}, first["tokens/s"])
        greedy_row = bench.llama("llama.cpp, greedy", stored, now, None, greedy)
        for one in (
            greedy_row,
            bench.llama("llama.cpp, own text looked up", stored, now, DecodingConfig(pool="none"), greedy),
            bench.llama("llama.cpp, earlier answers looked up", stored, now, DecodingConfig(), greedy),
        ):
            said(rows, {"task": side, "weights": "Q4_1", "at once": 1, **one}, greedy_row["tokens/s"])
    return rows


RELAXED = (("relaxed", "global"), ("relaxed", "grouped"))


def changed(bench: Bench, task: Task) -> list[Row]:
    rows: list[Row] = []
    _, now = task.users(1)
    dtype, at_once = bench.args.settings[0]
    first, greedy, engine = bench.plain(now, dtype, at_once)
    engine.close()
    for new in (1, 5, 15, 29):
        stored, _ = task.users(new)
        for mode, pool in (("strict", "global"), ("strict", "grouped"), *RELAXED):
            one = bench.drafted(stored, now, mode, pool, dtype, at_once, greedy)
            said(rows, {"new of 30": new, **one}, first["tokens/s"])
    return rows


def pools(bench: Bench, task: Task) -> list[Row]:
    rows: list[Row] = []
    dtype, at_once = bench.args.settings[0]
    stored, now = task.items()
    first, greedy, engine = bench.plain(now, dtype, at_once)
    engine.close()
    size = 12
    while size <= len(stored):
        for mode, pool in (("strict", "global"), ("strict", "grouped"), *RELAXED):
            one = bench.drafted(stored[:size], now, mode, pool, dtype, at_once, greedy)
            said(rows, {"stored answers": size, **one}, first["tokens/s"])
        size *= 3
    return rows


def said(rows: list[Row], one: Row, base: float) -> None:
    one["times greedy"] = one["tokens/s"] / base
    rows.append(one)
    print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in one.items()}), flush=True)


def look_ups() -> list[Row]:
    """Look-ups in pools of answers of 60 tokens that begin alike and go on as words do (a chain of Zipfian tokens)."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, 20_001) ** 1.1
    follow = rng.choice(20_000, (20_000, 8), p=share / share.sum()).astype(np.int32)
    store, rows = DraftStore(most_tokens=70_000_000), []
    for size in SIZES:
        while (held := len(store) // 61) < size:
            n = min(20_000, size - held)
            answers = np.empty((n, 60), np.int32)
            answers[:, 0] = rng.integers(0, 50, n)
            for place in range(1, 60):
                answers[:, place] = follow[answers[:, place - 1], np.minimum(rng.geometric(0.5, n) - 1, 7)]
            store.add(list(answers))
        contexts = [answers[rng.integers(n), : rng.integers(0, 50)].tolist() for _ in range(2000)]
        begun = time.process_time()
        found = sum(len(store.after(context)) > 0 for context in contexts)
        each = (time.process_time() - begun) / len(contexts)
        rows.append(
            {
                "answers": size,
                "way": "global",
                "look-up ms": 1000 * each,
                "found": found / 2000,
                "bytes a token": store.nbytes / len(store),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def passes(bench: Bench) -> list[Row]:
    """One request of 300 tokens; weights are read once a pass, each token costs two operations a weight."""
    import torch

    from palate.llm.packed import pack

    rows: list[Row] = []
    rng = np.random.default_rng(0)
    for dtype in ("float32", "bfloat16"):
        engine = TorchEngine(device=bench.args.device, dtype=dtype)
        network = engine.network
        weights = sum(part.numel() for part in network.parameters())
        for way in ("as loaded", "packed"):
            if way == "packed" and not pack(network):
                continue
            with torch.inference_mode():
                cache = RowCache(network, 1, 400)
                cache.read(rng.integers(5, 40_000, (1, 300)), np.arange(300)[None], np.tri(300, dtype=bool)[None])
                cache.keep([range(300)])
                for n in (1, 2, 4, 8, 16, 32):
                    ids, places = rng.integers(5, 40_000, (1, n)), 300 + np.arange(n)[None]
                    each = []
                    for _ in range(9):
                        begun = clock()
                        cache.read(ids, places, np.tri(n, dtype=bool)[None])
                        each.append(clock() - begun)
                    took = float(np.median(each))
                    rows.append({"weights": f"{dtype}, {way}", "tokens": n, "ms": 1000 * took})
                    rows[-1] |= {"GB/s": weights * network.dtype.itemsize / took / 1e9}
                    rows[-1] |= {"GFLOP/s": 2 * weights * n / took / 1e9}
                    print(json.dumps(rows[-1]), flush=True)
        engine.close()
    return rows


CHARTS = {
    "changed": [("new of 30", "times greedy", "way")],
    "pools": [("stored answers", "times greedy", "way")],
    "look-ups": [("answers", "look-up ms", "way")],
    "passes": [("tokens", "ms", "weights")],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["ways", "changed", "pools", "look-ups", "passes"])
    parser.add_argument("--n", type=int, default=6, help="answers that are timed")
    parser.add_argument("--stored", type=int, default=36, help="answers written before")
    parser.add_argument("--tokens", type=int, default=150, help="the most that an answer takes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--settings",
        nargs="+",
        default=["bfloat16:1", "float32:1", "bfloat16:8"],
        help="weights and requests at once; the first is that of the parts changed and pools",
    )
    args = parser.parse_args()
    args.settings = [(dtype, int(n)) for dtype, n in (one.split(":") for one in args.settings)]
    if args.part == "look-ups":
        rows = look_ups()
    else:
        import torch

        torch.set_num_threads(args.threads)
        dataset = load("movielens-small")
        bench = Bench(args, dataset)
        if args.part == "passes":
            rows = passes(bench)
        else:
            rows = {"ways": ways, "changed": changed, "pools": pools}[args.part](bench, Task(dataset, args))
    folder = RESULTS / f"decoding-{args.part}"
    drawn = [Chart(f"{y} by {x}", "lines", rows, x, y, of) for x, y, of in CHARTS.get(args.part, ())]
    report = Report("Writing with drafts", [], [ReportTable(args.part, rows)], drawn)
    command = " ".join(["python benchmarks/decoding.py", *sys.argv[1:]])
    write_study(folder, report, "movielens-small", command, machine_facts())


if __name__ == "__main__":
    main()
