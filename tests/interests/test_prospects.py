"""The exact chance of what is explored, against how often it is."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.query import Query
from palate.interests.explore import ExploreConfig, TransitionTable, explore, prospects_of
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


@settings(deadline=None, max_examples=15)
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
    prospects = prospects_of(query, tree, transitions, LEVEL, config)
    expected = {} if prospects is None else prospects.chances
    assert sum(expected.values()) <= 1 + 1e-9
    draws = 200
    found: Counter[int | None] = Counter()
    for _ in range(draws):
        explored = explore(query, tree, transitions, LEVEL, rng, config)
        found[explored.to_node] += 1
        if explored.to_node is not None:
            assert explored.chance == pytest.approx(expected[explored.to_node])
    missing = 1 - sum(expected.values())
    for node in {*expected, *found}:
        chance = max(missing, 0.0) if node is None else expected.get(node, 0.0)
        # Five standard deviations, and what two rare draws make.
        assert abs(found[node] / draws - chance) <= 5 * np.sqrt(chance * (1 - chance) / draws) + 2 / draws


def drawn_one_by_one(query, tree, transitions, config, rng):
    """What the rule says, word for word."""
    node_of = tree.node_of_items(LEVEL)
    nodes, place = np.unique(node_of[query.history[-config.recent :]], return_inverse=True)
    ages = np.arange(len(place))[::-1]
    weights = np.bincount(place, 0.5 ** (ages / config.half_life))
    share = np.bincount(node_of[query.history], minlength=len(tree.nodes)) / len(query.history)
    best = None
    for _ in range(config.attempts):
        size = min(config.interests, len(nodes))
        drawn = rng.choice(nodes, size, replace=False, p=weights / weights.sum()).tolist()
        proposals = transitions.of(drawn[0], drawn[-1])
        for node in drawn if size > 1 else []:
            proposals = proposals + transitions.of(node, node)
        if not transitions.of(drawn[0], drawn[-1]):
            for node in drawn:
                proposals = proposals + transitions.with_node(node)
        for each in proposals:
            own = share[each.next_node]
            if own == 0:
                return each.next_node
            if own < config.rare_share / len(tree.at_level(LEVEL)) and (best is None or own < best[0]):
                best = own, each.next_node
    return None if best is None else best[1]


@pytest.mark.parametrize("interests", [1, 2])
def test_the_chances_are_those_of_the_rule(tree, interests):
    rng = np.random.default_rng(3)
    nodes = [node.node for node in tree.at_level(LEVEL)]
    pairs = [(a, b) for a in nodes for b in nodes if a <= b and rng.random() < 0.5]
    transitions = table([(a, b, int(rng.choice(nodes)), float(rng.random())) for a, b in pairs for _ in range(2)])
    config = ExploreConfig(interests=interests, attempts=2, rare_share=2.0, half_life=3)
    query = Query("u", rng.integers(0, N_ITEMS, 14).astype(np.int32))
    expected = prospects_of(query, tree, transitions, LEVEL, config).chances
    draws = 2000
    found = Counter(drawn_one_by_one(query, tree, transitions, config, rng) for _ in range(draws))
    assert len(expected) > 1
    for node in {*expected, *found} - {None}:
        chance = expected.get(node, 0.0)
        assert abs(found[node] / draws - chance) <= 5 * np.sqrt(chance * (1 - chance) / draws)
