"""The nine ranking backbones beside plain baselines on the same rows, on three public sets.

    python benchmarks/ranking.py [--sets movielens-small ...] [--models deepfm ...] [--seeds 3]
    python benchmarks/ranking.py --tune     # a small grid, judged on validation alone

Rows are split by global time where there is a clock; amazon-toys (places in a sequence, no values) by each user's last
events, with one negative for each event. Early stop on validation; the test rows are predicted once a seed. Intervals:
95%, users resampled, the AUC of each resample averaged over seeds. Prints a Markdown table for each set and writes
everything to benchmarks/results/ranking.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import load
from machine import machine_facts
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression

from palate.data.dataset import Dataset, FloatArray
from palate.data.samples import Samples, clicked_samples, rated_samples
from palate.evaluation.controls import judge_arms, weighted_auc
from palate.evaluation.rating import auc, expected_calibration_error, gauc, log_loss
from palate.models.ranking.columns import Fields
from palate.models.ranking.features import Features, FeaturesConfig
from palate.models.ranking.ranker import Ranker, RankerConfig
from palate.models.ranking.registry import BACKBONES

RESULTS = Path(__file__).resolve().parent / "results" / "ranking.json"
SETS = ("movielens-small", "movielens-100k", "amazon-toys")
NINE = tuple(name for name in BACKBONES if name not in ("mmoe", "stem"))
# Gathered years after the ratings (votes), or a trace of how the set was made: no model may read them.
SKIPPED = ("tmdb_vote_average", "tmdb_vote_count", "text_source", "same_person_in_movielens_small", "zip_code")
GRID = {"learning_rate": [1e-3, 3e-3], "weight_decay": [0.01, 0.1, 0.3], "batch": [256, 1024]}


def prepare(name: str) -> tuple[Dataset, Samples, Features]:
    dataset = load(name)
    valued = dataset.events["value"].is_not_null().any()
    samples = rated_samples(dataset) if valued else clicked_samples(dataset)
    return dataset, samples, Features(dataset, samples, FeaturesConfig(skip=SKIPPED))


def one_hot(fields: Fields, entities: Any) -> csr_matrix:
    slots = fields.slots[entities]
    rows, columns = np.nonzero(slots)
    return csr_matrix((np.ones(len(rows)), (rows, slots[rows, columns])), (len(slots), fields.size))


def numbers_of(features: Features, samples: Samples, names: tuple[str, ...] | None = None) -> FloatArray:
    numbers = features(samples).numbers
    kept = [i for i, name in enumerate(features.number_names) if names is None or name in names]
    return np.concatenate([np.nan_to_num(numbers[:, kept]), np.isnan(numbers[:, kept])], axis=1)


def logistic(design: Callable[[Samples], Any], samples: Samples) -> FloatArray:
    """Test predictions of the ridge, among six, that is best on validation."""
    train, held, x, v = samples.train, samples.validation, design(samples.train), design(samples.validation)
    fits = [
        LogisticRegression(C=c, max_iter=1000).fit(x, train.labels[:, 0]) for c in (3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1)
    ]
    best = max(fits, key=lambda fit: auc(held.labels[:, 0], fit.predict_proba(v)[:, 1]))
    return best.predict_proba(design(samples.test))[:, 1].astype(np.float32)


def baselines(features: Features, samples: Samples) -> dict[str, FloatArray]:
    means = ("item_count", "item_mean", "user_count", "user_mean")

    def all_columns(rows: Samples) -> Any:
        parts = [one_hot(features.item_fields, rows.items), one_hot(features.user_fields, rows.users)]
        return hstack([*parts, csr_matrix(numbers_of(features, rows))]).tocsr()

    return {
        "constant": np.full(len(samples.test), samples.train.labels.mean(), np.float32),
        "popularity and means": logistic(lambda rows: numbers_of(features, rows, means), samples),
        "logistic regression": logistic(all_columns, samples),
    }


def figures(samples: Samples, predictions: list[FloatArray], plain: FloatArray | None = None) -> dict[str, Any]:
    """Of one model's seeds; `plain`: what logistic regression predicted."""
    y, users = samples.labels[:, 0], samples.users
    arms = {"own": np.stack(predictions)} | ({} if plain is None else {"plain": plain})
    pairs = [] if plain is None else [("own", "plain")]
    judged = judge_arms(arms, users, pairs, weighted_auc(y))
    own = judged.figures["own"]
    found = {
        "auc": own.mean,
        "auc_low": own.low,
        "auc_high": own.high,
        "gauc": float(np.mean([gauc(y, p, users) for p in predictions])),
        "log_loss": float(np.mean([log_loss(y, p) for p in predictions])),
        "ece": float(np.mean([expected_calibration_error(y, p) for p in predictions])),
    }
    for contrast in judged.contrasts:
        change = contrast.difference
        found["over_logistic_regression"] = [change.mean, change.low, change.high]
    return found


def measure(name: str, models: tuple[str, ...], seeds: int) -> dict[str, Any]:
    _, samples, features = prepare(name)
    sizes = {part: len(getattr(samples, part)) for part in ("train", "validation", "test")}
    fields = [*features.item_fields.names, *features.user_fields.names, *features.number_names]
    found: dict[str, Any] = {}
    result = {"rows": sizes, "features": fields, "seeds": seeds, "models": found}
    simple = baselines(features, samples)
    for label, predicted in simple.items():
        found[label] = figures(samples.test, [predicted])
    for model in models:
        predictions, curves, begun = [], [], time.process_time()
        for seed in range(seeds):
            ranker = Ranker(model, RankerConfig(seed=seed, threads=1, calibration="platt"))
            predictions.append(ranker.fit(features, samples.train, samples.validation).predict(samples.test))
            curves.append(ranker.curve)
        found[model] = figures(samples.test, predictions, simple["logistic regression"]) | {
            "validation": float(np.mean([max(curve) for curve in curves])),
            "epochs": [len(curve) for curve in curves],
            "processor_seconds_a_seed": (time.process_time() - begun) / seeds,
        }
        keep(name, result)  # at once: a run that is stopped keeps what it found
    return result


def keep(name: str, result: dict[str, Any]) -> None:
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"sets": {}}
    kept |= {"machine": machine_facts(), "sets": {**kept["sets"], name: result}}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


def table(name: str, result: dict[str, Any]) -> str:
    lines = [f"\n{name}: {result['rows']['test']} test rows, {result['seeds']} seeds\n"]
    lines += [
        "| model | AUC | 95% | over logistic regression | GAUC | LogLoss | ECE | s a seed |",
        "|---|" + "---|" * 7,
    ]
    for model, f in result["models"].items():
        over = f.get("over_logistic_regression")
        change = "{:+.4f} [{:+.4f}, {:+.4f}]".format(*over) if over else ""
        spent = f"{f['processor_seconds_a_seed']:.0f}" if over else ""
        figures = f"{f['auc']:.4f} | {f['auc_low']:.4f}–{f['auc_high']:.4f} | {change} | {f['gauc']:.4f}"
        lines.append(f"| {model} | {figures} | {f['log_loss']:.4f} | {f['ece']:.3f} | {spent} |")
    return "\n".join(lines)


def tune(names: tuple[str, ...], models: tuple[str, ...]) -> None:
    """Validation AUC of each point of the grid: prints one line each."""
    for name in names:
        _, samples, features = prepare(name)
        for model, *values in product(models, *GRID.values()):
            params = dict(zip(GRID, values, strict=True))
            begun = time.process_time()
            ranker = Ranker(model, RankerConfig(threads=1, **params)).fit(features, samples.train, samples.validation)
            spent = time.process_time() - begun
            curve = " ".join(f"{figure:.4f}" for figure in ranker.curve)
            print(f"{name} {model} {params} best {max(ranker.curve):.4f} {spent:.0f}s: {curve}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--models", nargs="+", default=NINE)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tune", action="store_true")
    args = parser.parse_args()
    if args.tune:
        tune(tuple(args.sets), tuple(args.models))
        return
    for name in args.sets:
        print(table(name, measure(name, tuple(args.models), args.seeds)), flush=True)


if __name__ == "__main__":
    main()
