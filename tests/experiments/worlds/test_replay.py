"""Off-policy estimates from the house's events."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from palate.errors import InputError
from palate.evaluation.off_policy import ips, snips
from palate.experiments.worlds.config import WorldConfig
from palate.experiments.worlds.policies import PopularItems, RandomItems
from palate.experiments.worlds.replay import replay_of
from palate.experiments.worlds.simulate import simulate
from palate.experiments.worlds.world import SyntheticWorld

CONFIG = WorldConfig(people=3000, items=12, interests=4, themes=2, dimensions=6, places=3, arrivals=0, new_items=0)


def test_by_hand_with_a_short_slate():
    rows = [
        ("a", "x", "impression", "1", 0, 0.5),
        ("a", "y", "impression", "1", 1, 0.25),
        ("b", "y", "impression", "2", 0, 0.5),
    ]
    rows += [("a", "y", "click", "1", 1, 0.25), ("b", "y", "click", "2", 0, 0.5)]
    names = ["user_id", "item_id", "event_type", "request_id", "position", "propensity"]
    events = pl.DataFrame(rows, schema=names, orient="row")
    with pytest.raises(InputError, match="too little"):
        replay_of(events, lambda shown: np.full(shown.height, 0.5))
    many = pl.concat(
        [events.with_columns(pl.col("request_id") + f"-{n}", pl.col("user_id") + f"{n}") for n in range(40)]
    )
    found = ips(replay_of(many, lambda shown: np.full(shown.height, 0.5)))
    assert found.value.mean == pytest.approx((2.0 + 1.0) / 2)
    assert found.n == 80


def test_a_logged_world_tells_what_another_policy_takes():
    world = SyntheticWorld(CONFIG, 0, 1)
    logged = simulate(world, RandomItems())
    popular = simulate(world, PopularItems())
    wanted = (
        popular.log.events()
        .filter(pl.col("event_type") == "impression")
        .select("user_id", "item_id", "position", "timestamp")
    )
    first = logged.log.events().filter(pl.col("timestamp").dt.hour() == 0)  # of each person one slate, in both

    def chance(shown):
        same = shown.join(
            wanted.with_columns(there=pl.lit(1.0)),
            on=["user_id", "item_id", "position", "timestamp"],
            how="left",
            maintain_order="left",
        )
        return same["there"].fill_null(0.0).to_numpy()

    replay = replay_of(first, chance)
    there = popular.log.events().filter(pl.col("timestamp").dt.hour() == 0)
    truth = (there["event_type"] == "click").sum() / there["request_id"].n_unique()
    for estimate in (ips(replay), snips(replay)):
        assert abs(estimate.value.mean - truth) < 3 * (estimate.value.high - estimate.value.mean)
        assert estimate.mean_weight == pytest.approx(1, abs=0.5)


def test_what_was_not_drawn_by_chance_is_refused():
    log = simulate(SyntheticWorld(CONFIG, 0, 1), PopularItems()).log.events()
    with pytest.raises(InputError, match="was not logged"):
        replay_of(log, lambda shown: np.ones(shown.height))
    with pytest.raises(InputError, match="no such column"):
        replay_of(log.drop("propensity"), lambda shown: np.ones(shown.height))
    with pytest.raises(InputError, match="no impressions"):
        replay_of(log.filter(pl.col("event_type") == "click"), lambda shown: np.ones(shown.height))
    with pytest.raises(InputError, match="two items"):
        replay_of(pl.concat([log, log]), lambda shown: np.ones(shown.height))
