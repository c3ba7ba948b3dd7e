"""Compiled drawing of interests comes to the same."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from palate.data.query import Query
from palate.interests.explore import ExploreConfig, TransitionTable, explore
from palate.interests.tree import TreeConfig, build_tree

pytest.importorskip("numba")
N_ITEMS, LEVEL = 60, 1


@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("rare", [0.5, 3.0])
def test_the_same_draws_and_chances(share: float, rare: float) -> None:
    rng = np.random.default_rng(int(10 * share + rare))
    tree = build_tree(rng.normal(size=(N_ITEMS, 4)).astype(np.float32), np.ones(N_ITEMS), TreeConfig(branching=(12,)))
    nodes = [node.node for node in tree.at_level(LEVEL)]
    pairs = [(a, b) for a in nodes for b in nodes if a <= b and rng.random() < share]
    rows = [(a, b, int(rng.choice(nodes)), float(rng.random())) for a, b in pairs for _ in range(rng.integers(1, 3))]
    frame = pl.DataFrame(rows, schema=["node_a", "node_b", "next_node", "probability"], orient="row")
    frame = frame.with_columns(pl.lit("m").alias("model"), pl.lit("").alias("prompt_hash"))
    plain, compiled = TransitionTable(frame), TransitionTable(frame)
    assert compiled.compile()
    found = set()
    for seed in range(150):
        history = rng.integers(0, N_ITEMS, rng.integers(1, 70)).astype(np.int32)
        config = ExploreConfig(interests=1 + seed % 2, recent=1 + seed % 50, half_life=3, rare_share=rare, attempts=3)
        query = Query("u", history)
        one, other = (
            explore(query, tree, table, LEVEL, np.random.default_rng(seed), config) for table in (plain, compiled)
        )
        assert (one.from_nodes, one.to_node, one.because, one.novel) == (
            other.from_nodes, other.to_node, other.because, other.novel,
        )  # fmt: skip
        assert one.transition == other.transition and one.chance == pytest.approx(other.chance)
        found.add((one.to_node is None, one.novel))
    assert len(found) > 1
