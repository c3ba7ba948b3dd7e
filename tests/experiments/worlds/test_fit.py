"""A world fitted to a log has the log's figures; one made up of known people is found again."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from palate.data.dataset import TIMESTAMP, Dataset
from palate.data.folder import read_folder
from palate.errors import InputError
from palate.experiments.worlds.config import WorldConfig
from palate.experiments.worlds.fit import FittedWorld, facts_of, fit_world, interests_by_category
from palate.experiments.worlds.rankers import ContentRanker, Ranked
from palate.experiments.worlds.simulate import simulate


def log(events, categories):
    """events: (user, item, minute)."""
    items = pl.DataFrame({"item_id": [str(i) for i in range(len(categories))], "title": "t", "text": ""})
    items = items.with_columns(categories=pl.Series(categories, dtype=pl.List(pl.String)))
    users, taken, minutes = zip(*events, strict=True)
    times = pl.Series(np.array(minutes, dtype=np.int64) * 60_000_000).cast(TIMESTAMP)
    table = pl.DataFrame({"user_id": list(users), "item_id": list(map(str, taken)), "timestamp": times})
    return Dataset.from_tables(items, table.with_columns(event_type=pl.lit("event"), value=pl.lit(None, pl.Float32)))


def test_figures_of_a_log_by_hand():
    data = log([("a", 0, 0), ("a", 1, 5), ("a", 0, 100), ("b", 2, 0)], [["x"], ["x"], ["y"]])
    facts = facts_of(data.histories, np.array([0, 0, 1], np.int32))
    assert facts.repeat == pytest.approx(1 / 4)
    assert facts.popularity[0] == 0.5  # the top item
    assert facts.events[2] == 2.0  # the median of 3 and 1
    assert facts.interests.tolist() == [1.0] * 5
    np.testing.assert_allclose(facts.session[[0, 4]], [1.0, 1.8])  # sessions of 2, 1 and 1


def test_interests_are_the_rarest_categories():
    categories = [["drama", "noir"]] * 15 + [["drama"]] * 20 + [["drama", "war"]] * 3 + [[]]
    interests, names = interests_by_category(log([("a", 0, 0)], categories))
    assert [names[number] for number in interests[[0, 15, 35, 38]]] == ["drama & noir", "drama", "war", "other"]
    with pytest.raises(InputError, match="no categories"):
        interests_by_category(log([("a", 0, 0)], [[]]))


@pytest.mark.slow
def test_a_fitted_world_has_the_figures_of_the_log(sample):
    fitted = fit_world(read_folder(sample))
    world = FittedWorld(fitted, WorldConfig(people=600, arrivals=0), days=2)
    log_facts, facts = fitted.facts, world.facts()
    np.testing.assert_allclose(facts.popularity, log_facts.popularity, atol=0.05)
    np.testing.assert_allclose(facts.events, log_facts.events, rtol=0.15)
    np.testing.assert_allclose(facts.interests, log_facts.interests, rtol=0.3)
    np.testing.assert_allclose(facts.session, log_facts.session, rtol=0.25, atol=1)
    assert facts.repeat == log_facts.repeat == 0
    assert len(log_facts.rows(facts)) == 21
    run = simulate(world, Ranked(ContentRanker()), days=1)
    assert run.total("taken") > 0


def test_what_is_taken_again_is_taken_again_in_the_world():
    rng, events = np.random.default_rng(0), []
    for user in range(200):
        taken: list[int] = []
        for step in range(12):
            again = taken and rng.random() < 0.3
            taken.append(int(rng.choice(taken) if again else rng.integers(user % 5 * 80, user % 5 * 80 + 80)))
            events.append((f"u{user}", taken[-1], 60 * step))
    data = log(events, [[f"c{i // 80}"] for i in range(400)])
    world = FittedWorld(fit_world(data), WorldConfig(people=300, arrivals=0), days=1)
    assert world.fitted.facts.repeat == pytest.approx(world.facts().repeat, abs=0.05)


def test_what_cannot_be_fitted_is_named():
    data = log([("a", 0, 0)], [["x"], ["y"]])
    with pytest.raises(InputError, match="cannot be fitted"):
        fit_world(data, np.zeros(3, np.int32))
