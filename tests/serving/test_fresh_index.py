from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_restrict import Catalogue, texts

from palate.data.parse_expression import parse_expression
from palate.data.query import Restrict
from palate.errors import InputError
from palate.serving.columns import make_columns
from palate.serving.fresh import FreshIndex, NewItems, grown
from palate.serving.retrieve import RestrictedIndex

N, NEW, D = 333, 40, 6
WHOLE = Catalogue(N, 4)
VECTORS = np.random.default_rng(0).integers(-2, 3, (N, D)).astype(np.float32)  # many ties
THRESHOLDS = {"calm": 0.5, "odd": 0.98}


def parts() -> tuple[FreshIndex, NewItems]:
    """An index over the first items of the catalogue, and the rest as new ones."""
    kept = N - NEW
    leaves = WHOLE.tree.leaf_of(np.arange(N, dtype=np.int32))
    tree = grown(WHOLE.tree, leaves[:kept])
    old = Catalogue(N, 4)
    first = {name: row[:kept] for name, row in old.probabilities.items()}
    masks = {name: row >= THRESHOLDS[name] for name, row in first.items()}
    columns = make_columns(tree, masks, old.items[:kept], first, like=WHOLE.columns)
    index = RestrictedIndex(np.ascontiguousarray(VECTORS[:kept][tree.order]), columns)
    new = {name: row[kept:] for name, row in old.probabilities.items()}
    return FreshIndex(index), NewItems(VECTORS[kept:], leaves[kept:], new, old.items[kept:])


INDEX, ARRIVED = parts()
EVERYTHING = RestrictedIndex(np.ascontiguousarray(VECTORS[WHOLE.tree.order]), WHOLE.columns)


@pytest.mark.slow
@settings(deadline=None, max_examples=120)
@given(data=st.data(), k=st.integers(1, 30), seed=st.integers(0, 2**31))
def test_new_items_are_found_as_if_they_had_always_been_there(data: st.DataObject, k: int, seed: int) -> None:
    restrict = Restrict(where=parse_expression(data.draw(texts(WHOLE))))
    query = np.random.default_rng(seed).integers(-2, 3, (1, D)).astype(np.float32)
    exclude = np.random.default_rng(seed).integers(0, N, 20).astype(np.int32)
    sets = {"seen": WHOLE.seen}
    found = INDEX.with_new(ARRIVED, THRESHOLDS).search(query, restrict, k, exclude, sets)
    wanted = EVERYTHING.search(query, restrict, k, exclude, sets)
    assert np.array_equal(found[0], wanted[0])
    assert np.array_equal(found[1], wanted[1])


def test_an_item_that_came_again_is_answered_once() -> None:
    again = replace(ARRIVED, replaces=np.array([3, 5], dtype=np.int32))
    items, _ = INDEX.with_new(again, THRESHOLDS).search(np.ones((1, D), dtype=np.float32), None, N)
    assert set(range(N)) - set(items[0].tolist()) == {3, 5}
    assert FreshIndex(INDEX.main).search(np.ones((1, D), dtype=np.float32), None, 3)[0].max() < N - NEW


def test_the_grown_tree_keeps_its_nodes() -> None:
    tree = grown(WHOLE.tree, np.array([12, 4, 4], dtype=np.int32))
    assert [(node.level, node.parent) for node in tree.nodes] == [(n.level, n.parent) for n in WHOLE.tree.nodes]
    assert tree.items_of(4).tolist() == [1, 2] and tree.items_of(12).tolist() == [0]
    assert len(tree.items_of(0)) == 3 and sum(len(tree.items_of(node.node)) for node in tree.at_level(1)) == 3


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"leaves": np.full(NEW, 1, dtype=np.int32)}, "in no leaf"),
        ({"vectors": VECTORS[:3]}, "do not fit"),
        ({"vectors": np.ones((NEW, D + 1), dtype=np.float32)}, "do not fit"),
        ({"vectors": np.full((NEW, D), np.nan, dtype=np.float32)}, "not finite"),
        ({"items": pl.DataFrame({"price": [1.0]})}, "do not fit the tree"),
    ],
)
def test_new_items_that_do_not_fit_are_named(change: dict[str, object], match: str) -> None:
    with pytest.raises(InputError, match=match):
        INDEX.with_new(replace(ARRIVED, **change), THRESHOLDS)  # type: ignore[arg-type]
