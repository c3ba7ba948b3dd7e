"""Does a restrict to what a person is drawn to find what the person chooses next?

    python benchmarks/personal_restricts.py [--queries 2000]

The 1,200 films of MovieLens-small that a large model labelled (twelve attributes, recorded answers; a film has one from
5 of 9 on), events cut at two moments in time. Item vectors are the 32 leading singular vectors of who saw what before
the first; a history is the mean of its vectors, as a server without a sequence encoder has it. Each event after is
asked for: among the ten best of (a) everything, (b) the films with the attribute that the trigger chose, (c) the most
popular of those, and (d) a slate of eight of (a) and two of (b). Where nothing is triggered, all are (a). Two triggers
are chosen on validation, the best by (b) and the best by (d), and judged on test beside the default, with 95% intervals
over people. As a control the attribute is another person's. Writes `benchmarks/results/personal_restricts.json`.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
from data_sets import SAMPLE, SHARED
from machine import machine_facts
from scipy.sparse.linalg import svds

from palate.data.dataset import Dataset, IntArray
from palate.data.folder import read_folder
from palate.data.query import Restrict
from palate.data.splits import Holdout, split_global_time
from palate.interests.tree import TreeConfig, build_tree
from palate.models.history_matrix import event_matrix
from palate.serving.affinity import AffinityConfig, triggered
from palate.serving.columns import make_columns
from palate.serving.retrieve import RestrictedIndex

K, KEPT, DIMENSIONS = 10, 8, 32
RESULTS = Path(__file__).parent / "results"


def labelled() -> tuple[Dataset, dict[str, np.ndarray]]:
    """The films with labels, events among them, and which film has which attribute."""
    whole = read_folder(SHARED / "movielens-small") if SHARED.is_dir() else read_folder(SAMPLE)
    answers = [json.loads(line) for line in (SAMPLE / "answers" / "items.jsonl").read_text().splitlines()]
    scores = {row["item_id"]: row["scores"] for row in answers}
    ids = pl.Series(list(scores))
    items = whole.items.filter(pl.col("item_id").is_in(ids.implode()))
    events = whole.events.filter(pl.col("item_id").is_in(ids.implode())).drop("user_num", "item_num")
    dataset = Dataset.from_tables(items, events)
    names = list(answers[0]["scores"])
    return dataset, {name: np.array([scores[item][name] >= 5 for item in dataset.item_ids]) for name in names}


class Retrieval:
    def __init__(self, train: Dataset, attributes: dict[str, np.ndarray]) -> None:
        matrix = event_matrix(train).astype(np.float64)
        popular = np.asarray(matrix.sum(axis=0)).ravel()
        _, values, items = svds(matrix, DIMENSIONS, random_state=0)
        vectors = (items.T * values).astype(np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        tree = build_tree(vectors / np.where(lengths > 0, lengths, 1), popular, TreeConfig(branching=(8, 4)))
        self.vectors, self.columns = vectors, make_columns(tree, attributes)
        self.index = RestrictedIndex(np.ascontiguousarray(vectors[tree.order]), self.columns)
        self.by_popularity, self.attributes = np.argsort(-popular, kind="stable"), attributes

    def nearest(self, history: IntArray, name: str | None = None) -> list[int]:
        query = self.vectors[history].mean(axis=0, keepdims=True)
        restrict = Restrict((), (name,)) if name else None
        return self.index.search(query, restrict, K, history)[0][0].tolist()

    def popular(self, history: IntArray, name: str) -> list[int]:
        ranked = self.by_popularity[self.attributes[name][self.by_popularity]]
        return ranked[~np.isin(ranked, history)][:K].tolist()


def slate(first: list[int], second: list[int]) -> list[int]:
    """Eight of the first, then of the second what is not among them."""
    kept = first[:KEPT]
    return kept + [item for item in [*second, *first[KEPT:]] if item not in kept][: K - KEPT]


def hits(
    retrieval: Retrieval, held: Holdout, config: AffinityConfig, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Of each query with a trigger and without: 1 where the target is among the ten, by method."""
    found: dict[str, list[float]] = {name: [] for name in ("a", "b", "c", "d", "control b", "control d", "triggered")}
    chosen = [list(triggered(retrieval.columns, q.history, config)) for q in held.queries]
    others = rng.permutation([names[0] for names in chosen if names] or [""])
    for query, targets, names, other in zip(
        held.queries, held.targets, chosen, np.resize(others, len(chosen)), strict=True
    ):
        whole = retrieval.nearest(query.history)
        lists = {"a": whole, "b": whole, "c": whole, "d": whole, "control b": whole, "control d": whole}
        if names:
            near, random = retrieval.nearest(query.history, names[0]), retrieval.nearest(query.history, str(other))
            lists |= {"b": near, "c": retrieval.popular(query.history, names[0]), "d": slate(whole, near)}
            lists |= {"control b": random, "control d": slate(whole, random)}
        for name, items in lists.items():
            found[name].append(float(bool(set(items) & set(targets.tolist()))))
        found["triggered"].append(float(bool(names)))
    return {name: np.array(values) for name, values in found.items()}


def interval(values: np.ndarray, people: np.ndarray, rng: np.random.Generator) -> list[float]:
    """Mean and 95% interval, people drawn with replacement."""
    _, group = np.unique(people, return_inverse=True)
    sums, counts = np.bincount(group, values), np.bincount(group)
    draws = rng.integers(len(sums), size=(2000, len(sums)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    return np.round([values.mean(), *np.percentile(means, [2.5, 97.5])], 4).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=2000)
    arguments = parser.parse_args()
    dataset, attributes = labelled()
    split = split_global_time(dataset, min_history=5, max_queries=arguments.queries)
    retrieval = Retrieval(split.train, attributes)
    tried = []
    for lift, surprise, half_life in product((1.0, 1.2, 1.5, 2.0), (0.0, 1.0, 2.0, 3.0), (0.0, 20.0)):
        config = AffinityConfig(least_lift=lift, least_surprise=surprise, half_life=half_life)
        found = hits(retrieval, split.validation, config, np.random.default_rng(0))
        row = {"least_lift": lift, "least_surprise": surprise, "half_life": half_life}
        tried.append(row | {name: round(float(values.mean()), 4) for name, values in found.items()})
        print(tried[-1], flush=True)
    configs = {"default": {}}
    for method in ("b", "d"):
        best = max(tried, key=lambda row: row[method])
        configs[f"best by {method}"] = {name: best[name] for name in ("least_lift", "least_surprise", "half_life")}
    result = {"machine": machine_facts(), "validation": tried, "configs": configs, "test": {}}
    for name, settings in configs.items():
        config = AffinityConfig(**settings)
        found = hits(retrieval, split.test, config, np.random.default_rng(0))
        people = np.array([query.user_id for query in split.test.queries])
        some = found["triggered"] > 0
        rows = {"queries": len(people), "people": len(np.unique(people)), "triggered": int(some.sum())}
        for method in ("a", "b", "c", "d", "control b", "control d"):
            rng = np.random.default_rng(1)
            rows[f"{method}, triggered"] = interval(found[method][some], people[some], rng)
            rows[f"{method}, all"] = interval(found[method], people, rng)
            rows[f"{method} minus a, triggered"] = interval((found[method] - found["a"])[some], people[some], rng)
        result["test"][name] = rows
        print(name, json.dumps(rows, indent=1))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "personal_restricts.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
