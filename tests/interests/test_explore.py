from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.query import Query, Restrict
from palate.errors import InputError
from palate.interests.explore import ExploreConfig, TransitionTable, explore
from palate.interests.tree import InterestTree, Node

LEAVES = 6  # nodes 1..6 of one level, ten items each, in item order


def tree() -> InterestTree:
    nodes = [Node(0, None, 0, 0, 60, 60)]
    nodes += [Node(1 + i, 0, 1, 10 * i, 10 * i + 10, 10) for i in range(LEAVES)]
    return InterestTree(tuple(nodes), np.arange(60, dtype=np.int32))


def table(*rows: tuple[int, int, int, float | None]) -> TransitionTable:
    columns = ["node_a", "node_b", "next_node", "probability", "model", "prompt_hash"]
    return TransitionTable(pl.DataFrame([(*row, "a model", "hash") for row in rows], schema=columns, orient="row"))


def history(*nodes: int) -> Query:
    """One event in each of the nodes, oldest first, items all different."""
    return Query("u", np.array([10 * (node - 1) + i for i, node in enumerate(nodes)], dtype=np.int32))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_pair_leads_to_its_next_node() -> None:
    found = explore(history(1, 2), tree(), table((1, 2, 5, 0.5)), 1, rng())
    assert (found.to_node, found.novel, set(found.from_nodes)) == (5, True, {1, 2})
    assert found.query.restrict == Restrict((5,))
    assert set(found.because) == {0, 11}
    assert found.transition is not None and found.transition.model == "a model"


def test_the_pair_is_unordered_and_the_best_answer_comes_first() -> None:
    transitions = table((1, 2, 4, 0.1), (1, 2, 5, 0.7), (1, 2, 6, None))
    assert transitions.of(2, 1) == transitions.of(1, 2)
    assert [each.next_node for each in transitions.of(1, 2)] == [5, 4, 6]


def test_a_known_node_is_skipped() -> None:
    transitions = table((1, 2, 3, 0.9), (1, 2, 4, 0.1), (1, 3, 4, 0.9), (2, 3, 4, 0.9))
    assert explore(history(3, 1, 2), tree(), transitions, 1, rng()).to_node == 4


def test_when_all_is_known_a_rare_node_will_do_and_is_not_called_new() -> None:
    query = Query("u", np.array([20, *range(10), *range(10, 20)], dtype=np.int32))  # node 3 once in 21 events
    config = ExploreConfig(recent=20)
    found = explore(query, tree(), table((1, 2, 3, 0.9)), 1, rng(), config)
    assert (found.to_node, found.novel) == (3, False)
    strict = ExploreConfig(recent=20, rare_share=0)
    assert explore(query, tree(), table((1, 2, 3, 0.9)), 1, rng(), strict).to_node is None


def test_one_interest_alone_is_looked_up_as_such() -> None:
    transitions = table((1, 1, 4, 0.5), (1, 2, 5, 0.5))
    assert explore(history(1, 1), tree(), transitions, 1, rng()).to_node == 4


def test_one_interest_without_a_row_of_its_own_uses_pairs_with_it() -> None:
    transitions = table((1, 2, 5, 0.5), (1, 3, 5, 0.5), (1, 4, 6, 0.9))
    found = explore(history(1), tree(), transitions, 1, rng())
    assert found.to_node == 5  # said twice
    assert found.because == (0,)


def test_a_missing_pair_backs_off_to_either_interest() -> None:
    assert explore(history(1, 2), tree(), table((2, 6, 4, 0.5)), 1, rng()).to_node == 4


def test_nothing_found_leaves_the_query_alone() -> None:
    for query, transitions in [
        (Query("u"), table((1, 2, 3, 0.5))),
        (history(1, 2), table()),
        (history(1, 2), table((4, 5, 6, 0.5))),
    ]:
        found = explore(query, tree(), transitions, 1, rng())
        assert found.to_node is None
        assert found.query is query


def test_recent_interests_are_drawn_more_often() -> None:
    query = Query("u", np.array([*range(5), *range(10, 15), *range(20, 25)], dtype=np.int32))
    transitions = table((1, 2, 4, 0.5), (1, 3, 5, 0.5), (2, 3, 6, 0.5))
    config = ExploreConfig(half_life=3)
    draws = np.random.default_rng(1)
    counts = Counter(explore(query, tree(), transitions, 1, draws, config).to_node for _ in range(300))
    assert counts[6] > counts[5] > counts[4] > 0


def test_attributes_of_the_query_are_kept() -> None:
    query = Query("u", np.array([0, 10], dtype=np.int32), restrict=Restrict((), ("calm",)))
    assert explore(query, tree(), table((1, 2, 5, 0.5)), 1, rng()).query.restrict == Restrict((5,), ("calm",))


def test_an_old_history_of_two_nodes_can_still_be_drawn() -> None:
    query = Query("u", np.array([0, *range(10, 20)] * 4, dtype=np.int32))
    found = explore(query, tree(), table((1, 2, 5, 0.5)), 1, rng(), ExploreConfig(half_life=0.01))
    assert found.to_node == 5


def test_an_unknown_level_is_named() -> None:
    with pytest.raises(InputError, match="no such level"):
        explore(history(1, 2), tree(), table((1, 2, 5, 0.5)), 7, rng())


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(
    items=st.lists(st.integers(0, 59), max_size=40),
    rows=st.lists(st.tuples(*[st.integers(1, LEAVES)] * 3, st.none() | st.floats(0, 1)), max_size=20),
    seed=st.integers(0, 1000),
)
def test_what_is_called_new_is_new(items: list[int], rows: list[tuple[int, int, int, float]], seed: int) -> None:
    query = Query("u", np.array(items, dtype=np.int32))
    found = explore(query, tree(), table(*rows), 1, np.random.default_rng(seed))
    node_of = tree().node_of_items(1)
    if found.to_node is not None:
        assert (found.to_node not in set(node_of[query.history].tolist())) == found.novel
        assert found.query.restrict == Restrict((found.to_node,))
        assert [int(node_of[item]) for item in found.because] == list(found.from_nodes)
        assert set(found.because) <= set(items)
