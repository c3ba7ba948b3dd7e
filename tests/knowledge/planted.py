"""A catalogue in which one thing decides what people click: the first word of a text; the others are chance."""

import hashlib
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from palate.data.dataset import Dataset

TASTES = ("dragon", "robot", "pirate", "wizard")
CHANCE = ("red", "blue", "green", "amber", "violet", "grey", "teal", "pink")


class WordEncoder:
    """Unit vectors that are near where words are shared: what a sentence encoder does, without one."""

    name, width = "words", 64

    def encode(self, texts):
        vectors = np.zeros((len(texts), self.width), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.replace(".", " ").split() or [text]:
                digest = hashlib.sha256(word.encode()).digest()
                vectors[row] += np.random.default_rng(list(digest[:8])).standard_normal(self.width)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def planted(seed: int = 0, n_items: int = 240, n_users: int = 80, clicks: int = 14, loyalty: float = 0.6) -> Dataset:
    """Users keep to one taste with probability `loyalty`; colours, three an item, mean nothing."""
    rng = np.random.default_rng(seed)
    taste = rng.integers(len(TASTES), size=n_items)
    colours = [rng.choice(CHANCE, 2, replace=False) for _ in range(n_items)]
    items = pl.DataFrame(
        {
            "item_id": [f"i{i}" for i in range(n_items)],
            "title": [f"Item {i}" for i in range(n_items)],
            "text": [f"{TASTES[taste[i]]}. {'. '.join(colours[i])}." for i in range(n_items)],
            "categories": [["book"] if i % 2 else ["film"] for i in range(n_items)],
        }
    )
    rows = []
    start = datetime(2020, 1, 1, tzinfo=UTC)
    for user in range(n_users):
        liked = rng.integers(len(TASTES))
        for k in range(clicks):
            pool = np.flatnonzero(taste == liked) if rng.random() < loyalty else np.arange(n_items)
            rows.append((f"u{user}", f"i{rng.choice(pool)}", start + timedelta(days=k, seconds=user)))
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    events = events.with_columns(
        pl.col("timestamp").cast(pl.Datetime("us", "UTC")),
        event_type=pl.lit("click"),
        value=pl.lit(None, pl.Float32),
    )
    return Dataset.from_tables(items, events)
