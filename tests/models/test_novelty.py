"""Which events bring a person something new."""

from __future__ import annotations

import polars as pl
import pytest
from recommender_contract import dataset_of, query_of

from palate.data.dataset import Dataset
from palate.errors import InputError
from palate.models.novelty import novel_events


def with_kinds(data: Dataset, kinds: list[object]) -> Dataset:
    return Dataset(data.items.with_columns(kind=pl.Series(kinds)), data.events, data.users)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["a", "a", "b", None], [True, False, True, False, False]),
        ([["a"], ["a", "b"], ["b", "c"], []], [True, True, True, False, False]),
    ],
)
def test_the_first_of_a_kind_is_new(kinds: list[object], expected: list[bool]) -> None:
    data = with_kinds(dataset_of([[0, 1, 2, 3, 0]], 4), kinds)
    assert novel_events(data, "kind").tolist() == expected


def test_new_is_for_each_person() -> None:
    data = with_kinds(dataset_of([[0, 1], [1, 0]], 2), ["a", "a"])
    assert novel_events(data, "kind").sum() == 2
    assert novel_events(data, "kind")[:2].all()  # both persons' first events come first


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(InputError, match="no such column") as caught:
        novel_events(dataset_of([[0]], 1), "genre")
    assert "item_id" in str(caught.value.allowed)


def test_a_novelty_boosted_model_expects_what_is_new() -> None:
    """Everybody goes 0, 1, 2, 3: of two kinds, the first of the second is 3."""
    pytest.importorskip("torch")
    from palate.models.sasrec import SasRec, SasRecConfig

    data = with_kinds(dataset_of([[0, 1, 2, 3, 4, 5]] * 40, 6), ["a", "a", "a", "b", "b", "b"])
    config = {"dimensions": 16, "blocks": 1, "epochs": 30, "dropout": 0.0, "warmup": 0, "learning_rate": 0.01}
    boosted = SasRec(SasRecConfig(**config, novel_by="kind")).fit(data)
    plain = SasRec(SasRecConfig(**config)).fit(data)
    queries = [query_of(0, 1, 2), query_of(0, 1)]
    assert boosted.score(queries[:1]).argmax() == 3
    assert plain.score(queries).argmax(axis=1).tolist() == [3, 2]
