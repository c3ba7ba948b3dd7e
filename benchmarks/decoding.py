"""Writing knowledge with drafts from earlier answers, beside greedy decoding, prompt lookup and llama.cpp.

    python benchmarks/decoding.py --items 48 --users 48   # every way on the same prompts, one run
    python benchmarks/decoding.py --pool                  # milliseconds of a look-up by the size of the pool

KAR's notes (`palate.knowledge.profiles`) on movielens-small by SmolLM2. *Items*: one half of the films was written
about before, the other half is timed. *Users*: everybody was written about when `--changed` events were fewer; the
new notes are timed. `pool`: whose earlier answers drafts come from: none (the request's own text), global, or grouped
(items by their first category; users by k-means of who watched what). Rates are over all tokens written, the reading
of the prompts included.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import load
from machine import machine_facts

from palate.data.dataset import Dataset
from palate.knowledge.factors import SCENARIOS, load_factors
from palate.knowledge.profile_prompts import text_request
from palate.knowledge.profiles import ProfileConfig, seen_windows, shown_history, shown_item
from palate.llm.decoding.pools import DecodingConfig
from palate.llm.decoding.store import DraftStore
from palate.llm.engines.llama import LlamaEngine
from palate.llm.engines.torch_lm import TorchEngine
from palate.llm.request import Answer, Engine, ListedWork, Request

RESULTS = Path(__file__).parent / "results"
SIZES = (1_000, 10_000, 100_000, 1_000_000)


def item_requests(dataset: Dataset, n: int, most: int) -> tuple[list[Request], list[Request]]:
    """The 2n films met most: every other one was written about before."""
    config, factors = ProfileConfig(), load_factors(SCENARIOS / "films.yaml")
    met = np.argsort(-dataset.item_counts, kind="stable")[: 2 * n]
    asked = [
        text_request(
            shown_item(dataset, int(i), config), factors, dataset.item_ids[i], side="item", words=40, max_tokens=most
        )
        for i in met
    ]
    return asked[0::2], asked[1::2]


def user_requests(dataset: Dataset, n: int, most: int, changed: int) -> tuple[list[Request], list[Request]]:
    """The notes of before, `changed` events ago, and those of now."""
    config, factors = ProfileConfig(), load_factors(SCENARIOS / "films.yaml")
    counts = np.diff(dataset.histories.offsets)
    chosen = np.flatnonzero(counts > 30)[:n]

    def at(ends: np.ndarray) -> list[Request]:
        windows = seen_windows(dataset, np.zeros(dataset.n_users, np.int64), ends)
        return [
            text_request(
                shown_history(dataset, seen, config),
                factors,
                dataset.user_ids[seen.user_num],
                side="user",
                words=40,
                max_tokens=most,
            )
            for seen in windows
        ]

    now = np.zeros(dataset.n_users, np.int64)
    now[chosen] = 30
    before = np.where(now > 0, np.maximum(now - changed, 1), 0)
    return at(before), at(now)


def groups(dataset: Dataset, clusters: int = 3) -> Callable[[Request], str]:
    """Items by first category, users by k-means of their rows (DARE: 3 clusters)."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import svds
    from sklearn.cluster import KMeans

    packed = dataset.histories
    met = csr_matrix(
        (np.ones(len(packed.items), np.float32), packed.items, packed.offsets), (dataset.n_users, dataset.n_items)
    )
    left, spread, _ = svds(met, k=16, random_state=0)
    cluster = KMeans(clusters, n_init=3, random_state=0).fit_predict(left * spread)
    of_item = {i: (c or ["none"])[0] for i, c in dataset.items.select("item_id", "categories").iter_rows()}
    of_user = {user: str(c) for user, c in zip(dataset.user_ids, cluster, strict=True)}

    def group_of(request: Request) -> str:
        return (of_item if request.purpose.endswith("item") else of_user)[request.entity]

    return group_of


def asked(engine: Engine, requests: Sequence[Request]) -> tuple[list[Answer], float]:
    begun = time.perf_counter()
    found = [pair for batch in engine.ask(ListedWork(requests)) for pair in batch]
    return [answer for _, answer in sorted(found, key=lambda pair: pair[0])], time.perf_counter() - begun


class PromptLookup:
    """transformers' own prompt lookup, one request at a time: it takes no batches."""

    def __init__(self, engine: TorchEngine) -> None:
        self.engine = engine

    def run(self, requests: Sequence[Request]) -> tuple[list[str], int, float]:
        import torch

        engine, begun, texts, tokens = self.engine, time.perf_counter(), [], 0
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
        return texts, tokens, time.perf_counter() - begun


def row(way: str, answers: Sequence[Answer], seconds: float, like: Sequence[str] | None) -> dict[str, Any]:
    tokens = sum(answer.tokens_out for answer in answers)
    found: dict[str, Any] = {
        "way": way,
        "answers_per_second": len(answers) / seconds,
        "tokens_per_second": tokens / seconds,
    }
    drafts = [answer.drafts for answer in answers if answer.drafts]
    if drafts:
        passes = sum(d[3] for d in drafts)
        found |= {
            "tokens_per_pass": tokens / passes,
            "drafted": sum(d[1] for d in drafts),
            "accepted": sum(d[2] for d in drafts),
        }
    if like is not None:
        found["equal_to_greedy"] = float(np.mean([a.text == text for a, text in zip(answers, like, strict=True)]))
    return found


def compare(
    side: str, before: list[Request], now: list[Request], args: argparse.Namespace, group_of: Any
) -> list[dict[str, Any]]:
    plain = TorchEngine(device=args.device, batch_size=args.batch)
    asked(plain, now[:1])  # load
    answers, seconds = asked(plain, now)
    greedy = [answer.text for answer in answers]
    rows = [row("transformers, greedy", answers, seconds, None)]
    texts, tokens, seconds = PromptLookup(plain).run(now)
    same = float(np.mean([a == b for a, b in zip(texts, greedy, strict=True)]))
    rates = {"answers_per_second": len(now) / seconds, "tokens_per_second": tokens / seconds, "equal_to_greedy": same}
    rows.append({"way": "transformers, prompt lookup", **rates})
    plain.close()
    for mode, pool in (
        ("strict", "none"),
        ("strict", "global"),
        ("strict", "grouped"),
        ("relaxed", "global"),
        ("relaxed", "grouped"),
    ):
        config = DecodingConfig(mode=mode, pool=pool)
        engine = TorchEngine(device=args.device, batch_size=args.batch, decoding=config, group_of=group_of)
        asked(engine, before if pool != "none" else before[:1])
        answers, seconds = asked(engine, now)
        rows.append(row(f"Palate, {mode}, pool {pool}", answers, seconds, greedy))
        engine.close()
    llama = LlamaEngine(threads=args.threads)
    asked(llama, now[:1])
    rows.append(row("llama.cpp, greedy", *asked(llama, now), greedy))
    llama.close()
    for one in rows:
        one["side"] = side
        print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in one.items()}), flush=True)
    return rows


def pool_sizes() -> list[dict[str, Any]]:
    """Look-ups in pools of answers of 60 tokens that begin alike and go on as words do (a chain of Zipfian tokens)."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, 20_001) ** 1.1
    follow = rng.choice(20_000, (20_000, 8), p=share / share.sum()).astype(np.int32)
    store, rows = DraftStore(), []
    for size in SIZES:
        while (held := len(store) // 61) < size:
            n = min(20_000, size - held)
            answers = np.empty((n, 60), np.int32)
            answers[:, 0] = rng.integers(0, 50, n)
            for place in range(1, 60):
                answers[:, place] = follow[answers[:, place - 1], np.minimum(rng.geometric(0.5, n) - 1, 7)]
            store.add(answers.tolist())
        contexts = [answers[rng.integers(n), : rng.integers(0, 50)].tolist() for _ in range(2000)]
        begun = time.perf_counter()
        found = sum(len(store.after(context)) > 0 for context in contexts)
        each = (time.perf_counter() - begun) / len(contexts)
        rows.append(
            {
                "answers": size,
                "look_up_ms": 1000 * each,
                "found": found / 2000,
                "bytes_per_token": store.nbytes / len(store),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=48)
    parser.add_argument("--users", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=60, help="the most that an answer takes")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--changed", type=int, nargs="+", default=[1, 5, 15, 29], help="events of 30 that are new")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pool", action="store_true")
    args = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    if args.pool:
        content: Any = {"rows": pool_sizes(), "machine": machine_facts()}
        (RESULTS / "decoding_pool.json").write_text(json.dumps(content, indent=1))
        return
    import torch

    torch.set_num_threads(args.threads)
    dataset = load("movielens-small")
    group_of, rows = groups(dataset), []
    if args.items:
        rows += compare("items", *item_requests(dataset, args.items, args.tokens), args, group_of)
    for changed in args.changed if args.users else []:
        rows += compare(
            f"users, {changed} of 30 new", *user_requests(dataset, args.users, args.tokens, changed), args, group_of
        )
    (RESULTS / "decoding.json").write_text(json.dumps({"rows": rows, "machine": machine_facts()}, indent=1))


if __name__ == "__main__":
    main()
