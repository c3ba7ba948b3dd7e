"""Do local visual features help a student? Groceries of the development data, departments and classes as truth.

    python benchmarks/visual_features.py

A logistic student (`palate.knowledge.distil.Student`, its penalty chosen inside the training folds) on sentence
vectors of title and description (no categories), on visual features alone, and on both; one student for each class
with at least four products. Pictures: the one of the product card (`iconic`), or the card's and two shop photographs
(`all three`). Each product is predicted by a student that never saw it (10 folds, repeated with 5 seeds). Figures are
mean AUC over classes (each weighs the same) and the share of products whose department is the highest scored; 95%
intervals resample products, paired for differences.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
from machine import machine_facts

from palate.evaluation.binary import auc
from palate.knowledge.distil import Student
from palate.knowledge.media import MediaReader
from palate.knowledge.visual import join_features, visual_features
from palate.llm.encoders import MiniLMEncoder

FOLDER = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "grocery-images"
LEAST, FOLDS, SEEDS, RESAMPLES = 4, 10, 5, 1000
Array = np.ndarray


def truth(item_ids: list[str], source: str) -> tuple[Array, list[str]]:
    """[n_items, n_classes] of 0 and 1, and the names of the classes."""
    labels = pl.read_parquet(FOLDER / "labels.parquet").filter(source=source)
    counts = labels.group_by("label").len().filter(pl.col("len") >= LEAST).sort("label")
    names, of = counts["label"].to_list(), dict(labels.select("item_id", "label").iter_rows())
    return np.array([[float(of[item] == name) for name in names] for item in item_ids]), names


def predicted(inputs: Array, targets: Array, seed: int) -> Array:
    """Of students that never saw the row."""
    fold = np.random.default_rng(seed).permutation(len(inputs)) % FOLDS
    scores = np.zeros_like(targets)
    for number in range(FOLDS):
        student = Student()
        student.fit(inputs[fold != number], targets[fold != number])
        scores[fold == number] = student.predict(inputs[fold == number])
    return scores


def mean_auc(targets: Array, scores: Array) -> float:
    return float(np.nanmean([auc(targets[:, k], scores[:, k]) for k in range(targets.shape[1])]))


def accuracy(targets: Array, scores: Array) -> float:
    known = targets.sum(axis=1) > 0
    return float((targets[known].argmax(axis=1) == scores[known].argmax(axis=1)).mean())


def intervals(targets: Array, scores: dict[str, list[Array]], figure) -> dict[str, list[float]]:  # type: ignore[no-untyped-def]
    """Of each input and of its difference to text alone: mean over seeds, and 95% over resampled products."""
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(targets), (RESAMPLES, len(targets)))

    def over_seeds(rows: Array) -> dict[str, float]:
        return {name: float(np.mean([figure(targets[rows], s[rows]) for s in of])) for name, of in scores.items()}

    point, drawn = over_seeds(np.arange(len(targets))), [over_seeds(rows) for rows in draws]
    found = {}
    for name in scores:
        for label, base in ((name, None), (f"{name} - text", "text")):
            if base == name:
                continue
            values = [d[name] - (d[base] if base else 0.0) for d in drawn]
            low, high = np.nanquantile(values, [0.025, 0.975])
            found[label] = [point[name] - (point[base] if base else 0.0), float(low), float(high)]
    return found


def main() -> None:
    items = pl.read_parquet(FOLDER / "items.parquet")
    ids = items["item_id"].to_list()
    texts = [f"{title}\n{text}" for title, text in items.select("title", "text").iter_rows()]
    vectors = MiniLMEncoder().encode(texts)
    pictures = pl.read_parquet(FOLDER / "images.parquet")
    reader, inputs = MediaReader(FOLDER), {"text": vectors}
    for name, table in (("iconic", pictures.filter(kind="iconic")), ("all three", pictures)):
        paths = dict(table.group_by("item_id").agg("path").iter_rows())
        features = visual_features([reader.read(item, paths[item]).features for item in ids])
        inputs |= {f"{name}": features / np.sqrt((features**2).sum(axis=1).mean())}
        inputs |= {f"text + {name}, weight {w:g}": join_features(vectors, features, w) for w in (0.5, 1.0, 2.0)}
    rows: list[dict[str, object]] = []
    for source in ("department", "coarse_class"):
        targets, names = truth(ids, source)
        scores = {name: [predicted(x, targets, seed) for seed in range(SEEDS)] for name, x in inputs.items()}
        for label, figure in (("AUC", mean_auc), ("accuracy", accuracy)):
            print(f"\n{source}: {', '.join(names)}: {label}")
            for name, (mean, low, high) in intervals(targets, scores, figure).items():
                print(f"  {name:36} {mean:7.4f} [{low:.4f}, {high:.4f}]")
                row = {"truth": source, "figure": label, "input": name, "mean": mean, "low": low, "high": high}
                rows.append(row)
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "visual_features.json").write_text(json.dumps({"rows": rows, "machine": machine_facts()}, indent=1))


if __name__ == "__main__":
    main()
