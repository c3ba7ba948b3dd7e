"""The chance that is logged with an impression is how often the item came there."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from palate.interests.explore import ExploreConfig
from palate.serving.opened import Snapshot
from palate.serving.pipeline import recommend
from palate.serving.pipeline_config import PipelineConfig

DRAWS = 400


def logged(snapshot: Snapshot, user: str, config: PipelineConfig, n: int, depth: int):  # type: ignore[no-untyped-def]
    """How often each beginning of a slate came, and the chance that was logged for it."""
    counts: Counter[tuple[str, ...]] = Counter()
    chances: dict[tuple[str, ...], float] = {}
    for seed in range(DRAWS):
        slate = recommend(snapshot, user, n, explain=False, rng=np.random.default_rng(seed), config=config)
        if "exploration" in config.sources and slate[0].source != "exploration":
            continue  # nothing new was found: what is shown instead has the chance that it has given that
        ids = tuple(each.item_id for each in slate[:depth])
        counts[ids] += 1
        chances[ids] = float(np.prod([each.propensity for each in slate[:depth]]))
    return counts, chances


def test_a_slate_without_chance_is_certain(snapshot: Snapshot) -> None:
    slate = recommend(snapshot, "u0", 10, config=PipelineConfig(sources={"sequence": 0.7, "attribute": 0.3}))
    assert [each.propensity for each in slate] == [1.0] * 10


@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_explored_items(snapshot: Snapshot, temperature: float) -> None:
    explore = ExploreConfig(temperature=temperature, half_life=1000)
    config = PipelineConfig(sources={"exploration": 1.0}, explore=explore)
    counts, chances = logged(snapshot, "u1", config, 3, 1)
    assert len(counts) > 1
    for ids, chance in chances.items():
        assert abs(counts[ids] / DRAWS - chance) < 5 * np.sqrt(chance * (1 - chance) / DRAWS) + 1e-9


def test_places_that_are_drawn(snapshot: Snapshot) -> None:
    config = PipelineConfig(sources={"sequence": 0.7, "popular": 0.3}, epsilon=0.5)
    counts, chances = logged(snapshot, "u2", config, 3, 2)
    assert len(counts) > 20
    for ids, chance in chances.items():
        assert abs(counts[ids] / DRAWS - chance) < 5 * np.sqrt(chance * (1 - chance) / DRAWS) + 1e-9
