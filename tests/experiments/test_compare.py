"""Comparisons rank everything, keep what each query said, and choose without looking at the test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from palate.data.dataset import Dataset
from palate.data.query import Query
from palate.data.splits import Holdout, Split, split_global_time
from palate.errors import InputError
from palate.evaluation.bootstrap import bootstrap_mean, paired_difference
from palate.experiments.compare import choose_on_validation, compare, rank
from palate.models.markov import Markov, MarkovConfig
from palate.models.popularity import Popularity


@pytest.fixture(scope="module")
def split() -> Split:
    rng, start = np.random.default_rng(0), datetime(2024, 1, 1, tzinfo=UTC)
    rows = [
        (f"u{rng.integers(12)}", f"i{min(int(rng.exponential(6)), 29)}", start + timedelta(hours=hour))
        for hour in range(400)
    ]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    items = pl.DataFrame({"item_id": [f"i{i}" for i in range(30)]})
    return split_global_time(Dataset.from_tables(items, events), 0.2, 0.2)


class Fixed:
    """Scores given beforehand; remembers what it was fitted on."""

    def __init__(self, name: str, scores: Sequence[float]) -> None:
        self.name, self.scores, self.fits = name, np.array(scores, np.float32), 0

    def fit(self, dataset, knowledge=None, validation=None):
        self.fits, self.validation = self.fits + 1, validation
        return self

    def score(self, queries, items=None):
        return np.tile(self.scores, (len(queries), 1))


def test_figures_are_those_of_the_metrics(split: Split) -> None:
    comparison = compare([Popularity(), Fixed("fixed", np.arange(30)[::-1])], split, n=5, seed=3)
    scores = np.arange(30)[::-1].astype(float)
    hits, gains, users = [], [], []
    for query, targets in zip(split.test.queries, split.test.targets, strict=True):
        order = [i for i in np.argsort(-scores) if i not in set(query.history.tolist())][:5]
        place = order.index(targets[0]) if targets[0] in order else None
        hits.append(float(place is not None))
        gains.append(0.0 if place is None else 1 / np.log2(place + 2))
        users.append(query.user_id)
    fixed = comparison["fixed"]
    np.testing.assert_allclose(fixed.values["recall@5"], hits)
    np.testing.assert_allclose(fixed.values["NDCG@5"], gains)
    assert fixed.means["NDCG@5"] == bootstrap_mean(np.array(gains), users, seed=3)
    popular = comparison["popularity"].values["NDCG@5"]
    assert fixed.against["NDCG@5"] == paired_difference(np.array(gains), popular, users, seed=3)
    assert (comparison.n_queries, comparison.n_users) == (len(users), len(set(users)))
    assert 0 < fixed.means["NDCG@5"].mean < 1


def test_the_best_baseline_is_what_all_are_held_against(split: Split) -> None:
    bad, good, other = Fixed("bad", np.arange(30)), Fixed("good", -np.arange(30)), Fixed("other", np.zeros(30))
    comparison = compare([bad, good, other], split, baselines=("good", "bad"))
    assert comparison.baseline == "good"
    assert comparison["good"].against == {}
    assert comparison["other"].against.keys() == {"NDCG@10", "recall@10"}
    assert compare([other], split).baseline is None


def test_each_model_is_fitted_once_with_validation_for_its_stop(split: Split) -> None:
    model = Fixed("fixed", np.zeros(30))
    compare([model], split)
    assert model.fits == 1
    assert model.validation is split.validation


def test_a_fitted_model_is_taken_as_it_is(split: Split) -> None:
    model = Fixed("fixed", np.zeros(30))
    comparison = compare([model], split, fitted={"fixed": 12.5})
    assert model.fits == 0
    assert comparison["fixed"].fit_seconds == 12.5


def test_a_ranking_made_elsewhere_is_judged_alike(split: Split) -> None:
    model = Popularity().fit(split.train)
    comparison = compare([model], split, rankings={"elsewhere": rank(model, split.test, 20)})
    own, other = comparison["popularity"], comparison["elsewhere"]
    np.testing.assert_array_equal(own.values["NDCG@10"], other.values["NDCG@10"])
    assert other.fit_seconds is None


def test_json_and_table(split: Split) -> None:
    comparison = compare([Fixed("fixed", np.arange(30)), Popularity()], split)
    facts = json.loads(json.dumps(comparison.as_dict(), allow_nan=False))
    assert facts["baseline"] == "popularity"
    assert [result["name"] for result in facts["results"]] == ["fixed", "popularity"]
    assert set(facts["results"][0]["means"]["NDCG@10"]) == {"mean", "low", "high"}
    lines = comparison.table().splitlines()
    assert lines[2].startswith("| popularity | 0.")
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize("models", [[], [Popularity(), Popularity()]])
def test_models_need_names_of_their_own(split: Split, models: list[Popularity]) -> None:
    with pytest.raises(InputError, match="names of their own") as caught:
        compare(models, split)
    assert caught.value.got == [model.name for model in models]


def test_rank_leaves_out_the_history_only_where_asked(split: Split) -> None:
    model = Fixed("fixed", np.arange(30))
    history = np.array([29, 3], np.int32)
    queries = [Query(None, history), Query(None, history, exclude_seen=False)]
    held = Holdout(queries, [np.array([1], np.int32)] * 2)
    np.testing.assert_array_equal(rank(model, held, 3), [[28, 27, 26], [29, 28, 27]])
    assert rank(model, Holdout([], []), 3).shape == (0, 3)


def test_batches_do_not_change_a_ranking(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Markov().fit(split.train)
    whole = rank(model, split.test, 7)
    monkeypatch.setattr("palate.experiments.compare.CELLS", 90)
    np.testing.assert_array_equal(rank(model, split.test, 7), whole)


def test_chooses_the_best_on_validation_without_the_test(split: Split) -> None:
    blind = replace(split, test=Holdout([], []))
    configs = [{"prior": 1.0}, {"window": 3, "recent": 5}, {"prior": 1000.0}]
    choice = choose_on_validation("markov", configs, blind)
    figures = [row["ndcg"] for row in choice.tried]
    assert [row["params"] for row in choice.tried] == configs
    assert choice.params == configs[int(np.argmax(figures))]
    again = Markov(MarkovConfig(**choice.params)).fit(split.train)
    np.testing.assert_array_equal(choice.model.score(split.test.queries), again.score(split.test.queries))


def test_there_must_be_something_to_choose_from(split: Split) -> None:
    with pytest.raises(InputError, match="no configuration") as caught:
        choose_on_validation("markov", [], split)
    assert caught.value.where == "markov"
