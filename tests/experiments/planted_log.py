"""Logs with a planted truth: people who are shown slates and click at known rates, made at once as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from palate.experiments.declare import Experiment, experiment_of
from palate.experiments.log import Log, log_of, microseconds

START, END = datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 16, tzinfo=UTC)
SLATE, ITEMS = 4, 40
HOUR, DAY = 3_600_000_000, 86_400_000_000


def experiment(**said: Any) -> Experiment:
    """Two halves for two weeks, but for what is said."""
    halves = {"control": {"share": 0.5}, "more": {"share": 0.5}}
    return experiment_of({"name": "trial", "variants": halves, "start": START, "end": END, **said}, "test")


def planted_log(
    rates: Mapping[str, float],
    people: int = 400,
    slates: int = 3,
    seed: int = 0,
    name: str = "trial",
    history: int = 0,
    shares: Mapping[str, float] | None = None,
    **said: Any,
) -> Log:
    """`people` with about `slates` slates each over two weeks; a click on an impression with the variant's rate.

    `history`: events of each person before, more of people who click more.
    """
    shown, done = planted_tables(rates, people, slates, seed, name, history, shares)
    return log_of(shown, done, **said)


def planted_tables(
    rates: Mapping[str, float],
    people: int = 400,
    slates: int = 3,
    seed: int = 0,
    name: str = "trial",
    history: int = 0,
    shares: Mapping[str, float] | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    rng, names = np.random.default_rng(seed), np.array(list(rates))
    weights = None if shares is None else np.array([shares[each] for each in names])
    variant = rng.choice(len(names), people, p=weights)
    taste = rng.gamma(4, 1 / 4, people)  # some click more than others
    owner = np.repeat(np.arange(people), 1 + rng.poisson(slates - 1, people))
    span = (microseconds(END) - microseconds(START)) // 1
    at = microseconds(START) + rng.integers(0, span - HOUR, len(owner))
    owner_each, at_each = np.repeat(owner, SLATE), np.repeat(at, SLATE)
    request = np.repeat(np.arange(len(owner)), SLATE)
    items = np.argsort(rng.random((len(owner), ITEMS)), axis=1)[:, :SLATE].ravel()
    rate = np.array(list(rates.values()))[variant[owner_each]] * taste[owner_each]
    clicked = rng.random(len(items)) < np.minimum(rate, 1)
    labels = np.array([f"{name}:{each}" for each in names])
    shown = pl.DataFrame(
        {
            "user_id": _ids("u", owner_each),
            "item_id": _ids("i", items),
            "request_id": _ids("r", request),
            "timestamp": at_each,
            "variant": labels[variant[owner_each]],
            "position": np.tile(np.arange(SLATE), len(owner)),
        }
    )
    clicks = {
        "user_id": _ids("u", owner_each[clicked]),
        "item_id": _ids("i", items[clicked]),
        "request_id": _ids("r", request[clicked]),
        "timestamp": at_each[clicked] + rng.integers(1_000_000, HOUR // 2, int(clicked.sum())),
    }
    done = pl.DataFrame(clicks).with_columns(event_type=pl.lit("click"), value=pl.lit(None, pl.Float64))
    before = np.repeat(np.arange(people), rng.poisson(history * taste))
    past = pl.DataFrame(
        {
            "user_id": _ids("u", before),
            "item_id": _ids("i", rng.integers(0, ITEMS, len(before))),
            "timestamp": microseconds(START) - rng.integers(1, 20 * DAY, len(before)),
        }
    ).with_columns(event_type=pl.lit("click"), value=pl.lit(None, pl.Float64), request_id=pl.lit(None, pl.String))
    return _timed(shown), _timed(pl.concat([done, past.select(done.columns)]))


def _ids(letter: str, numbers: np.ndarray) -> pl.Series:
    return pl.Series(numbers).cast(pl.String).str.replace("^", letter)


def _timed(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC")))
