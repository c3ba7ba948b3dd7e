"""Splits that do not leak: by global time, or the last event of each user (labelled, for papers only)."""

from __future__ import annotations

from dataclasses import dataclass

from palate.data.dataset import Dataset, IntArray
from palate.data.query import Query


@dataclass(frozen=True)
class Holdout:
    """Queries with the answers that came to pass: `targets[i]` are the item_nums relevant to `queries[i]`."""

    queries: list[Query]
    targets: list[IntArray]


@dataclass(frozen=True)
class Split:
    """`train` shares items, users and numbers with the whole. `name` says how it was cut."""

    train: Dataset
    validation: Holdout
    test: Holdout
    name: str
