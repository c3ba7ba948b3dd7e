"""The interest tree beside other clusterings: seconds, memory, balance and coherence, level by level.

    python benchmarks/interest_tree.py --items 20000             # all methods
    python benchmarks/interest_tree.py --items 1000000 --only palate faiss
    python benchmarks/interest_tree.py --data movielens-small    # titles and texts of the development data

Made items are a mixture of topics of Zipfian size, each item part its topic and part its own, with traffic that is
Zipfian too; `--data` takes a data set's sentence vectors and its training traffic. Each method runs in a process of its
own with two threads; `seconds` is the clustering alone, `peak_mib` the most that the process held, data included.

`balance` is the heaviest load over the level's mean, an item that alone exceeds the mean counting as the mean
(`palate.interests.balance.level_mean`), over all clusters asked for; `plain` the same with nothing clipped; `coherence`
the mean cosine of an item to the direction of its cluster's mean. FAISS k-means (spherical, 20 rounds) is run at each
level's size as the unconstrained reference, BisectingKMeans too where it ends, and k-means-constrained (equal counts of
items; it knows no weights) at the largest size that it survives. It cannot be installed beside the rest (OR-Tools wants
an older protobuf): `pip install --target DIR --no-deps k-means-constrained==0.9.1 ortools "protobuf<6.34" absl-py
immutabledict six`, then `PYTHONPATH=DIR`. Methods may be run one by one (`--only`): the results file keeps the others'.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine_facts

from palate.interests.grow import branching_for
from palate.interests.quality import balance, coherence
from palate.interests.tree import TreeConfig, build_tree, shape_for, tree_weights

RESULTS = Path(__file__).parent / "results"
REFERENCE_FLOPS = 1e12  # a reference level whose one pass over all items takes more is left out


def made(n: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors [n, width] and traffic [n]."""
    rng = np.random.default_rng(0)
    broad = rng.standard_normal((60, width), dtype=np.float32)
    topics = broad[rng.integers(60, size=3000)] + 0.8 * rng.standard_normal((3000, width), dtype=np.float32)
    size = 1 / np.arange(1, 3001) ** 0.7
    topic = rng.choice(3000, n, p=size / size.sum())
    vectors = np.empty((n, width), dtype=np.float32)
    for start in range(0, n, 65536):
        rows = topics[topic[start : start + 65536]]
        rows += 1.2 * rng.standard_normal(rows.shape, dtype=np.float32)
        vectors[start : start + 65536] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return vectors, np.floor(1000 / rng.permutation(np.arange(1, n + 1)) ** 0.8 * max(1, n / 1e4))


def encoded(name: str) -> tuple[np.ndarray, np.ndarray]:
    from data_sets import load

    from palate.data.splits import split_global_time
    from palate.interests.vectors import item_vectors, text_part
    from palate.llm.encoders import MiniLMEncoder

    dataset = load(name)
    vectors = item_vectors({"text": text_part(dataset, MiniLMEncoder())}).vectors
    return vectors, split_global_time(dataset).train.item_counts


def with_palate(vectors: np.ndarray, traffic: np.ndarray, shape: list[int]) -> list[np.ndarray]:
    tree = build_tree(vectors, traffic, TreeConfig(branching=branching_for(len(vectors))))
    return [tree.node_of_items(level) for level in range(1, tree.depth + 1)]


def with_faiss(vectors: np.ndarray, traffic: np.ndarray, shape: list[int]) -> list[np.ndarray]:
    import faiss

    faiss.omp_set_num_threads(2)
    found = []
    for nodes in shape:
        means = faiss.Kmeans(vectors.shape[1], nodes, niter=20, spherical=True, seed=1)
        means.train(vectors)
        found.append(means.index.search(vectors, 1)[1][:, 0])
    return found


def with_bisecting(vectors: np.ndarray, traffic: np.ndarray, shape: list[int]) -> list[np.ndarray]:
    from sklearn.cluster import BisectingKMeans

    return [BisectingKMeans(nodes, random_state=0).fit_predict(vectors) for nodes in shape]


def with_constrained(vectors: np.ndarray, traffic: np.ndarray, shape: list[int]) -> list[np.ndarray]:
    from k_means_constrained import KMeansConstrained

    found = []
    for nodes in shape:
        most = int(np.ceil(1.3 * len(vectors) / nodes))
        found.append(KMeansConstrained(nodes, size_max=most, n_init=1, random_state=0).fit_predict(vectors))
    return found


METHODS: dict[str, Callable[[np.ndarray, np.ndarray, list[int]], list[np.ndarray]]] = {
    "palate": with_palate,
    "faiss": with_faiss,
    "bisecting": with_bisecting,
    "constrained": with_constrained,
}


def one(method: str, vectors: np.ndarray, traffic: np.ndarray, shape: list[int]) -> dict[str, Any]:
    """In this process."""
    reached = [nodes for nodes in shape if method == "palate" or 2.0 * vectors.size * nodes <= REFERENCE_FLOPS]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    levels = METHODS[method](vectors, traffic, reached)
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    weights = tree_weights(vectors, np.asarray(traffic, dtype=np.float64), TreeConfig())
    rows = []
    for nodes, cluster in zip(reached, levels, strict=True):
        loads = np.bincount(np.unique(cluster, return_inverse=True)[1], weights)
        even, plain = balance(weights, cluster, nodes), float(loads.max() * nodes / weights.sum())
        rows.append({"nodes": nodes, "balance": even, "plain": plain, "coherence": coherence(vectors, cluster)})
    return {"seconds": seconds, "data_mib": before / 1024, "peak_mib": peak / 1024, "levels": rows}


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for method in args.only or METHODS:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", method]
        environment = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
        try:
            ran = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=args.limit, env=environment
            )
        except subprocess.TimeoutExpired:
            rows.append({"method": method, "failed": f"more than {args.limit} s"})
        else:
            failed = {"failed": (ran.stderr.strip().splitlines() or [f"exit {ran.returncode}"])[-1]}
            rows.append({"method": method, **(failed if ran.returncode else json.loads(ran.stdout.splitlines()[-1]))})
        show(rows[-1])
    return rows


def show(row: dict[str, Any]) -> None:
    if "failed" in row:
        print(f"{row['method']:12} {row['failed']}")
        return
    print(f"{row['method']:12} {row['seconds']:9.1f} s {row['peak_mib']:8.0f} MiB (data {row['data_mib']:.0f})")
    for level in row["levels"]:
        print(
            f"{'':12} {level['nodes']:9} balance {level['balance']:7.3f}  plain {level['plain']:8.2f}"
            f"  coherence {level['coherence']:.4f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--data", help="a development data set instead of made items")
    parser.add_argument("--only", nargs="+", choices=METHODS)
    parser.add_argument("--limit", type=int, default=900, help="seconds a method may take")
    parser.add_argument("--one", choices=METHODS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        vectors, traffic = encoded(args.data) if args.data else made(args.items, args.width)
        shape = shape_for(len(vectors), TreeConfig(branching=branching_for(len(vectors))))
        print(json.dumps(one(args.one, vectors, traffic, shape)))
        return
    rows = measure(args)
    RESULTS.mkdir(exist_ok=True)
    what = args.data or f"{args.items}x{args.width}"
    path = RESULTS / f"interest_tree-{what}.json"
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    measured = {row["method"] for row in rows}
    rows = [row for row in before if row["method"] not in measured] + rows  # methods may be run one by one
    path.write_text(json.dumps({"items": what, "rows": rows, "machine": machine_facts()}, indent=1))


if __name__ == "__main__":
    main()
