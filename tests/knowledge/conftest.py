from datetime import UTC, datetime

import polars as pl
import pytest

from palate.data.dataset import Dataset


@pytest.fixture
def films() -> Dataset:
    items = pl.DataFrame(
        {
            "item_id": [str(n) for n in range(8)],
            "title": [f"Film {n}" for n in range(8)],
            "text": [None, "about the sea"] * 4,
            "categories": [["Drama"], []] * 4,
        }
    )
    events = pl.DataFrame(
        {
            "user_id": ["a"] * 5 + ["b"] * 3,
            "item_id": ["0", "1", "2", "3", "4", "0", "1", "0"],
            "timestamp": pl.Series([datetime(2020, 1, n + 1, tzinfo=UTC) for n in range(8)]).cast(
                pl.Datetime("us", "UTC")
            ),
            "event_type": ["view"] * 8,
            "value": pl.Series([None] * 8, dtype=pl.Float32),
        }
    )
    return Dataset.from_tables(items, events)
