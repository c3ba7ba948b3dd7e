"""People who like two kinds of films, and a language model that answers by what it was shown."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from palate.data.dataset import TIMESTAMP, Dataset
from palate.knowledge.factors import Factor, Factors
from palate.llm.request import Answer, Request

START = datetime(2024, 1, 1, tzinfo=UTC)
FACTORS = Factors(
    scenario="films",
    thing="film",
    factors=(Factor(name="mood", values=("calm", "tense")), Factor(name="theme", values=("sea", "war", "love"))),
)


def shares(text: str, n: int) -> np.ndarray:
    """Probabilities that hang on every letter of `text`."""
    drawn = np.random.default_rng(list(hashlib.sha256(text.encode()).digest())).random(n) + 0.1
    return drawn / drawn.sum()


class Echo:
    """Its answers are a function of the request; all requests are kept."""

    model = "echo-1"

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def generate(self, requests):
        self.asked += requests
        return [self._answer(request) for request in requests]

    def choose(self, requests, options):
        raise NotImplementedError

    def _answer(self, request: Request) -> Answer:
        text = request.messages[-1].text if len(request.messages) < 3 else request.messages[-2].text
        found = {"model": self.model, "engine": "echo", "tokens_in": 50, "tokens_out": 5, "seconds": 0.5}
        if "broken" in text:
            return Answer(error="no answer", **found)
        if request.options:
            chances = shares(text, len(request.options))
            return Answer(request.options[int(chances.argmax())], probabilities=tuple(chances.tolist()), **found)
        return Answer(f"Likes {hashlib.sha256(text.encode()).hexdigest()[:6]}. Likes it.", **found)


class Letters:
    """Encodes a text as unit vector that hangs on its letters."""

    name, width = "letters", 8

    def encode(self, texts):
        rows = np.array([shares(text, self.width) for text in texts], dtype=np.float32).reshape(-1, self.width)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def log(n_users: int = 12, n_items: int = 20, n_events: int = 10, seed: int = 0) -> Dataset:
    """User `u` mostly meets items of parity `u % 2` and values them higher."""
    rng, rows = np.random.default_rng(seed), []
    for user in range(n_users):
        for step in range(n_events):
            odd = user % 2 if rng.random() < 0.9 else 1 - user % 2
            item = int(rng.integers(n_items // 2)) * 2 + odd
            value = float(rng.integers(4, 6) if odd == user % 2 else rng.integers(1, 4))
            rows.append((f"u{user}", f"i{item}", START + timedelta(hours=step * n_users + user), value))
    return dataset(rows, n_items)


def dataset(rows: list[tuple[str, str, datetime, float | None]], n_items: int) -> Dataset:
    items = pl.DataFrame({"item_id": [f"i{i}" for i in range(n_items)], "title": [f"Film {i}" for i in range(n_items)]})
    items = items.with_columns(text=pl.lit(None, pl.String), categories=pl.lit([], pl.List(pl.String)))
    users, ids, times, values = (list(column) for column in zip(*rows, strict=True))
    events = pl.DataFrame({"user_id": users, "item_id": ids, "timestamp": pl.Series(times).cast(TIMESTAMP)})
    values_column = pl.Series("value", values, dtype=pl.Float32)
    return Dataset.from_tables(items, events.with_columns(values_column, event_type=pl.lit(None, pl.String)))


def shuffled_after(data: Dataset, first: np.ndarray, seed: int) -> Dataset:
    """Every event behind each user's `first` ones gets another's item and value; times and people stay."""
    users = data.events["user_num"].to_numpy()
    order = np.argsort(users, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - np.repeat(data.histories.offsets[:-1], np.diff(data.histories.offsets))
    late = np.flatnonzero(place >= first[users])
    source = np.arange(len(order))
    source[late] = np.random.default_rng(seed).permutation(late)
    moved = data.events[source].select("item_id", "item_num", "value")
    return data.with_events(data.events.with_columns(moved))
