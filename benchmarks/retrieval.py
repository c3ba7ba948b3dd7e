"""Exact top-10 under restricts, beside FAISS, LanceDB, hnswlib, usearch and a NumPy mask, all in one run.

    python benchmarks/retrieval.py [--items 100000 1000000] [--queries 200] [--peers numpy faiss lancedb hnsw usearch]
    python benchmarks/retrieval.py --items 10000000 --codes-only --queries 50 --peers faiss    ten million, int8 alone
    python benchmarks/retrieval.py --plans            where gathering rows gets slower than reading slices through
    python benchmarks/retrieval.py --containers                       packed bits and lists beside Roaring bitmaps

One thread, one query at a time, 64 dimensions. Vectors lie around 1,024 centres, which are the leaves of a tree of two
levels (32, 32), in the order of its leaves; queries are noisy items. A topical restrict is 8 of the 1,024 leaves, drawn
anew for each of 20 restricts that the queries take turns with; attributes are spread evenly over the catalogue, the
worst case for memory. Every method gets its selectors, bitmaps and indexes beforehand; Palate keeps the places of a
restrict it has met, and `restrict new` is the time where it has not. `recall` is against products in float64 over all
allowed items. `limit` is the time in which the rows that are allowed can be read once at the bandwidth measured here.

Peers: FAISS over a flat index with each of its selectors, over SQ8 with a bitmap, and, so that it is seen what our
order of items alone gains, over a flat index in that order, with the list of rows and with a search for each slice;
LanceDB with scalar indexes and prefilter; hnswlib, whose filter is a Python function called for each item, so FAISS'
HNSW with a selector stands beside it (graphs for at most 100,000 items: building takes minutes beyond); usearch has no
filter in Python: its exact search runs over the rows that NumPy gathers. Writes `benchmarks/results/retrieval.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine_facts
from retrieval_peers import (
    GRAPHS_TO,
    LEAVES,
    Case,
    D,
    Faiss,
    Hnsw,
    K,
    Lance,
    Search,
    World,
    numpy_masks,
    usearch_gathered,
)
from threadpoolctl import threadpool_limits

from palate.data.query import Restrict
from palate.interests.tree import numbered
from palate.serving import retrieve
from palate.serving.columns import make_columns
from palate.serving.retrieve import RestrictedIndex
from palate.serving.scores import quantise

TOPICS, TURNS = 8, 20
PROBES = (16, 64, 256)  # leaves of the 1,024 that an approximate search reads
RESULTS = Path(__file__).parent / "results"
PEERS = ("numpy", "faiss", "lancedb", "hnsw", "usearch")


def bandwidth(rng: np.random.Generator) -> float:
    """Bytes a second that one thread reads from memory: the maximum of 256 MiB, best of eight."""
    data = rng.integers(2**62, size=32 * 2**20)
    best = np.inf
    for _ in range(8):
        start = time.perf_counter()
        data.max()
        best = min(best, time.perf_counter() - start)
    return data.nbytes / best


def world(n: int, n_queries: int) -> World:
    """Blocks of rows, so that ten million need no more than their own memory."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(LEAVES, D)).astype(np.float32)
    sizes = np.bincount(rng.integers(LEAVES, size=n), minlength=LEAVES)
    leaf = np.repeat(np.arange(LEAVES), sizes)
    vectors = np.empty((n, D), dtype=np.float32)
    for start in range(0, n, 100_000):
        some = leaf[start : start + 100_000]
        rows = centres[some] + rng.standard_normal(size=(len(some), D), dtype=np.float32)
        vectors[start : start + len(some)] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    order = rng.permutation(n).astype(np.int32)
    tree = numbered(order, [sizes.reshape(32, 32).sum(1), sizes], np.ones(n))
    attributes = {"one": rng.random(n) < 0.01, "ten": rng.random(n) < 0.1}
    queries = vectors[rng.integers(n, size=n_queries)] + 0.1 * rng.normal(size=(n_queries, D))
    return World(vectors, quantise(vectors), tree, attributes, queries.astype(np.float32))


def cases(made: World) -> Iterator[Case]:
    rng, leaves = np.random.default_rng(1), made.tree.at_level(2)
    chosen = [tuple(leaves[i].node for i in rng.choice(LEAVES, TOPICS, replace=False)) for _ in range(TURNS)]
    for name, nodes, attributes in (
        ("8 of 1,024 nodes", chosen, ()),
        ("attribute, 1%", [()], ("one",)),
        ("attribute, 10%", [()], ("ten",)),
        ("8 of 1,024 nodes and attribute, 10%", chosen, ("ten",)),
        ("none", [()], ()),
    ):
        restricts = [Restrict(some, attributes) for some in nodes]
        places = []
        for restrict in restricts:
            mask = np.ones(len(made.vectors), dtype=bool)
            if restrict.nodes:
                mask = np.isin(made.leaf, [made.tree.nodes[node].node - leaves[0].node for node in restrict.nodes])
            for attribute in restrict.attributes:
                mask &= made.attributes[attribute]
            places.append(np.flatnonzero(mask))
        yield Case(name, restricts, places)


def ours(made: World, codes_only: bool) -> dict[str, RestrictedIndex]:
    masks = {}
    for name, mask in made.attributes.items():
        masks[name] = np.empty_like(mask)
        masks[name][made.tree.order] = mask
    columns = make_columns(made.tree, masks)
    found = {"palate int8": RestrictedIndex(None, columns, made.codes)}
    if not codes_only:
        found["palate float32"] = RestrictedIndex(made.vectors, columns)
        found["palate int8, then float32"] = RestrictedIndex(made.vectors, columns, made.codes)
    for index in found.values():
        index.compile()
    return found


def palate(index: RestrictedIndex, case: Case, new: bool = False, probe: int = 0) -> Search:
    def search(query: np.ndarray, turn: int) -> np.ndarray:
        if new:
            index.restricts.forget()
        return index.search(query[None], case.restricts[turn], K, probe=probe)[0][0]

    return search


def truths(made: World, case: Case) -> list[set[int]]:
    """The ten best of each query, by products in float64; blocks of rows, and of each only its best."""
    turns, found = len(case.restricts), [set[int]()] * len(made.queries)
    for turn, places in enumerate(case.places):
        queries = made.queries[turn::turns].astype(np.float64)
        kept = [np.zeros((0, 2))] * len(queries)
        for start in range(0, len(places), 200_000):
            some = places[start : start + 200_000]
            for number, scores in enumerate((made.vectors[some].astype(np.float64) @ queries.T).T):
                rows = np.concatenate([kept[number], np.stack([scores, some], axis=1)])
                kept[number] = rows if len(rows) <= K else rows[np.argpartition(-rows[:, 0], K)[:K]]
        for number, rows in enumerate(kept):
            found[turn + number * turns] = set(made.tree.order[rows[:, 1].astype(np.int64)].tolist())
    return found


def timed(search: Search, queries: np.ndarray, turns: int, budget: float) -> tuple[list[float], list[set[int]]]:
    """Milliseconds and answers; a method that is slow is asked for `budget` seconds, and at least ten times."""
    for number in range(min(turns, len(queries))):
        search(queries[number], number % turns)
    seconds, found = [], []
    for number, query in enumerate(queries):
        start = time.perf_counter()
        items = search(query, number % turns)
        seconds.append(time.perf_counter() - start)
        found.append(set(np.asarray(items).tolist()) - {-1})
        if number >= 9 and sum(seconds) > budget:
            break
    return [1000 * one for one in seconds], found


def resident() -> float:
    """MB of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def built(made: World, peers: list[str]) -> tuple[dict[str, Any], dict[str, float]]:
    """The peers that hold an index of their own, and the MB by which each let this process grow."""
    kinds = {"faiss": Faiss, "lancedb": Lance, "hnsw": Hnsw}
    found, took = {}, {}
    for name in peers:
        if name in kinds and (name != "hnsw" or len(made.vectors) <= GRAPHS_TO):
            before = resident()
            found[name] = kinds[name](made)
            took[name] = round(resident() - before)
    return found, took


def measure(n: int, n_queries: int, peers: list[str], codes_only: bool, speed: float) -> list[dict[str, object]]:
    made = world(n, n_queries)
    indexes, (others, took) = ours(made, codes_only), built(made, peers)
    took |= {
        "palate float32": made.vectors.nbytes / 1e6,
        "palate int8": (made.codes.codes.nbytes + made.codes.scales.nbytes) / 1e6,
        "palate tree and attributes": (made.tree.order.nbytes + n / 8 + 4 * n / 100) / 1e6,
    }
    print(f"{n} items; MB taken by {took}", flush=True)
    rows: list[dict[str, object]] = [{"items": n, "megabytes": took}]
    for case in cases(made):
        methods: dict[str, Search] = {}
        for name, index in indexes.items():
            methods[name] = palate(index, case)
            methods[f"{name}, restrict new"] = palate(index, case, new=True)
            for probe in PROBES if case.name == "none" else ():
                methods[f"{name}, {probe} leaves, approximate"] = palate(index, case, probe=probe)
        if "numpy" in peers:
            methods |= numpy_masks(made, case)
        for other in others.values():
            methods |= other.searches(case)
        if "usearch" in peers:
            methods |= usearch_gathered(made, case)
        truth, allowed = truths(made, case), float(np.mean([len(places) for places in case.places]))
        for method, search in methods.items():
            milliseconds, found = timed(search, made.queries, len(case.restricts), 8)
            recall = np.mean([len(a & b) / max(1, len(b)) for a, b in zip(found, truth, strict=False)])
            limit = 1000 * allowed * (D + 4 if "int8" in method else D if "SQ8" in method else 4 * D) / speed
            rows.append(
                {
                    "items": n,
                    "restrict": case.name,
                    "allowed": round(allowed),
                    "method": method,
                    "least_ms": round(min(milliseconds), 3),
                    "p50_ms": round(float(np.percentile(milliseconds, 50)), 3),
                    "p99_ms": round(float(np.percentile(milliseconds, 99)), 3),
                    "recall": round(float(recall), 4),
                    "limit_ms": round(limit, 3),
                    "of_limit": round(float(np.percentile(milliseconds, 50)) / limit, 1) if "palate" in method else "",
                }
            )
            print("| " + " | ".join(map(str, rows[-1].values())) + " |", flush=True)
    return rows


def plans(n: int, n_queries: int) -> list[dict[str, object]]:
    """p50 of both plans by the share of the catalogue that an attribute lets through."""
    made, rows = world(n, n_queries), []
    for share in (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7):
        made.attributes = {"some": np.random.default_rng(2).random(n) < share}
        case = Case("some", [Restrict((), ("some",))], [])
        row: dict[str, object] = {"items": n, "share": share}
        for name, index in ours(made, False).items():
            for plan, bound in (("gather", 1.1), ("scan", 0.0)):
                retrieve.GATHER_BELOW = dict.fromkeys(retrieve.GATHER_BELOW, bound)
                row[f"{name.removeprefix('palate ')}: {plan}_p50_ms"] = round(
                    float(np.median(timed(palate(index, case), made.queries, 1, 20)[0])), 3
                )
        rows.append(row)
        print(row, flush=True)
    return rows


def containers(n: int = 1_000_000) -> list[dict[str, object]]:
    """Packed bits and lists of places beside Roaring bitmaps: bytes, and milliseconds for what a restrict needs."""
    rng = np.random.default_rng(0)
    rows = [{"share": share, **_container(rng.random((2, n)) < share)} for share in (0.001, 0.01, 0.1, 0.5)]
    print(table(rows))
    return rows


def _container(masks: np.ndarray) -> dict[str, object]:
    from pyroaring import BitMap

    places = [np.flatnonzero(mask).astype(np.uint32) for mask in masks]
    bits = [np.packbits(mask, bitorder="little") for mask in masks]
    maps = [BitMap(some) for some in places]
    for each in maps:
        each.run_optimize()
    stored = maps[0].serialize()
    return {
        "bits_bytes": bits[0].nbytes,
        "list_bytes": places[0].nbytes,
        "roaring_bytes": len(stored),
        "bits_and_ms": once(lambda: bits[0] & bits[1]),
        "list_and_ms": once(lambda: np.intersect1d(*places, assume_unique=True)),
        "roaring_and_ms": once(lambda: maps[0] & maps[1]),
        "bits_to_places_ms": once(lambda: np.flatnonzero(np.unpackbits(bits[0], bitorder="little"))),
        "roaring_to_places_ms": once(lambda: np.array(maps[0].to_array(), dtype=np.int64)),
        "roaring_open_ms": once(lambda: BitMap.deserialize(stored)),
    }


def table(rows: list[dict[str, object]]) -> str:
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "--|" * len(names)]
    return "\n".join([*lines, *["| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows]])


def once(work: Callable[[], object], times: int = 30) -> float:
    """The median in milliseconds."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return round(1000 * float(np.median(seconds)), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument("--codes-only", action="store_true")
    parser.add_argument("--plans", action="store_true")
    parser.add_argument("--containers", action="store_true")
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    with threadpool_limits(1):
        speed = bandwidth(np.random.default_rng(0))
        print(f"one thread reads {speed / 1e9:.1f} GB/s; {arguments.queries} queries, k = {K}, d = {D}\n")
        if arguments.containers:
            rows = containers()
        else:
            for n in arguments.items:
                rows += (
                    plans(n, arguments.queries)
                    if arguments.plans
                    else measure(n, arguments.queries, list(arguments.peers), arguments.codes_only, speed)
                )
    RESULTS.mkdir(exist_ok=True)
    content = {"machine": machine_facts(), "bandwidth_bytes_per_s": speed, "queries": arguments.queries, "rows": rows}
    kinds = {"_plans": arguments.plans, "_containers": arguments.containers, "_codes": arguments.codes_only}
    kind = next((name for name, is_it in kinds.items() if is_it), "")
    (RESULTS / f"retrieval{kind}.json").write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
