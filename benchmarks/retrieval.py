"""Latency of exact restricted top-10 beside a NumPy mask over all items and FAISS with a selector.

    python benchmarks/retrieval.py [--items 100000 1000000] [--queries 200] [--no-hnsw]
    python benchmarks/retrieval.py --plans        where gathering rows gets slower than reading the slice through

One thread, one query at a time, all methods in one process on the same vectors (64 dimensions, float32, around
512 centres) and the same queries (noisy items). Items lie in the order of a tree of three levels (8, 8, 8). The
NumPy and FAISS methods get the same order, so FAISS can take a node as a range. `limit` is the time in which the
rows that a restrict allows can be read once at the memory bandwidth measured here; `of limit` is our p50 over it.
HNSW (M 32, efConstruction 80) is approximate, so its recall@10 stands beside it. It is built for at most 100,000
items: building takes minutes beyond. Writes `benchmarks/results/retrieval.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from threadpoolctl import threadpool_limits

from palate.data.query import Restrict
from palate.interests.tree import InterestTree, Node
from palate.serving.retrieve import RestrictedIndex

D, K = 64, 10
BRANCHING = (8, 8, 8)
RESULTS = Path(__file__).parent / "results"
Search = Callable[[np.ndarray], np.ndarray]


def catalogue(n: int, rng: np.random.Generator) -> tuple[np.ndarray, InterestTree, np.ndarray]:
    """Vectors in leaf order, a tree whose leaves are the centres, and an attribute that 10% have."""
    centres = rng.normal(size=(512, D))
    leaf = np.sort(rng.integers(512, size=n))
    vectors = centres[leaf] + rng.normal(size=(n, D))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    nodes = [Node(0, None, 0, 0, n, n)]
    for level in (1, 2, 3):
        width = 512 // 8**level
        first = sum(8**i for i in range(level - 1))
        for i in range(8**level):
            start, stop = np.searchsorted(leaf, [i * width, (i + 1) * width]).tolist()
            nodes.append(Node(len(nodes), first + i // 8, level, start, stop, stop - start))
    return vectors, InterestTree(tuple(nodes), rng.permutation(n).astype(np.int32)), rng.random(n) < 0.1


def bandwidth(rng: np.random.Generator) -> float:
    """Bytes a second that one thread reads: the maximum of 256 MiB of float32, best of five."""
    data = rng.random(64 * 2**20, dtype=np.float32)
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        data.max()
        best = min(best, time.perf_counter() - start)
    return data.nbytes / best


def numpy_mask(vectors: np.ndarray, order: np.ndarray, mask: np.ndarray) -> Search:
    """Costs are partitioned, not scores: many -inf below the K-th best make NumPy's partition 20 times slower."""

    def search(query: np.ndarray) -> np.ndarray:
        costs = np.where(mask, -(vectors @ query), np.float32(np.inf))
        top = np.argpartition(costs, K)[:K]
        return order[top[np.argsort(costs[top])]]

    return search


def faiss_selected(index: faiss.Index, order: np.ndarray, selector: faiss.IDSelector | None, ef: int = 0) -> Search:
    options = {"sel": selector, "efSearch": ef} if ef else {"sel": selector}
    parameters = (faiss.SearchParametersHNSW if ef else faiss.SearchParameters)(**options)

    def search(query: np.ndarray) -> np.ndarray:
        found = index.search(query[None], K, params=parameters)[1][0]
        return np.where(found >= 0, order[found], -1)

    return search


def timed(search: Search, queries: np.ndarray) -> tuple[list[float], list[set[int]]]:
    for query in queries[:3]:
        search(query)
    seconds, found = [], []
    for query in queries:
        start = time.perf_counter()
        items = search(query)
        seconds.append(1000 * (time.perf_counter() - start))
        found.append(set(items.tolist()) - {-1})
    return np.percentile(seconds, [50, 99]).round(3).tolist(), found


def methods(
    vectors: np.ndarray,
    index: RestrictedIndex,
    flat: faiss.Index,
    hnsw: faiss.Index | None,
    restrict: Restrict,
    keep: list[object],
) -> dict[str, Search]:
    """All that answer the same question. `keep` holds what FAISS only points to."""
    order = index.tree.order
    nodes, allowed = [index.tree.nodes[node] for node in restrict.nodes], np.ones(len(order), dtype=bool)
    if nodes:
        allowed[:] = False
        allowed[nodes[0].start : nodes[0].stop] = True
    for name in restrict.attributes:
        allowed &= index.masks[name]
    places, bits = np.flatnonzero(allowed), np.packbits(allowed, bitorder="little")
    bitmap = faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(bits))
    keep += [bits, bitmap, places]
    result: dict[str, Search] = {
        "palate": lambda query: index.search(query[None], restrict, K)[0][0],
        "numpy mask over all": numpy_mask(vectors, order, allowed),
    }
    if restrict == Restrict():
        result["FAISS flat"] = faiss_selected(flat, order, None)
    else:
        if not restrict.attributes:
            span = faiss.IDSelectorRange(nodes[0].start, nodes[0].stop)
            keep.append(span)
            result["FAISS flat, range"] = faiss_selected(flat, order, span)
        batch = faiss.IDSelectorBatch(places)
        keep.append(batch)
        result["FAISS flat, batch"] = faiss_selected(flat, order, batch)
        result["FAISS flat, bitmap"] = faiss_selected(flat, order, bitmap)
    if hnsw is not None:
        for ef in (64, 256):
            selector = None if restrict == Restrict() else bitmap
            result[f"FAISS HNSW ef={ef}"] = faiss_selected(hnsw, order, selector, ef)
    return result


def measure(n: int, n_queries: int, with_hnsw: bool, speed: float) -> list[dict[str, object]]:
    rng = np.random.default_rng(0)
    vectors, tree, attribute = catalogue(n, rng)
    by_item = np.empty_like(attribute)
    by_item[tree.order] = attribute
    index = RestrictedIndex(vectors, tree, {"attribute": by_item})
    flat = faiss.IndexFlatIP(D)
    flat.add(vectors)
    hnsw = None
    if with_hnsw and n <= 100_000:
        hnsw = faiss.IndexHNSWFlat(D, 32, faiss.METRIC_INNER_PRODUCT)
        hnsw.hnsw.efConstruction = 80
        hnsw.add(vectors)
    queries = vectors[rng.integers(n, size=n_queries)] + 0.1 * rng.normal(size=(n_queries, D))
    queries = queries.astype(np.float32)
    cases = {"everything": Restrict()}
    cases |= {f"node, level {level}": Restrict((tree.at_level(level)[3].node,)) for level in (1, 2, 3)}
    cases["attribute"] = Restrict((), ("attribute",))
    cases |= {
        f"node, level {level}, and attribute": Restrict((tree.at_level(level)[3].node,), ("attribute",))
        for level in (1, 2)
    }
    rows: list[dict[str, object]] = []
    for name, restrict in cases.items():
        size, keep = len(index.allowed(restrict)), []
        limit = 1000 * size * D * 4 / speed
        ours: tuple[float, list[set[int]]] | None = None
        for method, search in methods(vectors, index, flat, hnsw, restrict, keep).items():
            (p50, p99), found = timed(search, queries)
            ours = ours or (p50, found)
            recall = sum(len(a & b) for a, b in zip(found, ours[1], strict=True)) / sum(map(len, ours[1]))
            rows.append(
                {
                    "items": n,
                    "restrict": name,
                    "allowed": size,
                    "method": method,
                    "p50_ms": p50,
                    "p99_ms": p99,
                    "times_ours": round(p50 / ours[0], 2),
                    "recall_at_10": round(recall, 3),
                    "limit_ms": round(limit, 3),
                    "of_limit": round(p50 / limit, 1) if method == "palate" else "",
                }
            )
    return rows


def plans(n: int, n_queries: int) -> list[dict[str, object]]:
    """p50 of both plans by the share of a slice that a mask lets through."""
    from palate.serving import retrieve

    rng = np.random.default_rng(0)
    vectors, tree, _ = catalogue(n, rng)
    queries = vectors[rng.integers(n, size=n_queries)]
    rows = []
    for share in (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7):
        index = RestrictedIndex(vectors, tree, {"some": rng.random(n) < share})
        row: dict[str, object] = {"items": n, "share": share}
        for name, bound in (("gather", 1.1), ("scan", 0.0)):
            retrieve.GATHER_BELOW = bound
            search = methods_ours(index, Restrict((), ("some",)))
            row[f"{name}_p50_ms"] = timed(search, queries)[0][0]
        rows.append(row)
    return rows


def methods_ours(index: RestrictedIndex, restrict: Restrict) -> Search:
    return lambda query: index.search(query[None], restrict, K)[0][0]


def table(rows: list[dict[str, object]]) -> str:
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "--|" * len(names)]
    return "\n".join([*lines, *["| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--no-hnsw", action="store_true")
    parser.add_argument("--plans", action="store_true")
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(1)
    with threadpool_limits(1):
        speed = bandwidth(np.random.default_rng(0))
        print(f"one thread reads {speed / 1e9:.1f} GB/s; {arguments.queries} queries, k = {K}, d = {D}\n")
        rows: list[dict[str, object]] = []
        for n in arguments.items:
            if arguments.plans:
                rows += plans(n, arguments.queries)
            else:
                rows += measure(n, arguments.queries, not arguments.no_hnsw, speed)
    print(table(rows))
    RESULTS.mkdir(exist_ok=True)
    name = "retrieval_plans.json" if arguments.plans else "retrieval.json"
    content = {"bandwidth_bytes_per_s": speed, "queries": arguments.queries, "k": K, "d": D, "rows": rows}
    (RESULTS / name).write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
