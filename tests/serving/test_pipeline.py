from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from tiny_snapshot import has

from palate.data.query import Restrict
from palate.errors import InputError
from palate.interests.explore import ExploreConfig, TransitionTable
from palate.serving.opened import Snapshot
from palate.serving.pipeline import affinities, recommend
from palate.serving.pipeline_config import PipelineConfig
from palate.serving.snapshot import TRANSITION_SCHEMA


def test_the_slate_keeps_the_shares_and_repeats_nothing(snapshot: Snapshot) -> None:
    for user in snapshot.user_ids:
        slate = recommend(snapshot, user, 10)
        ids = [each.item_id for each in slate]
        assert len(set(ids)) == len(ids) == 10
        seen = {snapshot.item_ids[num] for num in snapshot.history(user)}
        assert not seen & set(ids)
        sources = Counter(each.source for each in slate)
        if sources["exploration"] and sources["attribute"]:
            assert sources == {"sequence": 6, "exploration": 2, "attribute": 2}


def test_exploration_is_new_to_the_person_and_says_why(snapshot: Snapshot) -> None:
    found = 0
    node_of = snapshot.tree.node_of_items(snapshot.explore_level)
    for user in snapshot.user_ids:
        known = set(node_of[snapshot.history(user)].tolist())
        for each in recommend(snapshot, user, 10):
            if each.source == "exploration" and "new for you" in each.reasons[0].text:
                found += 1
                assert node_of[snapshot.item_nums[each.item_id]] not in known
                reason = each.reasons[0]
                assert reason.text.startswith("because you watched ")
                assert "suggested by tiny-teacher-7b" in reason.text
                assert reason.evidence[0]["prompt_hash"]
    assert found > 0


def test_the_attribute_is_the_one_the_history_leans_to(snapshot: Snapshot) -> None:
    funny = np.flatnonzero(has(snapshot, "funny"))[:6].astype(np.int32)
    lifts = {name: each.lift for name, each in affinities(snapshot, funny).items()}
    assert lifts["funny"] > 1.2 > lifts["slow-burn"]
    chosen = [each for each in recommend(snapshot, funny, 10) if each.source == "attribute"]
    assert len(chosen) == 2
    assert "because you like funny: 100% of what you watched, 12% of the catalogue" in chosen[0].reasons[0].text
    assert "student of tiny-teacher-7b: 95%" in chosen[0].reasons[0].text


def test_nothing_known_gives_popular_items_of_all_interests(snapshot: Snapshot) -> None:
    slate = recommend(snapshot, "nobody", 4)
    nodes = snapshot.tree.node_of_items(1)[[snapshot.item_nums[each.item_id] for each in slate]]
    assert len(set(nodes.tolist())) == 4
    assert {each.source for each in slate} == {"popular"}
    assert "people watched it" in slate[0].reasons[0].text


def test_a_restrict_is_obeyed_by_every_source(snapshot: Snapshot) -> None:
    restrict = Restrict(attributes=("slow-burn",))
    for user in [*snapshot.user_ids[:5], "nobody"]:
        for each in recommend(snapshot, user, 20, restrict):
            assert has(snapshot, "slow-burn")[snapshot.item_nums[each.item_id]]


def test_a_small_restrict_answers_what_there_is(snapshot: Snapshot) -> None:
    leaf = snapshot.tree.at_level(2)[0]
    slate = recommend(snapshot, "nobody", 200, Restrict((leaf.node,)))
    assert len(slate) == leaf.stop - leaf.start


def test_without_transitions_the_others_take_the_places(snapshot: Snapshot) -> None:
    bare = replace(snapshot, transitions=TransitionTable(pl.DataFrame(schema=TRANSITION_SCHEMA)))
    slate = recommend(bare, "u0", 10, config=PipelineConfig(sources={"sequence": 0.6, "exploration": 0.2}))
    assert [each.source for each in slate] == ["sequence"] * 10


def test_a_history_that_has_everything_but_one(snapshot: Snapshot) -> None:
    history = np.arange(1, len(snapshot.item_ids), dtype=np.int32)
    assert [each.item_id for each in recommend(snapshot, history, 10)] == ["i0"]


def test_bad_questions(snapshot: Snapshot) -> None:
    with pytest.raises(InputError, match="At least one item"):
        recommend(snapshot, "u0", 0)
    with pytest.raises(InputError, match="unknown item number"):
        recommend(snapshot, np.array([9999], dtype=np.int32), 5)
    with pytest.raises(InputError, match="no such attribute"):
        recommend(snapshot, "nobody", 5, Restrict(attributes=("absent",)))


def test_the_same_draw_gives_the_same_slate(snapshot: Snapshot) -> None:
    first, second = (recommend(snapshot, "u3", 10, rng=np.random.default_rng(5)) for _ in range(2))
    assert first == second


def explored(
    snapshot: Snapshot, user: str, config: PipelineConfig, seed: int = 0, moment: int | None = None
) -> list[str]:
    slate = recommend(snapshot, user, 10, rng=np.random.default_rng(seed), config=config, moment=moment)
    return [each.item_id for each in slate if each.source == "exploration"]


def test_a_temperature_draws_other_items_of_the_new_interest(snapshot: Snapshot) -> None:
    one_way = ExploreConfig(interests=1, recent=1)
    cold = {tuple(explored(snapshot, "u3", PipelineConfig(explore=one_way), seed)) for seed in range(12)}
    config = PipelineConfig(explore=one_way.model_copy(update={"temperature": 5.0}))
    warm = {tuple(explored(snapshot, "u3", config, seed)) for seed in range(12)}
    assert len(cold) == 1
    assert len(warm) > 4
    node_of = snapshot.tree.node_of_items(snapshot.explore_level)
    nums = {item: num for num, item in enumerate(snapshot.item_ids)}
    assert len({int(node_of[nums[item]]) for items in (*cold, *warm) for item in items}) == 1


def test_what_is_explored_lasts_until_the_refresh(snapshot: Snapshot) -> None:
    hour = 3_600_000_000
    config = PipelineConfig(explore=ExploreConfig(refresh=2.0, temperature=5.0))
    morning = {tuple(explored(snapshot, "u3", config, seed, 10 * hour + seed)) for seed in range(6)}
    later = {tuple(explored(snapshot, "u3", config, 0, (10 + 2 * turn) * hour)) for turn in range(8)}
    assert len(morning) == 1
    assert len(later) > 3
