"""Restricts beside a plain reading of them, item by item, over random catalogues."""

from __future__ import annotations

import time

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_retrieve import random_tree

from palate.data.expression import All, Either, Expression, Not, Term
from palate.data.parse_expression import parse_expression
from palate.data.query import Restrict
from palate.errors import InputError
from palate.serving import restrict as restrict_module
from palate.serving.columns import columns_from, make_columns, save_columns
from palate.serving.restrict import Restricts
from palate.serving.retrieve import RestrictedIndex

CATEGORIES = ("Drama", "War", "Film noir", "rare")


class Catalogue:
    """Items as rows of a table, and the columns made of them."""

    def __init__(self, n: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.tree = random_tree(n, rng)
        weights = (0.4, 0.2, 0.5, 0.01)
        self.items = pl.DataFrame(
            {
                "item_id": [f"i{i}" for i in range(n)],
                "title": [f"t{i}" for i in range(n)],
                "categories": [
                    [c for c, w in zip(CATEGORIES, weights, strict=True) if rng.random() < w] for _ in range(n)
                ],
                "price": pl.Series([None if rng.random() < 0.2 else float(rng.integers(0, 30)) for _ in range(n)]),
                "maker": pl.Series([str(rng.choice(["one", "two"])) for _ in range(n)]),
            },
            schema_overrides={"categories": pl.List(pl.String), "price": pl.Float64},
        )
        self.probabilities = {name: rng.random(n).astype(np.float32) for name in ("calm", "odd")}
        masks = {name: row >= {"calm": 0.5, "odd": 0.98}[name] for name, row in self.probabilities.items()}
        self.columns = make_columns(self.tree, masks, self.items, self.probabilities)
        self.masks = masks
        self.rows = self.items.to_dicts()
        self.seen = np.unique(rng.integers(0, n, min(n, 9))).astype(np.int32)
        self.leaves = len(self.tree.nodes) - len(self.tree.at_level(2)), len(self.tree.nodes) - 1
        self.index = RestrictedIndex(np.ones((n, 1), dtype=np.float32), self.columns)

    def passes(self, item: int, part: Expression) -> bool:
        """What the language means, for one item."""
        if isinstance(part, All):
            return all(self.passes(item, inner) for inner in part.parts)
        if isinstance(part, Either):
            return any(self.passes(item, inner) for inner in part.parts)
        if isinstance(part, Not):
            return not self.passes(item, part.part)
        return self.fits(item, part)

    def fits(self, item: int, term: Term) -> bool:  # noqa: PLR0911
        row = self.rows[item]
        if term.op == "set":
            return item in self.seen
        if term.field in ("node", "leaf"):
            return any(item in self.tree.items_of(int(node)) for node in term.values)
        if term.field == "attr":
            return any(self.masks[str(name)][item] for name in term.values)
        if term.field == "category":
            return any(value in row["categories"] for value in term.values)
        if term.field == "maker":
            return row["maker"] in term.values
        number = row["price"] if term.field == "price" else float(self.probabilities[term.field[5:]][item])
        if number is None:
            return False
        if term.op == "in":
            return number in term.values
        wanted = float(term.values[0])
        wanted = wanted if term.field == "price" else float(np.float32(wanted))
        return {"<": number < wanted, "<=": number <= wanted, ">": number > wanted, ">=": number >= wanted}[term.op]


def texts(catalogue: Catalogue) -> st.SearchStrategy[str]:
    first, last = catalogue.leaves
    numbers = st.sampled_from(["0", "5", "12.5", "29", "1e9", "-3"])
    signs = st.sampled_from(["<", "<=", ">", ">="])
    nodes = st.lists(st.integers(0, last), min_size=1, max_size=3).map(lambda found: ", ".join(map(str, found)))
    leaf = st.integers(first, last).map(lambda node: f"leaf = {node}")
    term = st.one_of(
        st.sampled_from(["seen", "attr:calm", "attr:odd", "attr in (calm, odd)", "maker = one", "maker != two"]),
        st.sampled_from(["category = Drama", 'category in (War, "Film noir")', "category:rare", "not category = War"]),
        st.builds("price {} {}".format, signs, numbers),
        st.builds("price in ({}, {})".format, numbers, numbers),
        st.builds("attr:calm {} 0.25".format, signs),
        st.builds("node in ({})".format, nodes),
        st.builds("node not in ({})".format, nodes),
        leaf,
    )

    def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.lists(inner, min_size=2, max_size=4).map(" and ".join),
            st.lists(inner, min_size=2, max_size=3).map(lambda parts: "(" + " or ".join(parts) + ")"),
            inner.map("not ({})".format),
        )

    return st.recursive(term, larger, max_leaves=12)


CATALOGUES = [Catalogue(n, seed) for seed, n in enumerate((1, 2, 7, 60, 333))]


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(data=st.data(), number=st.integers(0, 4), many=st.sampled_from([0, 32]))
def test_it_allows_what_the_plain_reading_does(data: st.DataObject, number: int, many: int) -> None:
    catalogue = CATALOGUES[number]
    text = data.draw(texts(catalogue))
    expression = parse_expression(text)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(restrict_module, "_MANY", many)
        try:
            found = catalogue.index.allowed(Restrict(where=expression), {"seen": catalogue.seen})
        except InputError as error:  # a small catalogue lacks some of the values
            assert number < 4 and "no such" in str(error)
            return
    wanted = [item for item in catalogue.tree.order.tolist() if catalogue.passes(item, expression)]
    assert found.tolist() == wanted
    again = catalogue.index.allowed(Restrict(where=expression), {"seen": catalogue.seen})
    assert again.tolist() == wanted


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(data=st.data(), k=st.integers(1, 20))
def test_a_search_answers_only_what_is_allowed(data: st.DataObject, k: int) -> None:
    catalogue = CATALOGUES[4]
    expression = parse_expression(data.draw(texts(catalogue)))
    sets = {"seen": catalogue.seen}
    items, _ = catalogue.index.search(np.ones((1, 1), dtype=np.float32), Restrict(where=expression), k, None, sets)
    wanted = sorted(catalogue.index.allowed(Restrict(where=expression), sets).tolist())[:k]
    assert [item for item in items[0].tolist() if item >= 0] == wanted


def test_a_missing_number_passes_no_comparison_and_every_not() -> None:
    catalogue = CATALOGUES[4]
    missing = {item for item, row in enumerate(catalogue.rows) if row["price"] is None}
    below = set(catalogue.index.allowed(Restrict(where=parse_expression("price < 1e9"))).tolist())
    assert missing and not missing & below
    assert missing <= set(catalogue.index.allowed(Restrict(where=parse_expression("not price < 10"))).tolist())


def test_nodes_and_attributes_of_a_restrict_join_its_expression() -> None:
    catalogue = CATALOGUES[4]
    restrict = Restrict((1, 3), ("calm",), parse_expression("price < 10"))
    wanted = parse_expression("node in (1, 3) and attr:calm and price < 10")
    assert restrict.expression == wanted
    assert set(catalogue.index.allowed(restrict).tolist()) == {
        item for item in range(333) if catalogue.passes(item, wanted)
    }


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("attr:loud", r"no such attribute \(character 1\)"),
        ("price < 3 and attr in (calm, loud)", r"no such attribute \(character 15\)"),
        ("calm", r"no such set \(character 1\)(.|\n)*attr:calm"),
        ("category = Dram", r"no such category(.|\n)*Drama"),
        ("category = 3", "no such category"),
        ("weight < 3", "no such field to compare(.|\n)*price"),
        ("weight = 3", "no such field to compare"),
        ("category < 3", "no such field to compare"),
        ("price = cheap", "no such number"),
        ("attr:loud > 0.5", "no such attribute with probabilities"),
        ("node = 99", "no such interest(.|\n)*0 to 12"),
        ("node = 1.5", "no such interest"),
        ("node = 1e999", "no such interest"),
        ("node = funny", "no such interest"),
        ("node < 3", "no such interest to compare"),
        ("leaf = 3", "no such leaf of the interests(.|\n)*4 to 12"),
    ],
)
def test_what_there_is_not_is_named(text: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        CATALOGUES[4].index.allowed(Restrict(where=parse_expression(text)), {"seen": CATALOGUES[4].seen})


def test_columns_written_are_columns_read(tmp_path) -> None:  # type: ignore[no-untyped-def]
    columns = CATALOGUES[4].columns
    save_columns(columns, tmp_path)
    arrays = tuple(np.load(tmp_path / f"{name}.npy") for name in ("bits", "places", "numbers"))
    table = pl.read_parquet(tmp_path / "columns.parquet")
    read = columns_from(table, arrays, columns.tree, columns.probabilities)  # type: ignore[arg-type]
    everything = slice(0, 333)
    assert {name: list(havings) for name, havings in read.values.items()} == {
        name: list(havings) for name, havings in columns.values.items()
    }
    for name, havings in columns.values.items():
        for value, having in havings.items():
            assert np.array_equal(read.values[name][value].holds(everything), having.holds(everything))
    assert np.array_equal(read.numbers["price"], columns.numbers["price"], equal_nan=True)


def test_prose_and_words_of_the_language_are_no_columns() -> None:
    items = pl.DataFrame({"item_id": list("abcdef"), "leaf": [1] * 6, "blurb": list("uvwxyz"), "kind": list("ppqqpp")})
    tree = random_tree(6, np.random.default_rng(0))
    columns = make_columns(tree, {}, items)
    assert set(columns.values) == {"attr", "kind"} and not columns.numbers
    with pytest.raises(InputError, match="do not fit the tree"):
        make_columns(tree, {}, items[:3])


def test_the_largest_restricts_do_not_take_long() -> None:
    """64 terms over 100,000 items, none of which can be a list or a slice: the worst of what may be asked."""
    n = 100_000
    rng = np.random.default_rng(0)
    tree = random_tree(n, rng)
    items = pl.DataFrame({"item_id": [str(i) for i in range(n)], "price": rng.random(n)})
    index = RestrictedIndex(np.ones((n, 1), dtype=np.float32), make_columns(tree, {"a": rng.random(n) < 0.5}, items))
    text = " and ".join(f"(price < 0.9{i} or not attr:a)" for i in range(32))
    start = time.process_time()
    index.allowed(Restrict(where=parse_expression(text)))
    assert time.process_time() - start < 1


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = CATALOGUES[4]
    monkeypatch.setattr(restrict_module, "_KEPT_BYTES", 20_000)
    restricts = Restricts(catalogue.columns)
    first = parse_expression("price < 3")
    found = restricts.allowed(first)[0]
    assert restricts.allowed(first)[0] is found
    for number in range(100):
        restricts.allowed(parse_expression(f"price < {number}.5"))
    assert restricts.allowed(first)[0] is not found
    assert restricts.kept_bytes <= 20_000
    assert np.array_equal(found.positions, restricts.allowed(first)[0].positions)
