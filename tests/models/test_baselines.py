"""Popularity, Markov, item-kNN and EASE against their definitions, computed the slow way."""

from __future__ import annotations

import numpy as np
import pytest
from recommender_contract import RecommenderContract, dataset_of, query_of, random_dataset

from palate.data.dataset import Dataset
from palate.models.ease import Ease, EaseConfig
from palate.models.item_knn import ItemKnn, ItemKnnConfig
from palate.models.markov import Markov, MarkovConfig
from palate.models.popularity import Popularity, PopularityConfig


class TestPopularity(RecommenderContract):
    @classmethod
    def model(cls) -> Popularity:
        return Popularity()


class TestMarkov(RecommenderContract):
    @classmethod
    def model(cls) -> Markov:
        return Markov()


class TestMarkovOfSeveral(RecommenderContract):
    @classmethod
    def model(cls) -> Markov:
        return Markov(MarkovConfig(window=3, recent=4))


class TestItemKnn(RecommenderContract):
    @classmethod
    def model(cls) -> ItemKnn:
        return ItemKnn(ItemKnnConfig(neighbours=5))


class TestEase(RecommenderContract):
    @classmethod
    def model(cls) -> Ease:
        return Ease(EaseConfig(ridge=5.0))


def met(data: Dataset) -> np.ndarray:
    matrix = np.zeros((data.n_users, data.n_items))
    for user in range(data.n_users):
        matrix[user, data.histories.of(user)] = 1
    return matrix


def test_popularity_counts_events() -> None:
    model = Popularity().fit(dataset_of([[0, 1, 1], [1]], 3))
    np.testing.assert_array_equal(model.score([query_of(0)]), [[1, 3, 0]])


def test_popularity_fades() -> None:
    data = dataset_of([[0] * 1 + [2] * 1440 + [1]], 3)  # item 0 a day before item 1
    scores = Popularity(PopularityConfig(half_life=1.0)).fit(data).score([query_of()])[0]
    assert scores[1] == pytest.approx(1.0)
    assert scores[0] == pytest.approx(0.5, rel=1e-2)


def test_markov_by_hand() -> None:
    # 0 -> 1 twice, 0 -> 2 once; 5 events of which item 1 has 2.
    model = Markov(MarkovConfig(prior=1.0)).fit(dataset_of([[0, 1], [0, 1], [0, 2]], 4))
    np.testing.assert_allclose(
        model.score([query_of(3, 0)])[0], [(3 / 6) / 4, (2 + 2 / 6) / 4, (1 + 1 / 6) / 4, 0], rtol=1e-6
    )
    np.testing.assert_allclose(model.score([query_of(3)])[0], [3 / 6, 2 / 6, 1 / 6, 0], rtol=1e-6)
    np.testing.assert_allclose(model.score([query_of()])[0], [3 / 6, 2 / 6, 1 / 6, 0], rtol=1e-6)


@pytest.mark.parametrize(("window", "recent"), [(1, 1), (3, 1), (2, 4)])
def test_markov_is_its_definition(window: int, recent: int) -> None:
    data, decay, prior = random_dataset(seed=1), 0.7, 2.0
    counts = np.zeros((data.n_items, data.n_items))
    for user in range(data.n_users):
        history = data.histories.of(user)
        for a in range(len(history)):
            for b in range(a + 1, min(a + 1 + window, len(history))):
                counts[history[a], history[b]] += 1 / (b - a)
    share = data.item_counts / data.item_counts.sum()
    rows = (counts + prior * share) / (counts.sum(axis=1, keepdims=True) + prior)
    model = Markov(MarkovConfig(window=window, recent=recent, decay=decay, prior=prior)).fit(data)
    history = [4, 2, 9, 2, 11]
    votes = decay ** np.arange(recent)[: len(history)]
    expected = (votes / votes.sum()) @ rows[history[::-1][:recent]]
    np.testing.assert_allclose(model.score([query_of(*history)])[0], expected, rtol=1e-4)


@pytest.mark.parametrize("recent", [None, 2])
def test_item_knn_is_its_definition(recent: int | None) -> None:
    data = random_dataset(seed=2)
    x = met(data)
    n = np.sqrt(x.sum(axis=0))
    similar = (x.T @ x) / (np.outer(n, n) + 3.0)
    np.fill_diagonal(similar, 0)
    for i, row in enumerate(similar):
        similar[i, row < np.sort(row)[-4]] = 0
    history = np.array([4, 2, 9, 2])
    used = np.unique(history[-recent:] if recent else history)
    expected = similar[:, used].sum(axis=1)  # item i counts a history item that is among its own neighbours
    model = ItemKnn(ItemKnnConfig(neighbours=4, shrinkage=3.0, recent=recent)).fit(data)
    np.testing.assert_allclose(model.score([query_of(*history)])[0], expected, atol=1e-6)


@pytest.mark.parametrize("recent", [None, 2])
def test_ease_solves_its_constrained_least_squares(recent: int | None) -> None:
    data, ridge = random_dataset(seed=3), 2.5
    x = met(data)
    seen = np.flatnonzero(data.item_counts)
    weights = np.zeros((data.n_items, data.n_items))
    for j in seen:  # each column is a ridge regression on the other items
        others = seen[seen != j]
        a = x[:, others]
        weights[others, j] = np.linalg.solve(a.T @ a + ridge * np.eye(len(others)), a.T @ x[:, j])
    history = np.array([4, 2, 9, 2])
    used = np.unique(history[-recent:] if recent else history)
    model = Ease(EaseConfig(ridge=ridge, recent=recent)).fit(data)
    np.testing.assert_allclose(model.score([query_of(*history)])[0], weights[used].sum(axis=0), atol=1e-4)
