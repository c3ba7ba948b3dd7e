from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.expression import All, Either, Expression, Not, Term, mentions, terms
from palate.data.parse_expression import MAX_DEPTH, MAX_LENGTH, MAX_TERMS, MAX_VALUES, parse_expression
from palate.errors import InputError


def flag(name: str) -> Term:
    return Term(name, "set")


def isin(field: str, *values: str | float) -> Term:
    return Term(field, "in", values)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("attr:calm", isin("attr", "calm")),
        ("attr:slow-burn", isin("attr", "slow-burn")),
        ("attr:'thought provoking'", isin("attr", "thought provoking")),
        ("attr:3d", isin("attr", "3d")),
        ("attr:2020", isin("attr", "2020")),
        ("attr:not", None),
        ('attr:"not"', isin("attr", "not")),
        ("attr:calm >= 0.8", Term("attr:calm", ">=", (0.8,))),
        ("node:5", isin("node", 5.0)),
        ("seen", Term("seen", "set")),
        ("not seen", Not(Term("seen", "set"))),
        ("leaf in (3, 7)", isin("leaf", 3.0, 7.0)),
        ("leaf not in (3)", Not(isin("leaf", 3.0))),
        ("price<20", Term("price", "<", (20.0,))),
        ("price > -1.5e2", Term("price", ">", (-150.0,))),
        ('category = "Drama"', isin("category", "Drama")),
        (r'category = "a \"b\" \\ c"', isin("category", 'a "b" \\ c')),
        ("category != War", Not(isin("category", "War"))),
        ("a and b or c and d", Either((All((flag("a"), flag("b"))), All((flag("c"), flag("d")))))),
        ("a AND (b Or c)", All((flag("a"), Either((flag("b"), flag("c")))))),
        ("not not a", Not(Not(flag("a")))),
        ("not a and b", All((Not(flag("a")), flag("b")))),
        ("Größe >= 3", Term("Größe", ">=", (3.0,))),
        (
            'attr:calm and not seen and leaf in (3, 7) and price < 20 and category = "Drama"',
            All(
                (
                    isin("attr", "calm"),
                    Not(flag("seen")),
                    isin("leaf", 3.0, 7.0),
                    Term("price", "<", (20.0,)),
                    isin("category", "Drama"),
                )
            ),
        ),
    ],
)
def test_it_is_read_as_it_is_meant(text: str, wanted: Expression | None) -> None:
    if wanted is None:
        with pytest.raises(InputError):
            parse_expression(text)
    else:
        assert parse_expression(text) == wanted


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "at character 1"),
        ("attr:", "at character 6"),
        ("attr:calm and", "at character 14"),
        ("attr:calm attr:funny", "at character 11"),
        ("price < cheap", "at character 9"),
        ("price <", "at character 8"),
        ("leaf in 3", "at character 9"),
        ("leaf in (3", "at character 11"),
        ("leaf in ()", "at character 10"),
        ("leaf not 3", "at character 10"),
        ("(a or b", "at character 8"),
        ("a)", "at character 2"),
        ("a & b", "at character 3"),
        ('category = "Drama', "at character 12"),
        ("  ; drop", "at character 3"),
        ("1990 < year", "at character 1"),
        ("a" * (MAX_LENGTH + 1), "too long"),
        ("(" * (MAX_DEPTH + 1) + "a" + ")" * (MAX_DEPTH + 1), "too deep"),
        ("not " * (MAX_DEPTH + 1) + "a", "too deep"),
        (" and ".join(["a"] * (MAX_TERMS + 1)), "too many terms"),
        ("leaf in (" + ",".join(["1"] * (MAX_VALUES + 1)) + ")", "too many values"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        parse_expression(text)
    assert caught.value.where == "restrict"


def test_the_bounds_themselves_are_allowed() -> None:
    parse_expression("(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH)
    parse_expression("not " * MAX_DEPTH + "a")
    assert len(list(terms(parse_expression(" or ".join(["a"] * MAX_TERMS))))) == MAX_TERMS
    parse_expression("leaf in (" + ",".join(["1"] * MAX_VALUES) + ")")


def test_what_an_expression_is_about() -> None:
    found = parse_expression("attr:calm > 0.5 or not (leaf = 3 and seen)")
    assert mentions(found, "attr") and mentions(found, "leaf", "node") and mentions(found, "seen")
    assert not mentions(found, "node", "category") and not mentions(None, "attr")


WORDS = [
    "and",
    "or",
    "not",
    "in",
    "(",
    ")",
    ",",
    "<",
    ">=",
    "=",
    "!=",
    ":",
    "attr",
    "leaf",
    "seen",
    "3",
    '"x"',
    "'",
    "\\",
]


@settings(deadline=None, max_examples=500)
@given(text=st.one_of(st.text(max_size=300), st.lists(st.sampled_from(WORDS), max_size=120).map(" ".join)))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse_expression(text)
    except InputError as error:
        assert str(error)
    else:
        assert 1 <= len(list(terms(found))) <= MAX_TERMS


@pytest.mark.parametrize(
    "piece", ["(", "not ", "a and ", "a or (", '"', "\\", " ", "<", "1", "1.", "a in (", "-", "ä", "x:"]
)
def test_no_text_takes_long(piece: str) -> None:
    text = (piece * MAX_LENGTH)[:MAX_LENGTH]
    start = time.process_time()
    with suppress(InputError):
        parse_expression(text)
    assert time.process_time() - start < 0.25
