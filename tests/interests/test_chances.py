"""The exact chance of what is explored, against how often it is."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.query import Query
from palate.interests.chances import chances
from palate.interests.explore import ExploreConfig, TransitionTable, explore
from palate.interests.tree import InterestTree, TreeConfig, build_tree

COLUMNS = {"node_a": pl.Int32, "node_b": pl.Int32, "next_node": pl.Int32, "probability": pl.Float32}
N_ITEMS, LEVEL = 40, 1


@pytest.fixture(scope="module")
def tree() -> InterestTree:
    rng = np.random.default_rng(0)
    return build_tree(rng.normal(size=(N_ITEMS, 4)).astype(np.float32), np.ones(N_ITEMS), TreeConfig(branching=(8,)))


def table(rows: list[tuple[int, int, int, float]]) -> TransitionTable:
    found = pl.DataFrame(rows, schema=COLUMNS, orient="row")
    return TransitionTable(found.with_columns(pl.lit("m").alias("model"), pl.lit("").alias("prompt_hash")))


@settings(deadline=None, max_examples=25)
@given(
    history=st.lists(st.integers(0, N_ITEMS - 1), min_size=1, max_size=12),
    share=st.floats(0, 1),
    interests=st.integers(1, 2),
    attempts=st.integers(1, 3),
    rare=st.sampled_from([0.0, 0.5, 3.0]),
    seed=st.integers(0, 1000),
)
def test_chances_are_how_often_each_is_explored(tree, history, share, interests, attempts, rare, seed):
    rng = np.random.default_rng(seed)
    nodes = [node.node for node in tree.at_level(LEVEL)]
    pairs = [(a, b) for a in nodes for b in nodes if a <= b and rng.random() < share]
    rows = [(a, b, int(rng.choice(nodes)), float(rng.random())) for a, b in pairs for _ in range(rng.integers(1, 3))]
    transitions = table(rows)
    config = ExploreConfig(interests=interests, attempts=attempts, rare_share=rare, half_life=3)
    query = Query("u", np.array(history, dtype=np.int32))
    expected = chances(query, tree, transitions, LEVEL, config)
    assert sum(expected.values()) <= 1 + 1e-9
    draws = 300
    found = Counter(explore(query, tree, transitions, LEVEL, rng, config).to_node for _ in range(draws))
    missing = 1 - sum(expected.values())
    for node in {*expected, *found}:
        chance = max(missing, 0.0) if node is None else expected.get(node, 0.0)
        # Five standard deviations, and what two rare draws make.
        assert abs(found[node] / draws - chance) <= 5 * np.sqrt(chance * (1 - chance) / draws) + 2 / draws
