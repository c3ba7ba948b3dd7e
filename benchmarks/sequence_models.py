"""SASRec against popularity, Markov, item-kNN, EASE and RecBole's SASRec, on three public sets.

    python benchmarks/sequence_models.py [--sets movielens-100k ...] [--recbole EXPORT]

Parameters are chosen on validation only; the test part is ranked once, by the chosen ones. Prints a Markdown
table for each set and writes everything, with what was tried, to benchmarks/results/sequence_models-SET.json.

Beside RecBole: `--export-recbole EXPORT` writes the same training events and queries for it and stops;
`recbole/setup.sh` and `recbole/train.py` do the rest (see docs/models.md); `--recbole EXPORT` then judges its rankings.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from palate.data.readers import read_dataset
from palate.data.splits import Split, split_global_time, split_leave_last_one_out
from palate.experiments.compare import Choice, choose_on_validation, compare

HERE = Path(__file__).resolve().parent
SETS = ("movielens-100k", "movielens-small", "amazon-toys")
LENGTH = 50  # events of a history that both implementations of SASRec read
EPOCHS, PATIENCE = 24, 3  # of both implementations

Grid = list[dict[str, Any]]


def grid(**values: list[Any]) -> Grid:
    return [dict(zip(values, row, strict=True)) for row in product(*values.values())]


GRIDS: dict[str, Grid] = {
    "popularity": grid(half_life=[None, 30, 365]),
    "markov": [{}, {"window": 3}, {"window": 3, "recent": 5, "decay": 0.7}, {"window": 3, "recent": 10, "decay": 0.8}],
    "item-knn": grid(neighbours=[50, 200], shrinkage=[10, 100], recent=[None, 5, 20]),
    "ease": grid(ridge=[200, 1000], recent=[None, 5]),
    "sasrec": grid(epochs=[EPOCHS], patience=[PATIENCE], length=[LENGTH]),
}
# The models of the textbook, whatever validation says of their variants.
PLAIN: dict[str, dict[str, Any]] = {"markov": {}, "ease": {"ridge": 200}}


def load_split(data: Path, name: str) -> Split:
    """Global time with rolling next items; leave-last-one-out where the times are only an index per user."""
    dataset = read_dataset(data / name / "items.parquet", data / name / "interactions.parquet")
    return split_leave_last_one_out(dataset) if name == "amazon-toys" else split_global_time(dataset)


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


def choose(split: Split, sasrec: Grid, threads: int) -> dict[str, Choice]:
    """The best of each grid, on validation, and the textbook's models beside them."""
    grids = {**GRIDS, "sasrec": [{**params, "threads": threads} for params in sasrec]}
    choices = {model: choose_on_validation(model, configs, split) for model, configs in grids.items()}
    plain = {f"{model} (plain)": choose_on_validation(model, [params], split) for model, params in PLAIN.items()}
    return {**choices, **plain}


def judge(name: str, split: Split, choices: dict[str, Choice], recbole: Path | None) -> dict[str, Any]:
    """Rank the test queries once and print the table."""
    for label, choice in choices.items():
        choice.model.name = label
    rankings, facts = {}, None
    if recbole is not None and (recbole / name / "test_top.npy").exists():
        rankings["RecBole SASRec"] = np.load(recbole / name / "test_top.npy").astype(np.int64)
        facts = json.loads((recbole / name / "recbole.json").read_text())
    fitted = {label: choice.fit_seconds for label, choice in choices.items()}
    models = [choice.model for choice in choices.values()]
    comparison = compare(models, split, fitted=fitted, rankings=rankings)
    print(f"\n### {name}: {comparison.split}; {comparison.n_queries} queries of {comparison.n_users} users\n")
    print(comparison.table(), flush=True)
    for model, choice in choices.items():
        print(f"- {model}: {choice.params}", flush=True)
    tried = {model: choice.tried for model, choice in choices.items()}
    chosen = {model: choice.params for model, choice in choices.items()}
    return {"set": name, **comparison.as_dict(), "chosen": chosen, "tried": tried, "recbole": facts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--export-recbole", type=Path)
    parser.add_argument("--recbole", type=Path)
    parser.add_argument("--sasrec", type=json.loads, help="configurations instead of the grid, a JSON list")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args()
    for name in args.sets:
        split = load_split(args.data, name)
        if args.export_recbole is not None:
            export_recbole(split, args.export_recbole / name)
            continue
        choices = choose(split, args.sasrec or GRIDS["sasrec"], args.threads)
        result = judge(name, split, choices, args.recbole)
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / f"sequence_models-{name}.json").write_text(json.dumps(result, indent=1))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
