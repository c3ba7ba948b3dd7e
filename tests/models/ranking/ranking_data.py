"""A small log of ratings with a taste to learn: users like the categories of one half, items have a quality."""

from __future__ import annotations

import numpy as np
import polars as pl

from palate.data.dataset import TIMESTAMP, Dataset
from palate.data.samples import Samples, rated_samples
from palate.models.ranking.features import Features, FeaturesConfig

HOUR = 3_600_000_000
BEGIN = 1_600_000_000_000_000


def rated_dataset(n_users: int = 40, n_items: int = 30, n_events: int = 900, seed: int = 0) -> Dataset:
    """One event an hour. Columns: a brand, a year with gaps, one value alone, all NaN, ids."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, n_users, n_events), rng.integers(0, n_items, n_events)
    liked = (users % 2 == items % 2) * 2.0 + (items % 5) / 2 + rng.normal(0, 0.5, n_events)
    categories = [["even" if i % 2 == 0 else "odd", f"genre {i % 3}"] for i in range(n_items)]
    item_table = pl.DataFrame(
        {
            "item_id": [f"i{i}" for i in range(n_items)],
            "title": [f"Title {i}" for i in range(n_items)],
            "text": [None] * n_items,
            "categories": categories,
            "brand": [None if i % 7 == 0 else f"brand {i % 4}" for i in range(n_items)],
            "year": [np.nan if i % 6 == 0 else 1990.0 + i for i in range(n_items)],
            "alike": ["same"] * n_items,
            "constant": [1.0] * n_items,
            "unknown": [np.nan] * n_items,
            "imdb_id": list(range(n_items)),
        },
        schema_overrides={"text": pl.String},
    )
    events = pl.DataFrame(
        {
            "user_id": [f"u{u}" for u in users],
            "item_id": [f"i{i}" for i in items],
            "timestamp": pl.Series(BEGIN + HOUR * np.arange(n_events)).cast(TIMESTAMP),
            "event_type": ["rating"] * n_events,
            "value": np.clip(np.round(1 + liked), 1, 5).astype(np.float32),
        }
    )
    people = pl.DataFrame(
        {"user_id": [f"u{u}" for u in range(n_users)], "group": [f"g{u % 2}" for u in range(n_users)]}
    )
    return Dataset.from_tables(item_table, events, people)


def prepared(config: FeaturesConfig | None = None, seed: int = 0) -> tuple[Dataset, Samples, Features]:
    dataset = rated_dataset(seed=seed)
    samples = rated_samples(dataset)
    return dataset, samples, Features(dataset, samples, config or FeaturesConfig(history=8))
