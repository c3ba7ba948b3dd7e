"""Off-policy estimates from the house's events."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from palate.errors import InputError
from palate.evaluation.off_policy import ips, snips
from palate.experiments.replay import estimates, replay_of, slates_of
from palate.experiments.worlds.config import WorldConfig
from palate.experiments.worlds.policies import PopularItems, RandomItems
from palate.experiments.worlds.simulate import simulate
from palate.experiments.worlds.world import SyntheticWorld

CONFIG = WorldConfig(people=3000, items=12, interests=4, themes=2, dimensions=6, places=3, arrivals=0, new_items=0)
SHOWN = [("a", "x", "1", 0, 0.5), ("a", "y", "1", 1, 0.25), ("b", "y", "2", 0, 0.5)]
DONE = [("y", "click", "1"), ("y", "click", "2"), ("x", "save", "1")]


def by_hand(copies: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    shown = pl.DataFrame(SHOWN, schema=["user_id", "item_id", "request_id", "position", "propensity"], orient="row")
    done = pl.DataFrame(DONE, schema=["item_id", "event_type", "request_id"], orient="row")
    other = [pl.lit(f"-{n}") for n in range(copies)]
    request = [pl.col("request_id") + each for each in other]
    return (
        pl.concat(
            [shown.with_columns(each, pl.col("user_id") + end) for each, end in zip(request, other, strict=True)]
        ),
        pl.concat([done.with_columns(each) for each in request]),
    )


def logged(world, policy, hours=24):
    events = simulate(world, policy).log.events().filter(pl.col("timestamp").dt.hour() < hours)
    return events.filter(pl.col("event_type") == "impression"), events


def test_by_hand_with_a_short_slate():
    with pytest.raises(InputError, match="too little"):
        replay_of(slates_of(*by_hand(1), "click"), lambda rows: np.full(rows.height, 0.5))
    found = ips(replay_of(slates_of(*by_hand(40), "click"), lambda rows: np.full(rows.height, 0.5)))
    assert found.value.mean == pytest.approx((2.0 + 1.0) / 2)
    assert found.n == 80
    assert slates_of(*by_hand(40), "save")["earned"].sum() == 40


def test_a_table_of_chances_gives_every_estimate():
    slates = slates_of(*by_hand(40), "click")
    chances = slates.select("request_id", "position", probability=0.5)
    found = estimates(slates, chances)
    assert list(found) == ["as logged", "IPS", "SNIPS"]
    assert found["as logged"].value.mean == pytest.approx(1.0)
    assert found["IPS"].value.mean == pytest.approx(1.5)
    right = chances.with_columns(expected=slates["earned"], expected_target=pl.lit(0.7))
    robust = estimates(slates, right)["doubly robust"]  # a model without error: what it expects of the target
    assert robust.value.mean == pytest.approx(0.7 * 3 / 2)
    assert estimates(slates, chances, clip=1.0)["IPS"].value.mean == pytest.approx(1.0)


def test_what_a_table_of_chances_lacks_is_named():
    slates = slates_of(*by_hand(40), "click")
    chances = slates.select("request_id", "position", probability=0.5)
    with pytest.raises(InputError, match=r"(?s)lack a column.*column probability"):
        estimates(slates, chances.drop("probability"))
    with pytest.raises(InputError, match=r"(?s)twice.*request 1-0, position 0"):
        estimates(slates, pl.concat([chances, chances.head(1)]))
    with pytest.raises(InputError, match=r"(?s)says nothing.*request 2-9, position 0.*1 places"):
        estimates(slates, chances.filter(pl.col("request_id") != "2-9"))


def test_a_logged_world_tells_what_another_policy_takes():
    world = SyntheticWorld(CONFIG, 0, 1)  # in its first hour each person has one slate, under both policies
    shown, there = logged(world, PopularItems(), hours=1)
    keys = ["user_id", "item_id", "position", "timestamp"]
    wanted = shown.select(keys).with_columns(there=pl.lit(1.0))

    def chance(rows):
        return rows.join(wanted, on=keys, how="left", maintain_order="left")["there"].fill_null(0.0).to_numpy()

    replay = replay_of(slates_of(*logged(world, RandomItems(), hours=1), "click"), chance)
    truth = (there["event_type"] == "click").sum() / shown["request_id"].n_unique()
    for estimate in (ips(replay), snips(replay)):
        assert abs(estimate.value.mean - truth) < 3 * (estimate.value.high - estimate.value.mean)
        assert estimate.mean_weight == pytest.approx(1, abs=0.5)


def test_what_was_not_drawn_by_chance_is_refused():
    shown, events = logged(SyntheticWorld(CONFIG, 0, 1), PopularItems())
    with pytest.raises(InputError, match="was not logged"):
        replay_of(slates_of(shown, events, "click"), lambda rows: np.ones(rows.height))
    with pytest.raises(InputError, match="no such column"):
        slates_of(shown.drop("propensity"), events, "click")
    with pytest.raises(InputError, match="no impressions"):
        slates_of(shown.clear(), events, "click")
    with pytest.raises(InputError, match=r"(?s)no such event.*clik.*click"):
        slates_of(shown, events, "clik")
    with pytest.raises(InputError, match="two items"):
        slates_of(pl.concat([shown, shown]), events, "click")
