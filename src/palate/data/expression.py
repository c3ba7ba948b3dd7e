"""What a restrict says of items, as a tree of terms: the form that `parse_expression` reads text into."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import Literal, TypeAlias

Value: TypeAlias = str | float
Operator = Literal["in", "<", "<=", ">", ">=", "set"]
NODE_FIELDS = ("node", "leaf")


@dataclass(frozen=True)
class Term:
    """One test of an item: `field` is one of `values` ("in"), compares with the one value, or is a set ("set").

    Fields are "attr" (values are names), "attr:<name>" (compares its probability), "node" and "leaf" (numbers of
    the interest tree), "category" and other columns of the items, or the name of a set of items such as "seen".
    An item whose number is missing passes no comparison.
    """

    field: str
    op: Operator
    values: tuple[Value, ...] = ()
    at: int = attribute(default=0, compare=False)  # place in the text, for errors


@dataclass(frozen=True)
class All:
    """Every part holds; without parts everything does."""

    parts: tuple[Expression, ...] = ()


@dataclass(frozen=True)
class Either:
    """At least one part holds."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True)
class Not:
    part: Expression


Expression: TypeAlias = Term | All | Either | Not


def terms(expression: Expression) -> Iterator[Term]:
    """All of them, from left to right."""
    if isinstance(expression, Term):
        yield expression
    else:
        for part in (expression.part,) if isinstance(expression, Not) else expression.parts:
            yield from terms(part)


def mentions(expression: Expression | None, *fields: str) -> bool:
    """Whether a term is about one of the fields; "attr" stands for "attr:<name>" too."""
    found = terms(expression) if expression is not None else ()
    return any(term.field.partition(":")[0] in fields for term in found)


def conjuncts(expression: Expression) -> list[Expression]:
    """The parts that must all hold, nested ones unfolded."""
    if isinstance(expression, All):
        return [inner for part in expression.parts for inner in conjuncts(part)]
    return [expression]


def both(*parts: Expression | None) -> Expression:
    """All of the parts that there are."""
    found = [inner for part in parts if part is not None for inner in conjuncts(part)]
    return found[0] if len(found) == 1 else All(tuple(found))
