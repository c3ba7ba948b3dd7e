from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from palate.data.dataset import Dataset
from palate.data.folder import read_folder
from palate.errors import InputError
from palate.experiments.study import Study
from palate.llm.encoders import CachedEncoder, MiniLMEncoder
from palate.llm.ledger import Ledger
from palate.recipes.registry import load


def cut(data: Dataset, n: int) -> Dataset:
    """The first `n` items by number of events, as a data set of their own."""
    kept = np.sort(np.argsort(-data.item_counts, kind="stable")[:n])
    items = data.items[kept]
    events = data.events.filter(pl.col("item_id").is_in(items["item_id"].implode()))
    return Dataset.from_tables(items, events)


@pytest.mark.slow
def test_it_compares_on_films_that_no_network_saw(shared_data, tmp_path):
    data = cut(read_folder(shared_data / "movielens-small"), 300)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        encoder = CachedEncoder(MiniLMEncoder(), ledger)
        study = Study(data, None, encoder, tmp_path, seeds=2, settings={"epochs": "20"})
        report = load("genre-spectrum")(study)
    share = {row["vectors"]: row for row in report.tables[0].rows}
    assert share["genre spectrum"]["share"] > share["at random"]["share_high"]
    assert share["raw vectors"]["share"] > share["shuffled genres"]["share"]
    assert {row["decile"] for row in report.tables[2].rows} == set(range(1, 11))
    assert len(report.verdict) == len(share)
    assert all(row["share_low"] <= row["share"] <= row["share_high"] for row in share.values())


def test_items_without_categories_are_no_material(tmp_path):
    items = pl.DataFrame({"item_id": ["a", "b"], "title": ["A", "B"], "text": ["", ""], "categories": [["x"], []]})
    when = datetime(2020, 1, 1, tzinfo=UTC)
    events = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [when], "value": [1.0]})
    with pytest.raises(InputError, match="Too few items") as caught:
        load("genre-spectrum")(Study(Dataset.from_tables(items, events), None, MiniLMEncoder(), tmp_path))
    assert "100 or more" in str(caught.value)
