"""What is planted is what happens, and nothing of it depends on who asks."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from palate.errors import InputError
from palate.experiments.worlds.config import WorldConfig
from palate.experiments.worlds.crowd import Shown
from palate.experiments.worlds.policies import Explored, PopularItems, RandomItems, Silent, Slates, best
from palate.experiments.worlds.rankers import ContentRanker, Ranked
from palate.experiments.worlds.simulate import simulate
from palate.experiments.worlds.world import SyntheticWorld

SMALL = WorldConfig(people=150, items=300, interests=30, themes=5, dimensions=8, places=10)


class SamePlace(Silent):
    """Shows everybody the same items."""

    name = "same"

    def __init__(self, items):
        self.items = np.asarray(items, dtype=np.int32)

    def slates(self, asked, n, rng):
        return Slates(np.tile(self.items[:n], (len(asked.people), 1)))


def world(days=6, seed=0, **changed):
    return SyntheticWorld(SMALL.model_copy(update=changed), seed, days)


def rows_of(run):
    return run.log.rows


def test_a_seed_repeats_bit_for_bit_and_another_does_not():
    first, again, other = (simulate(world(seed=seed), Ranked(ContentRanker())) for seed in (0, 0, 1))
    for name in vars(rows_of(first)):
        np.testing.assert_array_equal(getattr(rows_of(first), name), getattr(rows_of(again), name))
    assert first.daily["taken"].sum() > 0
    assert first.log.events().equals(again.log.events())
    assert len(rows_of(first).item) != len(rows_of(other).item)


def test_two_policies_meet_the_same_people_on_the_first_day():
    runs = [simulate(world(days=1), policy) for policy in (RandomItems(), PopularItems())]
    one, two = (run.log.rows for run in runs)
    np.testing.assert_array_equal(one.person, two.person)  # coming depends on what was before alone


def test_chances_are_those_of_the_stated_model():
    lived = world(days=2, repeat_cost=3.0)
    crowd, truth, config = lived.crowd(), lived.truth, lived.config
    person, item = 3, int(crowd.histories(np.array([3]))[0, -1])
    crowd.sated[person] = 1.5
    for shown, repeated in ((item, 1.0), (int(np.setdiff1d(np.arange(300), crowd.histories(np.array([3])))[0]), 0.0)):
        main, other = truth.items.nearest[shown]
        liked = config.taste * (
            0.75 * truth.people.affinity[person, main] + 0.25 * truth.people.affinity[person, other]
        )
        logit = config.base + liked + truth.items.appeal[shown] + truth.trend[1, shown] - config.satiation * 1.5
        logit -= config.novelty_cost * 2 ** (-crowd.met[person, main] / config.familiarity) + 3.0 * repeated
        content = config.content + liked + truth.items.appeal[shown]
        taken, satisfied = crowd.chances(np.array([person]), np.array([[shown]]), 1)
        assert taken[0, 0] == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-5)
        assert satisfied[0, 0] == pytest.approx(1 / (1 + np.exp(-content)), rel=1e-5)


def test_places_are_looked_at_as_often_as_stated():
    lived = world(people=4000, looks=8.0, position_bias=0.5)
    crowd = lived.crowd()
    everybody = np.arange(len(crowd.count))
    seen = np.mean([crowd.looked(everybody, 10, 0, session).mean(axis=0) for session in range(5)], axis=0)
    np.testing.assert_allclose(seen, crowd.look_chance(10), atol=0.015)
    assert crowd.look_chance(10)[0] == 1.0
    assert (np.diff(crowd.look_chance(10)) < 0).all()


def test_satiation_tires_and_familiarity_makes_novelty_cheap():
    lived = world()
    crowd, people = lived.crowd(), np.arange(100)
    items = lived.truth.items.nearest[:, 0].argsort(kind="stable")[:1]  # one item
    interest = lived.truth.items.nearest[items[0], 0]
    shown = np.tile(items, (100, 1)).astype(np.int32)
    crowd.met[:, interest] = 0
    new = crowd.chances(people, shown, 0)[0].mean()
    crowd.met[:, interest] = 50
    familiar = crowd.chances(people, shown, 0)[0].mean()
    crowd.sated[:, interest] = 4
    tired = crowd.chances(people, shown, 0)[0].mean()
    assert new < familiar > tired
    for day in range(30):
        crowd.night(day, np.zeros(0, int))
    assert crowd.chances(people, shown, 0)[0].mean() == pytest.approx(familiar, rel=1e-3)


def test_who_is_content_comes_back_and_who_is_not_leaves():
    lived = world(days=20, leave=0.05)
    best_of = simulate(lived, Ranked(ContentRanker()))
    worst = np.argsort(lived.truth.items.appeal[:300])[:10]
    bad = simulate(lived, SamePlace(worst))
    assert best_of.quality > bad.quality
    assert best_of.total("people") > bad.total("people")
    assert best_of.daily["gone"][-1] < bad.daily["gone"][-1]
    assert best_of.returned > bad.returned


def test_items_and_people_arrive_and_are_not_seen_before():
    lived = world(days=8, arrivals=0.05, new_items=0.05)
    run = simulate(lived, RandomItems())
    day = (run.log.rows.time - run.log.rows.time.min()) // 86_400_000_000
    assert (lived.truth.items.born[run.log.rows.item] <= day).all()
    assert (lived.truth.people.arrives[run.log.rows.person] <= day).all()
    assert (lived.truth.items.born[run.log.rows.item] == day).any()
    newcomers = np.flatnonzero(lived.truth.people.arrives == 3)
    came = np.unique(run.log.rows.person[day == 3])
    assert len(newcomers) and np.isin(newcomers, came).all()
    assert not np.isin(newcomers, run.log.rows.person[day < 3]).any()


def test_events_are_the_houses_table():
    run = simulate(world(days=2), Explored(PopularItems(), 0.3))
    events = run.log.events()
    shown = events.filter(pl.col("event_type") == "impression")
    assert shown.height == run.total("impressions") == len(run.log.rows.item)
    assert (events["event_type"] == "click").sum() == run.total("taken")
    assert (events["event_type"] == "complete").sum() == run.total("satisfied")
    assert shown["propensity"].is_between(0.3 / 310, 1).all()
    assert shown.group_by("request_id").agg(pl.col("position").n_unique() == pl.len())["position"].all()
    assert events["policy"].unique().to_list() == ["popularity, 30% random"]
    assert simulate(world(days=1), PopularItems()).log.events()["propensity"].null_count() > 0


def test_data_sets_hold_what_was_taken_in_order():
    run = simulate(world(days=3), RandomItems())
    data, log = run.log.dataset(), run.log.histories()
    assert data.events.height == len(run.log.before.item) + run.total("taken") == len(log.histories.items)
    np.testing.assert_array_equal(data.histories.items, log.histories.items)
    assert data.events["timestamp"].is_sorted()


def test_what_people_are_shown_of_is_what_they_took_last():
    lived = world(days=1, history=4)
    crowd = lived.crowd()
    of_five = np.flatnonzero(np.bincount(lived.before.person, minlength=150) >= 5)[0]
    own = lived.before.item[lived.before.person == of_five]
    np.testing.assert_array_equal(crowd.histories(np.array([of_five]))[0], own[-4:])
    shown = Shown(np.array([of_five]), np.array([[7, 9, -1]], np.int32), np.ones((1, 3), bool), 0, 0)
    crowd.answer(shown, lambda shown, crowd: (shown.items >= 0, shown.items == 9))
    np.testing.assert_array_equal(crowd.histories(np.array([of_five]))[0], [*own[-2:], 7, 9])


def test_the_best_are_found():
    scores = np.array([[1.0, 3.0, -np.inf, 2.0], [-np.inf, -np.inf, 5.0, -np.inf]], np.float32)
    np.testing.assert_array_equal(best(scores, 3), [[1, 3, 0], [2, -1, -1]])
    np.testing.assert_array_equal(best(scores[:, :2], 3), [[1, 0, -1], [-1, -1, -1]])


def test_what_cannot_be_lived_is_named():
    with pytest.raises(InputError, match="for so long"):
        simulate(world(days=2), RandomItems(), days=3)
    with pytest.raises(InputError, match="cannot be shown") as said:
        simulate(world(days=1), SamePlace(np.arange(295, 305)))
    assert "same" in str(said.value)
    with pytest.raises(InputError, match="random places"):
        Explored(RandomItems(), 0.0)
