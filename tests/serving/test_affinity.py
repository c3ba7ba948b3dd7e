from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_retrieve import random_tree
from tiny_snapshot import has

from palate.serving.affinity import AffinityConfig, affinities, triggered
from palate.serving.columns import ItemColumns, make_columns
from palate.serving.opened import Snapshot
from palate.serving.pipeline import recommend
from palate.serving.pipeline_config import PipelineConfig

N = 200


def columns() -> ItemColumns:
    """Every second item is common, every tenth rare, none has never."""
    numbers = np.arange(N)
    masks = {"common": numbers % 2 == 0, "rare": numbers % 10 == 0, "never": numbers < 0}
    return make_columns(random_tree(N, np.random.default_rng(0)), masks)


def history(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int32)


def test_lift_and_surprise_are_those_of_the_counts() -> None:
    found = affinities(columns(), history(0, 10, 1, 3), AffinityConfig(prior_events=0))
    assert set(found) == {"common", "rare"}
    assert (found["rare"].share, found["rare"].base) == (0.5, 0.1)
    assert found["rare"].lift == pytest.approx(5)
    assert found["rare"].surprise == pytest.approx((2 - 0.4) / np.sqrt(4 * 0.1 * 0.9))
    assert found["common"].lift == pytest.approx(1) and found["common"].surprise == pytest.approx(0)


def test_the_prior_pulls_short_histories_to_the_base_rate() -> None:
    lifts = [affinities(columns(), history(*[0] * n), AffinityConfig())["rare"].lift for n in (0, 1, 5, 50)]
    assert lifts[0] == 1 and lifts == sorted(lifts) and lifts[-1] < 10


def test_a_half_life_lets_the_latest_events_decide() -> None:
    turned = history(*[1] * 40, *[0] * 5)
    even, recent = (affinities(columns(), turned, AffinityConfig(half_life=h))["rare"].lift for h in (0.0, 3.0))
    assert even < 1.2
    assert recent > 3


def test_the_strongest_are_triggered_and_no_more_than_asked() -> None:
    found = affinities(columns(), some := history(0, 10, 20, 2), AffinityConfig())
    assert triggered(columns(), some, AffinityConfig()) == {"rare": found["rare"]}
    both = triggered(columns(), some, AffinityConfig(restricts=2))
    assert list(both) == ["rare", "common"] and both == found
    assert list(triggered(columns(), some, AffinityConfig(restricts=2, least_lift=2))) == ["rare"]
    assert not triggered(columns(), some, AffinityConfig(least_surprise=99))


@given(numbers=st.lists(st.integers(0, N - 1), max_size=60), half_life=st.sampled_from([0.0, 5.0]))
def test_nothing_known_triggers_nothing_and_shares_are_shares(numbers: list[int], half_life: float) -> None:
    config = AffinityConfig(half_life=half_life)
    for each in affinities(columns(), history(*numbers), config).values():
        assert 0 <= each.share <= 1 + 1e-9 and each.lift >= 0
    assert not triggered(columns(), history(), config)


def test_two_attributes_share_the_places_of_one(snapshot: Snapshot) -> None:
    both = np.concatenate([np.flatnonzero(has(snapshot, name))[:5] for name in ("funny", "slow-burn")]).astype(np.int32)
    config = PipelineConfig(sources={"sequence": 0.5, "attribute": 0.5}, attribute=AffinityConfig(restricts=2))
    slate = recommend(snapshot, both, 12, config=config)
    chosen = [each for each in slate if each.source == "attribute"]
    assert len(chosen) == 6
    said = [each.reasons[0].text.split(":")[0] for each in chosen]
    assert sorted(said) == ["because you like funny"] * 3 + ["because you like slow-burn"] * 3
    for each, why in zip(chosen, said, strict=True):
        assert has(snapshot, why.removeprefix("because you like "))[snapshot.item_nums[each.item_id]]
