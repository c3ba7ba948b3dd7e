"""What every model must hold; subclass it in a test and give `model`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from palate.data.dataset import Dataset
from palate.data.query import Query
from palate.errors import PalateError
from palate.models.recommender import Recommender

START = datetime(2024, 1, 1, tzinfo=UTC)


def dataset_of(histories: list[list[int]], n_items: int) -> Dataset:
    """User u met `histories[u]` in that order, one event a minute."""
    rows = [(f"u{u}", f"i{i}", START + timedelta(minutes=t)) for u, h in enumerate(histories) for t, i in enumerate(h)]
    events = pl.DataFrame(
        rows, schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Datetime("us", "UTC")}, orient="row"
    ).with_columns(value=pl.lit(None, pl.Float32))
    return Dataset.from_tables(pl.DataFrame({"item_id": [f"i{i}" for i in range(n_items)]}), events)


def query_of(*items: int) -> Query:
    return Query("somebody", np.array(items, dtype=np.int32))


def random_dataset(n_users: int = 30, n_items: int = 25, unseen: int = 3, seed: int = 0) -> Dataset:
    """Random walks that never reach the last `unseen` items."""
    rng = np.random.default_rng(seed)
    histories = [rng.integers(0, n_items - unseen, rng.integers(1, 14)).tolist() for _ in range(n_users)]
    return dataset_of(histories, n_items)


class RecommenderContract:
    """`model()` makes a fresh, unfitted one; the same arguments must give the same model."""

    @classmethod
    def model(cls) -> Recommender:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls) -> Dataset:
        return random_dataset()

    @pytest.fixture(scope="class")
    @classmethod
    def fitted(cls, data: Dataset) -> Recommender:
        return cls.model().fit(data)

    @pytest.fixture(scope="class")
    @classmethod
    def queries(cls) -> list[Query]:
        long = np.resize(np.arange(22, dtype=np.int32), 120)
        return [query_of(), query_of(3), query_of(1, 2, 3), query_of(24), query_of(5, 23, 5), Query(None, long)]

    def test_has_a_name(self) -> None:
        assert self.model().name

    def test_fit_returns_the_model(self, data: Dataset) -> None:
        model = self.model()
        assert model.fit(data) is model

    def test_scores_every_item_with_finite_float32(self, fitted, data, queries) -> None:
        scores = fitted.score(queries)
        assert scores.shape == (len(queries), data.n_items)
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()

    def test_no_queries_no_rows(self, fitted, data) -> None:
        assert fitted.score([]).shape == (0, data.n_items)

    def test_the_same_twice(self, fitted, data, queries) -> None:
        np.testing.assert_array_equal(self.model().fit(data).score(queries), fitted.score(queries))

    def test_a_subset_is_a_slice(self, fitted, queries) -> None:
        items = np.array([24, 0, 7, 7], dtype=np.int32)
        np.testing.assert_allclose(fitted.score(queries, items), fitted.score(queries)[:, items], atol=1e-5)
        assert fitted.score(queries, items[:0]).shape == (len(queries), 0)

    def test_each_query_stands_for_itself(self, fitted, queries) -> None:
        whole = fitted.score(queries)
        np.testing.assert_allclose(fitted.score(queries[::-1])[::-1], whole, atol=1e-5)
        for row, query in enumerate(queries):
            np.testing.assert_allclose(fitted.score([query])[0], whole[row], atol=1e-5)

    def test_scoring_does_not_change_histories(self, fitted, queries) -> None:
        before = [query.history.copy() for query in queries]
        fitted.score(queries)
        for query, history in zip(queries, before, strict=True):
            np.testing.assert_array_equal(query.history, history)

    def test_fitting_does_not_change_the_data(self) -> None:
        data, untouched = random_dataset(), random_dataset()
        _ = data.histories, data.item_counts
        self.model().fit(data)
        np.testing.assert_array_equal(data.histories.items, untouched.histories.items)
        np.testing.assert_array_equal(data.item_counts, untouched.item_counts)

    def test_learns_from_nothing(self, queries) -> None:
        empty = dataset_of([], 25)
        assert np.isfinite(self.model().fit(empty).score(queries)).all()

    def test_says_that_it_is_not_fitted(self, queries) -> None:
        with pytest.raises(PalateError, match="not been fitted"):
            self.model().score(queries)


class RetrieverContract(RecommenderContract):
    """Scores are inner products."""

    def test_score_is_the_inner_product(self, fitted, data, queries) -> None:
        vectors = fitted.encode(queries)
        assert vectors.dtype == fitted.item_vectors.dtype == np.float32
        assert vectors.shape == (len(queries), fitted.item_vectors.shape[1])
        assert len(fitted.item_vectors) == data.n_items
        np.testing.assert_allclose(vectors @ fitted.item_vectors.T, fitted.score(queries), atol=1e-5)
