from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.parse_expression import parse_expression
from palate.data.query import Restrict
from palate.errors import InputError
from palate.interests.tree import InterestTree, Node
from palate.serving import copies, retrieve
from palate.serving.columns import make_columns
from palate.serving.retrieve import RestrictedIndex
from palate.serving.scores import quantise


def random_tree(n: int, rng: np.random.Generator) -> InterestTree:
    """Three levels of uneven nodes over a random order; a node may be empty."""
    nodes = [Node(0, None, 0, 0, n, 0)]
    row = nodes[:]
    for level in (1, 2):
        below = []
        for node in row:
            cuts = np.sort(rng.integers(node.start, node.stop + 1, size=2)).tolist()
            for start, stop in zip([node.start, *cuts], [*cuts, node.stop], strict=True):
                below.append(Node(len(nodes) + len(below), node.node, level, start, stop, 0))
        nodes += below
        row = below
    return InterestTree(tuple(nodes), rng.permutation(n).astype(np.int32))


def index_of(kind, vectors, columns, rng):  # type: ignore[no-untyped-def]
    """An index of float32, int8 or both, and by item_num the vectors that it stands for."""
    tree = columns.tree
    own = np.ascontiguousarray(vectors[tree.order])
    if kind == "weighted":
        weights = rng.integers(0, 3, len(own)).astype(np.float32)
        index = RestrictedIndex(own, columns, quantise(own), weights)
        return index, vectors * weights[tree.position, None]
    if kind == "int8":
        rounded = quantise(own)
        return RestrictedIndex(None, columns, rounded), rounded.rows(slice(None))[tree.position]
    return RestrictedIndex(own, columns, quantise(own) if kind == "both" else None), vectors


def brute_force(vectors, tree, masks, query, restrict, k, exclude):  # type: ignore[no-untyped-def]
    """Over item_num order, in double precision, by sorting everything."""
    allowed = np.zeros(len(vectors), dtype=bool)
    for node in restrict.nodes or (0,):
        allowed[tree.items_of(node)] = True
    for name in restrict.attributes:
        allowed &= masks[name]
    allowed[exclude] = False
    items = np.flatnonzero(allowed)
    scores = (vectors[items].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
    first = np.lexsort((items, -scores))[:k]
    return items[first], scores[first]


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 700),
    k=st.integers(1, 40),
    values=st.sampled_from(["few", "many", "equal", "zero"]),
    density=st.sampled_from([0.0, 0.02, 0.3, 0.6, 1.0]),
    n_nodes=st.integers(0, 4),
    attributes=st.sampled_from([(), ("a",), ("a", "b")]),
    n_excluded=st.integers(0, 60),
    kind=st.sampled_from(["float32", "both", "int8", "weighted"]),
    bound=st.sampled_from([0.0, 0.3, 1.1]),
    short=st.sampled_from([0, 64]),
    looks=st.sampled_from([1, 9]),
)
def test_equals_brute_force(  # type: ignore[no-untyped-def]
    seed, n, k, values, density, n_nodes, attributes, n_excluded, kind, bound, short, looks
) -> None:
    rng = np.random.default_rng(seed)
    tree = random_tree(n, rng)
    d = int(rng.choice([1, 7, 16]))  # numba compiles for each width
    vectors = {
        "few": rng.integers(-1, 2, size=(n, d)),  # many ties
        "many": rng.normal(size=(n, d)),
        "equal": np.tile(rng.normal(size=d), (n, 1)) * rng.integers(1, 3, size=(n, 1)),
        "zero": np.zeros((n, d)),
    }[values].astype(np.float32)
    masks = {name: rng.random(n) < density for name in ("a", "b")}
    index, vectors = index_of(kind, vectors, make_columns(tree, masks), rng)
    restrict = Restrict(tuple(rng.integers(0, len(tree.nodes), n_nodes).tolist()), attributes)
    exclude = rng.integers(0, n, min(n, n_excluded)).astype(np.int32)
    queries = rng.normal(size=(2, d)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(retrieve, "_CODES_FROM", 0)
        index.compile()
        patched.setattr(retrieve, "_MANY", 2)
        patched.setattr(retrieve, "_SHORT", short)
        patched.setattr(copies, "_FEW", 0)
        patched.setattr(copies, "_OFTEN", looks)
        patched.setattr(retrieve, "GATHER_BELOW", dict.fromkeys(retrieve.GATHER_BELOW, bound))
        items, scores = index.search(queries[: rng.integers(1, 3)], restrict, k, exclude)  # one has a path of its own
    for row, query in enumerate(queries[: len(items)]):
        wanted, wanted_scores = brute_force(vectors, tree, masks, query, restrict, k, exclude)
        assert items[row, : len(wanted)].tolist() == wanted.tolist()
        assert scores[row, : len(wanted)] == pytest.approx(wanted_scores, rel=1e-6, abs=1e-6)
        assert (items[row, len(wanted) :] == -1).all()
        assert np.isneginf(scores[row, len(wanted) :]).all()


def test_codes_of_what_is_asked_often_are_copied_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    rng, n = np.random.default_rng(0), 4000
    masks = {name: rng.random(n) < 0.3 for name in "abcd"}
    tree, vectors = random_tree(n, rng), rng.normal(size=(n, 16)).astype(np.float32)
    index = RestrictedIndex(vectors, make_columns(tree, masks), quantise(vectors))
    queries = rng.normal(size=(6, 1, 16)).astype(np.float32)
    before = {name: [index.search(each, Restrict((), (name,)), 5) for each in queries] for name in masks}
    index.compile()
    kept = index._copies
    assert kept is not None and kept.bytes == 0
    size = (8 + 16 + 4) * int(masks["a"].sum())
    monkeypatch.setattr(copies, "_MOST_BYTES", 5 * size // 2)  # of two attributes
    monkeypatch.setattr(copies, "_GREATEST", size * 2)
    for _ in range(2):
        for name, answers in before.items():
            for each, (items, scores) in zip(queries, answers, strict=True):
                found = index.search(each, Restrict((), (name,)), 5, items[0, :1])
                assert found[0][0, :4].tolist() == items[0, 1:].tolist()
                np.testing.assert_array_equal(found[1][0, :4], scores[0, 1:])
                assert kept.bytes <= 5 * size // 2
    assert kept.bytes > size
    for _ in range(4):  # what one person has seen is nobody else's
        index.search(queries[0], Restrict(where=parse_expression("seen or attr:b")), 5, None, {"seen": items[0]})
    assert len(kept._looks) <= 2


def test_only_what_is_unrestricted_is_ever_approximate() -> None:
    rng = np.random.default_rng(0)
    tree = random_tree(600, rng)
    leaf = tree.leaf_of(tree.order)
    vectors = (rng.normal(size=(13, 8))[leaf] + 0.5 * rng.normal(size=(600, 8))).astype(np.float32)
    index = RestrictedIndex(vectors, make_columns(tree, {"half": rng.random(600) < 0.5}))
    queries = rng.normal(size=(20, 8)).astype(np.float32)
    for restrict in (Restrict((1, 5)), Restrict((), ("half",))):
        assert np.array_equal(index.search(queries, restrict, 5, probe=1)[0], index.search(queries, restrict, 5)[0])
    exact = index.search(queries, None, 5)[0]
    leaves = tree.at_level(2)
    assert np.array_equal(index.search(queries, None, 5, probe=len(leaves))[0], exact)
    recalls = []
    for probe in (1, 4):
        found = index.search(queries, None, 5, probe=probe)[0]
        assert all(len(set(tree.leaf_of(row[row >= 0]).tolist())) <= probe for row in found)
        recalls.append(np.mean([len(set(a) & set(b)) / 5 for a, b in zip(found.tolist(), exact.tolist(), strict=True)]))
    assert 0.3 < recalls[0] < recalls[1] <= 1


def small_index() -> RestrictedIndex:
    tree = InterestTree(
        (Node(0, None, 0, 0, 4, 0), Node(1, 0, 1, 0, 2, 0), Node(2, 0, 1, 2, 4, 0)),
        np.array([3, 1, 2, 0], dtype=np.int32),
    )
    columns = make_columns(tree, {"calm": np.array([True, False, True, False])})
    return RestrictedIndex(np.ones((4, 2), dtype=np.float32), columns)


def test_ties_go_to_the_lower_item_num() -> None:
    items, scores = small_index().search(np.ones((1, 2), dtype=np.float32), None, 3)
    assert items.tolist() == [[0, 1, 2]]
    assert scores.tolist() == [[2, 2, 2]]


def test_more_than_there_is_answers_what_there_is() -> None:
    items, scores = small_index().search(
        np.ones((1, 2), dtype=np.float32), Restrict((1,)), 5, np.array([3], dtype=np.int32)
    )
    assert items.tolist() == [[1, -1, -1, -1, -1]]
    assert scores[0, 1] == -np.inf


def test_allowed_lists_union_of_nodes_and_all_attributes() -> None:
    index = small_index()
    assert index.allowed(None).tolist() == [3, 1, 2, 0]
    assert index.allowed(Restrict((1, 2), ("calm",))).tolist() == [2, 0]
    assert index.allowed(Restrict((2, 0), ())).tolist() == [3, 1, 2, 0]


@pytest.mark.parametrize(
    ("restrict", "k", "width", "match"),
    [
        (Restrict((9,)), 1, 2, "no such interest"),
        (Restrict((), ("loud",)), 1, 2, "no such attribute"),
        (None, 0, 2, "At least one answer"),
        (None, 1, 3, "query vectors do not fit"),
    ],
)
def test_bad_questions_are_named(restrict: Restrict | None, k: int, width: int, match: str) -> None:
    with pytest.raises(InputError, match=match):
        small_index().search(np.ones((1, width), dtype=np.float32), restrict, k)


def test_vectors_must_fit_the_tree_and_be_finite() -> None:
    index = small_index()
    with pytest.raises(InputError, match="do not fit the tree"):
        RestrictedIndex(np.ones((3, 2), dtype=np.float32), index.columns)
    with pytest.raises(InputError, match="not finite"):
        RestrictedIndex(np.full((4, 2), np.nan, dtype=np.float32), index.columns)
