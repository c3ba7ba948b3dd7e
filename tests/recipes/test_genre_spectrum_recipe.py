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


class Lengths:
    """In place of sentence vectors: tells texts apart by what is in them, and keeps what it was given."""

    def __init__(self):
        self.read = []

    def encode(self, texts):
        self.read = list(texts)
        return np.random.default_rng(0).standard_normal((len(texts), 12)).astype(np.float32)


@pytest.mark.parametrize("said", ["A film. Genres: {}.", "A film."])
def test_texts_that_name_the_genres_are_not_read(tmp_path, said):
    pytest.importorskip("torch", reason="needs the extra `train`")
    genres = [["comedy", "war", "music"][i % 3] for i in range(120)]
    items = pl.DataFrame({"item_id": [f"i{i}" for i in range(120)], "title": [f"T{i}" for i in range(120)]})
    texts = pl.Series([said.format(genre.title()) for genre in genres])
    items = items.with_columns(text=texts, categories=pl.Series([[genre] for genre in genres]))
    when = datetime(2020, 1, 1, tzinfo=UTC)
    events = pl.DataFrame({"user_id": ["u"], "item_id": ["i0"], "timestamp": [when], "value": [1.0]})
    encoder = Lengths()
    data = Dataset.from_tables(items, events)
    report = load("genre-spectrum")(Study(data, None, encoder, tmp_path, seeds=1, settings={"epochs": "1"}))
    tells = "{}" in said
    assert encoder.read[0] == ("T0" if tells else "T0\nA film.")
    assert any("name the categories" in note for note in report.notes) == tells
