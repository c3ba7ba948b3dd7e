"""Recommenders against each other: full ranking over one held-out part, intervals, paired differences."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from palate.data.splits import Holdout, Split
from palate.errors import InputError
from palate.evaluation.bootstrap import Interval, bootstrap_mean, paired_difference
from palate.evaluation.ranking import mask_seen, ndcg, recall, top_n
from palate.knowledge.tables import Knowledge
from palate.models.recommender import Recommender
from palate.models.registry import make

Ranking = npt.NDArray[np.int64]  # [q, n] item_nums, best first, -1 where there is none
Values = npt.NDArray[np.float64]  # [q]
BASELINES = ("popularity", "markov", "item-knn", "ease")
CELLS = 8_000_000  # scores held at a time: bounds the memory to about 100 MB


@dataclass(frozen=True)
class Result:
    """One model: the value of each metric for each query, their means with 95% intervals, and its seconds.

    `against` is the paired difference to the best baseline. Intervals resample users, not queries. Seconds are
    of the wall clock; None for a ranking made elsewhere.
    """

    name: str
    values: dict[str, Values]
    means: dict[str, Interval]
    against: dict[str, Interval]
    fit_seconds: float | None = None
    score_seconds: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Without the values of single queries."""
        return {
            "name": self.name,
            "means": {name: _plain(interval) for name, interval in self.means.items()},
            "against": {name: _plain(interval) for name, interval in self.against.items()},
            "fit_seconds": self.fit_seconds,
            "score_seconds": self.score_seconds,
        }


@dataclass(frozen=True)
class Comparison:
    """What `compare` found. `baseline` is the baseline with the best NDCG, None where there was none."""

    split: str
    n: int
    n_queries: int
    n_users: int
    baseline: str | None
    results: list[Result]

    def __getitem__(self, name: str) -> Result:
        return next(result for result in self.results if result.name == name)

    def as_dict(self) -> dict[str, Any]:
        """All of it but the values of single queries, as JSON has it."""
        facts = {"split": self.split, "n": self.n, "queries": self.n_queries, "users": self.n_users}
        return {**facts, "baseline": self.baseline, "results": [result.as_dict() for result in self.results]}

    def table(self) -> str:
        """A Markdown table, the best NDCG first."""
        metrics = list(self.results[0].means)
        head = ["model", *metrics, f"{metrics[0]} against {self.baseline}", "fit s", "score s"]
        lines = [_row(head), _row(["---"] * len(head))]
        for r in sorted(self.results, key=lambda result: -result.means[metrics[0]].mean):
            against = r.against.get(metrics[0])
            difference = "" if against is None else f"{against.mean:+.4f} [{against.low:+.4f}, {against.high:+.4f}]"
            seconds = ["" if s is None else f"{s:.1f}" for s in (r.fit_seconds, r.score_seconds)]
            lines.append(_row([r.name, *(str(r.means[m]) for m in metrics), difference, *seconds]))
        return "\n".join(lines)


@dataclass(frozen=True)
class Choice:
    """The parameters with the best validation NDCG, the model fitted with them, and all that was tried."""

    name: str
    params: dict[str, Any]
    model: Recommender
    fit_seconds: float
    tried: list[dict[str, Any]] = field(default_factory=list)


def compare(
    models: Sequence[Recommender],
    split: Split,
    n: int = 10,
    seed: int = 0,
    *,
    knowledge: Knowledge | None = None,
    fitted: Mapping[str, float] | None = None,
    rankings: Mapping[str, Ranking] | None = None,
    baselines: Collection[str] = BASELINES,
) -> Comparison:
    """Fit each model on `split.train` and judge it once on `split.test`, every item ranked, seen items left out.

    NDCG@n = Σ over relevant items among the first n of 1 / log2(rank + 1), over the greatest such sum;
    recall@n = relevant items among the first n / relevant items. Means are over queries.

    Args:
        models: Told apart by their `name`.
        split: `validation` is handed to `fit` (early stopping).
        n: Length of the rankings.
        seed: Of the bootstrap.
        knowledge: Handed to `fit`.
        fitted: Names of models that are fitted already, with the seconds it took.
        rankings: Item numbers [q, >= n] that other software gave for the queries of `split.test`.
        baselines: Names among which the best (in NDCG@n over the test) is what all are held against.

    Raises:
        InputError: Two models of one name, or nothing to compare.
    """
    names = [model.name for model in models] + list(rankings or {})
    if len(set(names)) < len(names) or not names:
        raise InputError("Models to compare need names of their own, and there must be one", got=names)
    tops: dict[str, Ranking] = {}
    seconds: dict[str, tuple[float, float]] = {}
    for model in models:
        start = time.perf_counter()
        if model.name not in (fitted or {}):
            model.fit(split.train, knowledge, split.validation)
        middle = time.perf_counter()
        tops[model.name] = rank(model, split.test, n)
        fit_seconds = (fitted or {}).get(model.name, middle - start)
        seconds[model.name] = fit_seconds, time.perf_counter() - middle
    return _judge({**tops, **(rankings or {})}, seconds, split, n, seed, baselines)


def choose_on_validation(
    name: str,
    configs: Sequence[dict[str, Any]],
    split: Split,
    n: int = 10,
    knowledge: Knowledge | None = None,
    **parts: Any,
) -> Choice:
    """Fit the registered model `name` with each of `configs`; the best NDCG@n on `split.validation` wins.

    The test part is not looked at. Of equal ones the first wins. `parts` go to the model's class.

    Raises:
        InputError: Unknown model or parameters, or no configuration.
    """
    best: Choice | None = None
    tried: list[dict[str, Any]] = []
    for params in configs:
        model = make(name, params, **parts)
        start = time.perf_counter()
        model.fit(split.train, knowledge, split.validation)
        seconds = time.perf_counter() - start
        figure = on_validation(model, split, n)[f"NDCG@{n}"]
        if best is None or figure > max(row["ndcg"] for row in tried):
            best = Choice(name, params, model, seconds, tried)
        tried.append({"params": params, "ndcg": figure, "fit_seconds": seconds})
    if best is None:
        raise InputError("There is no configuration to choose from", where=name)
    return best


def on_validation(model: Recommender, split: Split, n: int = 10) -> dict[str, float]:
    """NDCG@n and recall@n of a fitted model on the validation part: what settings are chosen by."""
    held = split.validation
    top = rank(model, held, n)
    found = {f"NDCG@{n}": ndcg(top, held.targets, n), f"recall@{n}": recall(top, held.targets, n)}
    return {name: float(np.nanmean(values)) for name, values in found.items()}


def rank(model: Recommender, held: Holdout, n: int) -> Ranking:
    """The first `n` of all items for each query, its history left out where it says so: [q, n]."""
    parts, size, start = [np.zeros((0, n), dtype=np.int64)], 1, 0
    while start < len(held.queries):
        queries = held.queries[start : start + size]
        scores = model.score(queries)
        seen = [query.history if query.exclude_seen else query.history[:0] for query in queries]
        parts.append(top_n(mask_seen(scores, seen), n))
        start += size
        size = max(1, CELLS // max(1, scores.shape[1]))
    return np.concatenate(parts)


def _judge(
    tops: Mapping[str, Ranking],
    seconds: Mapping[str, tuple[float, float]],
    split: Split,
    n: int,
    seed: int,
    baselines: Collection[str],
) -> Comparison:
    targets = split.test.targets
    users = [query.user_id for query in split.test.queries]
    values = {
        name: {f"NDCG@{n}": ndcg(top, targets, n), f"recall@{n}": recall(top, targets, n)} for name, top in tops.items()
    }
    among = [name for name in values if name in baselines]
    baseline = max(among, key=lambda name: float(np.nanmean(values[name][f"NDCG@{n}"])), default=None)
    results = []
    for name, own in values.items():
        means = {metric: bootstrap_mean(v, users, seed=seed) for metric, v in own.items()}
        against = {}
        if baseline not in (None, name):
            against = {m: paired_difference(v, values[baseline][m], users, seed=seed) for m, v in own.items()}
        fit, score = seconds.get(name, (None, None))
        results.append(Result(name, own, means, against, fit, score))
    n_users = len(set(users) - {None}) + users.count(None)
    return Comparison(split.name, n, len(users), n_users, baseline, results)


def _plain(interval: Interval) -> dict[str, float | None]:
    """JSON knows no NaN."""
    return {name: None if np.isnan(value) else value for name, value in vars(interval).items()}


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
