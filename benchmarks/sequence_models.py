"""SASRec and HSTU against popularity, Markov, item-kNN, EASE and RecBole's SASRec, under two protocols side by side.

    python benchmarks/sequence_models.py [--sets movielens-100k ...] [--models sasrec hstu ...] [--seeds 0 1 2]
    python benchmarks/sequence_models.py --tables           # from what has been run, nothing is fitted

`published` is that of the HSTU paper's table: each user's last event is the test, all others are trained on, no
validation, a fixed number of epochs, every item ranked but those of the history. `honest` keeps a validation part that
chooses the epoch (and the parameters of the counting models): the source's own split, else global time, and
each user's last but one event where times are only places. The counting models have the same parameters under both.

Runs set by set, model by model, seed by seed; what has been run is not run again. Each set's figures are kept in
benchmarks/results/sequence_models-SET.json, and beside them the place of each query's target in each ranking, from
which the paired intervals are.

RecBole: `--export-recbole EXPORT` writes the honest protocol's training events and queries for it and stops;
`recbole/setup.sh` and `recbole/train.py` do the rest (see docs/models.md); `--recbole EXPORT` then takes its rankings.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import load

from palate.data.dataset import Dataset
from palate.data.splits import TEST, Holdout, Split, has_clock, split_in_time, split_leave_last_one_out
from palate.evaluation.bootstrap import bootstrap_mean, paired_difference
from palate.experiments.compare import choose_on_validation, rank
from palate.models.registry import make

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
SETS = ("amazon-industrial", "movielens-100k", "movielens-small", "grocery", "amazon-toys")  # the quickest first
PROTOCOLS = ("honest", "published")
FIXED_EPOCHS = 30  # of the published protocol, for all sets and models
LENGTH = 50  # events of a history that RecBole reads

Params = dict[str, Any]


def grid(**values: list[Any]) -> list[Params]:
    return [dict(zip(values, row, strict=True)) for row in product(*values.values())]


COUNTING: dict[str, list[Params]] = {
    "popularity": grid(half_life=[None, 30, 365]),
    "markov": [{}, {"window": 3}, {"window": 3, "recent": 5, "decay": 0.7}, {"window": 3, "recent": 10, "decay": 0.8}],
    "item-knn": grid(neighbours=[50, 200], shrinkage=[10, 100], recent=[None, 5]),
    "ease": grid(ridge=[200, 1000], recent=[None, 5]),
}
# label -> registered model and what differs from its defaults
NEURAL: dict[str, tuple[str, Params]] = {
    "sasrec": ("sasrec", {}),
    "hstu": ("hstu", {"time_bias": True}),
    "hstu, no clock": ("hstu", {"time_bias": False}),
    "gru4rec": ("gru4rec", {}),
}
RECBOLE = "RecBole SASRec"


def split_of(dataset: Dataset, protocol: str) -> Split:
    if protocol == "honest":
        return split_in_time(dataset)
    split = split_leave_last_one_out(dataset)
    train = dataset.with_events(dataset.events.filter(split.part != TEST))
    return Split(train, Holdout([], []), split.test, "each user's last event, no validation", split.part)


class Store:
    """What has been run of one set: figures in a JSON file; beside it, of each query, the place of its target."""

    def __init__(self, name: str, folder: Path) -> None:
        self.path = folder / f"sequence_models-{name}.json"
        self.facts: dict[str, Any] = {"set": name, "protocols": {}, "chosen": {}, "runs": {}}
        self.places: dict[str, np.ndarray] = {}
        if self.path.exists():
            self.facts = json.loads(self.path.read_text())
        if self.path.with_suffix(".npz").exists():
            with np.load(self.path.with_suffix(".npz"), allow_pickle=False) as kept:
                self.places = dict(kept)

    def done(self, run: str) -> bool:
        return run in self.facts["runs"] and run in self.places

    def keep(self, run: str, places: np.ndarray, figures: dict[str, Any]) -> None:
        self.places[run] = places
        self.facts["runs"][run] = figures | {m: float(f(places).mean()) for m, f in METRICS.items()}
        self.write()

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(self.path.with_suffix(".npz"), **self.places)
        self.path.write_text(json.dumps(self.facts, indent=1) + "\n")


def places_of(top: np.ndarray, targets: Sequence[np.ndarray]) -> np.ndarray:
    """1 to 10: where the one target of each query stands in the ranking; 0: nowhere."""
    found = top[:, :10] == np.array([target[0] for target in targets])[:, None]
    return np.where(found.any(1), found.argmax(1) + 1, 0).astype(np.uint8)


# one target a query: recall is the hit rate
METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "NDCG@10": lambda places: np.where(places > 0, 1 / np.log2(1.0 + np.maximum(places, 1)), 0.0),
    "HR@10": lambda places: (places > 0).astype(np.float64),
}


def run_counting(name: str, split: Split, protocol: str, dataset: Dataset, store: Store) -> None:
    """Choose on the honest protocol's validation, once; then fit under this one."""
    if name not in store.facts["chosen"]:
        honest = split if protocol == "honest" else split_of(dataset, "honest")
        choice = choose_on_validation(name, COUNTING[name], honest)
        store.facts["chosen"][name] = {"params": choice.params, "tried": choice.tried}
    params = store.facts["chosen"][name]["params"]
    _fit_and_keep(f"{protocol}/{name}/0", name, params, split, store)


def run_neural(label: str, seed: int, split: Split, protocol: str, threads: int, store: Store) -> None:
    name, params = NEURAL[label]
    params = {**params, "seed": seed, "threads": threads}
    if protocol == "published":
        params |= {"epochs": FIXED_EPOCHS}
    _fit_and_keep(f"{protocol}/{label}/{seed}", name, params, split, store)


def _fit_and_keep(run: str, name: str, params: Params, split: Split, store: Store) -> None:
    model: Any = make(name, params)
    wall, cpu = time.perf_counter(), time.process_time()
    model.fit(split.train, None, split.validation)
    figures = {
        "params": params,
        "fit_seconds": time.perf_counter() - wall,
        "fit_cpu_seconds": time.process_time() - cpu,
    }
    curve = getattr(model, "curve", None)
    if curve and split.validation.queries:
        figures |= {"validation": curve, "best_epoch": int(np.argmax(curve)) + 1}
    store.keep(run, places_of(rank(model, split.test, 10), split.test.targets), figures)
    kept = store.facts["runs"][run]
    print(run, {m: round(kept[m], 4) for m in METRICS}, f"{kept['fit_seconds']:.0f} s", flush=True)


def table(protocol: str, split: Split, store: Store) -> list[dict[str, Any]]:
    """A row for each model: means over seeds, intervals over users, the difference to the best counting model."""
    users = [query.user_id for query in split.test.queries]
    values: dict[str, dict[str, np.ndarray]] = {}
    for label in [*COUNTING, *NEURAL, RECBOLE]:
        runs = [run for run in store.facts["runs"] if run.startswith(f"{protocol}/{label}/") and store.done(run)]
        if runs:
            values[label] = {m: np.stack([f(store.places[run]) for run in runs]) for m, f in METRICS.items()}
    counting = [label for label in values if label in COUNTING]
    best = max(counting, key=lambda label: values[label]["NDCG@10"].mean(), default=None)
    rows = []
    for label, own in values.items():
        row: dict[str, Any] = {"model": label, "seeds": len(own["NDCG@10"])}
        for metric, by_seed in own.items():
            interval = bootstrap_mean(by_seed.mean(0), users)
            row[metric] = [interval.mean, interval.low, interval.high]
            row[f"{metric} by seed"] = by_seed.mean(1).tolist()
        if best is not None and label != best:
            against = paired_difference(own["NDCG@10"].mean(0), values[best]["NDCG@10"].mean(0), users)
            row |= {"against": best, "difference": [against.mean, against.low, against.high]}
        if label == "sasrec" and RECBOLE in values:
            over = paired_difference(own["NDCG@10"].mean(0), values[RECBOLE]["NDCG@10"].mean(0), users)
            row["over RecBole"] = [over.mean, over.low, over.high]
        rows.append(row)
    return sorted(rows, key=lambda row: -row["NDCG@10"][0])


def markdown(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "| model | seeds | NDCG@10 | HR@10 | NDCG@10 against the best counting model |"
    yield "|---|---|---|---|---|"
    for row in rows:
        ndcg_, hit = ("{:.4f} [{:.4f}, {:.4f}]".format(*row[metric]) for metric in METRICS)
        against = "{:+.4f} [{:+.4f}, {:+.4f}]".format(*row["difference"]) if "difference" in row else ""
        yield f"| {row['model']} | {row['seeds']} | {ndcg_} | {hit} | {against} |"
    for over in (row["over RecBole"] for row in rows if "over RecBole" in row):
        yield "\nsasrec less RecBole SASRec: {:+.4f} [{:+.4f}, {:+.4f}]".format(*over)


def export_recbole(split: Split, folder: Path) -> None:
    """RecBole's benchmark files (each prefix of a training history is a sample) and the held-out queries."""
    folder.mkdir(parents=True, exist_ok=True)
    histories = split.train.histories
    samples = [
        (str(user), history[max(0, end - LENGTH) : end], history[end])
        for user in range(split.train.n_users)
        for history in [histories.of(user)]
        for end in range(1, len(history))
    ]
    _write_inter(folder, "train", samples)
    for part, held in (("validation", split.validation), ("test", split.test)):
        rows = [
            (str(split.train.user_nums[str(q.user_id)]), q.history[-LENGTH:], t[0])
            for q, t in zip(held.queries, held.targets, strict=True)
        ]
        _write_inter(folder, part, rows)
        offsets = np.cumsum([0, *(len(query.history) for query in held.queries)])
        items = np.concatenate([query.history for query in held.queries])
        np.savez(folder / f"{part}.npz", items=items, offsets=offsets, targets=np.concatenate(held.targets))


def _write_inter(folder: Path, part: str, rows: list[tuple[str, Any, Any]]) -> None:
    lines = [f"{user}\t{' '.join(map(str, history))}\t{item}" for user, history, item in rows]
    header = "user_id:token\titem_id_list:token_seq\titem_id:token"
    (folder / f"{folder.name}.{part}.inter").write_text("\n".join([header, *lines]) + "\n")


def take_recbole(folder: Path, split: Split, store: Store) -> None:
    if not (folder / "test_top.npy").exists() or store.done(f"honest/{RECBOLE}/2020"):
        return
    places = places_of(np.load(folder / "test_top.npy"), split.test.targets)
    store.keep(f"honest/{RECBOLE}/2020", places, json.loads((folder / "recbole.json").read_text()))


def run_set(name: str, args: argparse.Namespace) -> None:
    dataset, store = load(name), Store(name, args.out)
    labels = [label for label in NEURAL if label != "hstu" or has_clock(dataset)]
    for protocol in args.protocols:
        split = split_of(dataset, protocol)
        if args.export_recbole is not None:
            export_recbole(split, args.export_recbole / name)
            continue
        if args.recbole is not None and protocol == "honest":
            take_recbole(args.recbole / name, split, store)
        chosen = [] if args.tables else args.models or [*COUNTING, *labels]
        for label in chosen:
            for seed in args.seeds if label in NEURAL else [0]:
                if store.done(f"{protocol}/{label}/{seed}") or (label == "hstu" and label not in labels):
                    continue
                if label in COUNTING:
                    run_counting(label, split, protocol, dataset, store)
                else:
                    run_neural(label, seed, split, protocol, args.threads, store)
        rows = table(protocol, split, store)
        if rows:
            facts = {"split": split.name, "queries": len(split.test.queries), "table": rows}
            store.facts["protocols"][protocol] = facts
            store.write()
            print(f"\n### {name}, {protocol}: {split.name}; {facts['queries']} queries\n", *markdown(rows), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=PROTOCOLS)
    parser.add_argument("--models", nargs="+", choices=[*COUNTING, *NEURAL])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--tables", action="store_true", help="fit nothing")
    parser.add_argument("--export-recbole", type=Path)
    parser.add_argument("--recbole", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.export_recbole is not None:
        args.protocols = ["honest"]
    for name in args.sets:
        run_set(name, args)


if __name__ == "__main__":
    main()
