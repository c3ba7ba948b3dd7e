"""From a restrict to the places it allows: nodes are slices, rare values lists, the rest is tested where they leave."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from threading import Lock
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from palate.data.dataset import IntArray
from palate.data.expression import (
    NODE_FIELDS,
    All,
    Either,
    Expression,
    Not,
    Term,
    Value,
    both,
    conjuncts,
    terms,
)
from palate.errors import InputError
from palate.serving.columns import ItemColumns, Mask, Positions, Where, in_list, union
from palate.serving.spans import Allowed, Spans, complement, intersect, merge, within

_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_MANY = 32  # so many stretches are tested place by place: the work of NumPy's calls would exceed that of the places
_KEPT_BYTES = 64 * 2**20
_EVERYTHING = All()
_NO_SETS: Mapping[str, Positions] = {}


class Restricts:
    """Answers which places an expression allows, and keeps the answers that do not depend on a person.

    `told` hears of each look among those: whether the answer was there.
    """

    def __init__(self, columns: ItemColumns) -> None:
        self.columns, self.tree = columns, columns.tree
        self.n_items = len(columns.tree.order)
        self._kept: OrderedDict[Expression, Allowed] = OrderedDict()
        self.kept_bytes, self._lock = 0, Lock()
        self.told: Callable[[bool], None] = lambda hit: None

    def allowed(
        self, expression: Expression, sets: Mapping[str, Positions] = _NO_SETS
    ) -> tuple[Allowed, Positions | None]:
        """The places that an expression allows, and some of them to take away again: sets under a top-level `not`.

        Args:
            sets: Sorted places by the name of the set.

        Raises:
            InputError: naming the term and its place in the text: an unknown field, value, node or set.
        """
        found = self._kept.get(expression)
        if found is not None:  # no set is named: what is kept had its names checked
            if expression != _EVERYTHING:
                self.told(True)
            return found, None
        self.check(expression, sets)
        parts = conjuncts(expression)
        away = [name for part in parts if (name := _outside(part))]
        core = both(*[part for part in parts if not _outside(part)])
        taken = np.unique(np.concatenate([sets[name] for name in away])) if away else None
        if any(term.op == "set" for term in terms(core)):
            return self._find(core, sets), taken
        found = self._kept.get(core)
        if core != _EVERYTHING:
            self.told(found is not None)
        if found is None:
            found = self._keep(core, replace(self._find(core, sets), kept=True))
        return found, taken

    def forget(self) -> None:
        """Drop the answers that were kept."""
        with self._lock:
            self._kept.clear()
            self.kept_bytes = 0

    def _keep(self, expression: Expression, found: Allowed) -> Allowed:
        """Least recently made goes first; an answer's price is its rows, twice for their numbers, and a little."""
        with self._lock:
            if expression in self._kept:  # another thread was faster
                return self._kept[expression]
            self._kept[expression] = found
            self.kept_bytes += _price(found)
            while self.kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
                self.kept_bytes -= _price(self._kept.popitem(last=False)[1])
        return found

    def _find(self, expression: Expression, sets: Mapping[str, Positions]) -> Allowed:
        """Nodes first, then the shortest list; what is left is tested there."""
        parts = conjuncts(expression)
        spans: Spans = (slice(0, self.n_items),) if self.n_items else ()
        rest = []
        for part in parts:
            if _only_nodes(part):
                spans = intersect(spans, self._spans(part))
            else:
                rest.append(part)
        found = Allowed(spans)
        listed = {place: self._list(part, sets) for place, part in enumerate(rest)}
        best = min((rows for rows in listed.values() if rows is not None), key=len, default=None)
        if best is not None and len(best) < found.width:
            rest = [part for place, part in enumerate(rest) if listed[place] is not best]
            found = Allowed(spans, found.inside(best))
        if not rest:
            return found
        if found.rows is None and len(spans) <= _MANY:
            masks = [self._holds(All(tuple(rest)), span, sets) for span in spans]
            rows = [np.flatnonzero(mask) + span.start for mask, span in zip(masks, spans, strict=True)]
            return Allowed(spans, np.concatenate([*rows, np.zeros(0, dtype=np.int64)]))
        left = found.positions
        for part in rest:
            left = left[self._holds(part, left, sets)]
        return Allowed(spans, left)

    def _list(self, part: Expression, sets: Mapping[str, Positions]) -> Positions | None:
        """The places of a term that few items pass, where they are listed."""
        if not isinstance(part, Term):
            return None
        if part.op == "set":
            return sets[part.field]
        if part.op != "in" or part.field not in self.columns.values:
            return None
        values = self.columns.values[part.field]
        lists = [places for value in part.values if (places := values[str(value)].places) is not None]
        return union(lists) if len(lists) == len(part.values) else None

    def _holds(self, part: Expression, where: Where, sets: Mapping[str, Positions]) -> Mask:
        """For each of the places whether the part holds."""
        if isinstance(part, Term):
            return self._term_holds(part, where, sets)
        if isinstance(part, Not):
            return ~self._holds(part.part, where, sets)
        size = where.stop - where.start if isinstance(where, slice) else len(where)
        whole = isinstance(part, All)
        mask = np.full(size, whole)
        for inner in part.parts:
            own = self._holds(inner, where, sets)
            mask = mask & own if whole else mask | own
        return mask

    def _term_holds(self, term: Term, where: Where, sets: Mapping[str, Positions]) -> Mask:
        columns = self.columns
        if term.op == "set":
            return in_list(sets[term.field], where)
        if term.field in NODE_FIELDS:
            return within(self._spans(term), where)
        if term.op == "in" and term.field in columns.values:
            masks = [columns.values[term.field][str(value)].holds(where) for value in dict.fromkeys(term.values)]
            return np.logical_or.reduce(masks) if len(masks) > 1 else masks[0]
        if term.field in columns.numbers:
            numbers: npt.NDArray[np.floating] = columns.numbers[term.field][where]
        else:
            numbers = columns.probabilities[term.field.removeprefix("attr:")][self.tree.order[where]]
        if term.op == "in":
            return np.isin(numbers, np.array(term.values, dtype=np.float64))
        return np.asarray(_COMPARE[term.op](numbers, term.values[0]))

    def _spans(self, part: Expression) -> Spans:
        """Of an expression over nodes alone."""
        if isinstance(part, Term):
            nodes = [self.tree.nodes[int(value)] for value in part.values]
            return merge((node.start, node.stop) for node in nodes)
        if isinstance(part, Not):
            return complement(self._spans(part.part), self.n_items)
        parts = [self._spans(inner) for inner in part.parts]
        if isinstance(part, Either):
            return merge((span.start, span.stop) for spans in parts for span in spans)
        found = parts[0]
        for spans in parts[1:]:
            found = intersect(found, spans)
        return found

    def check(self, expression: Expression, sets: Collection[str]) -> None:
        """Whether all that the expression names is there.

        Raises:
            InputError: as `allowed`.
        """
        for term in terms(expression):
            columns, name = self.columns, term.field.removeprefix("attr:")
            if term.field in NODE_FIELDS:
                self._check_nodes(term)
            elif term.op == "set":
                if term.field not in sets:
                    _refuse(term, "set", term.field, sets, f"Attributes are written attr:{term.field}")
            elif term.op == "in" and term.field in columns.values:
                for value in term.values:
                    if not isinstance(value, str) or value not in columns.values[term.field]:
                        what = "attribute" if term.field == "attr" else term.field
                        _refuse(term, what, value, columns.values[term.field])
            elif term.field.startswith("attr:"):
                if name not in columns.probabilities:
                    _refuse(term, "attribute with probabilities", name, columns.probabilities)
            elif term.field not in columns.numbers:
                _refuse(term, "field to compare", term.field, [*NODE_FIELDS, *columns.values, *columns.numbers])
            elif not all(isinstance(value, float) for value in term.values):
                _refuse(term, "number", term.values[0], ["a number"])

    def _check_nodes(self, term: Term) -> None:
        first = 0 if term.field == "node" else len(self.tree.nodes) - len(self.tree.at_level(self.tree.depth))
        last = len(self.tree.nodes) - 1
        what = "interest" if term.field == "node" else "leaf of the interests"
        if term.op != "in":
            _refuse(term, f"{what} to compare", term.op, [f"{term.field} in ({first}, {last})"])
        for value in term.values:
            if not isinstance(value, float) or not value.is_integer() or not first <= value <= last:
                _refuse(term, what, _shown(value), [f"{first} to {last}"])


def places_of(positions: IntArray, items: npt.NDArray[np.integer]) -> Positions:
    """Sorted places of items, each once; `positions` is the tree's place of each item."""
    found: Positions = positions[items].astype(np.int64)
    found.sort()  # `np.unique` comes to the same in several times as many steps
    first = np.ones(len(found), dtype=np.bool_)
    np.not_equal(found[1:], found[:-1], out=first[1:])
    return found[first]


def _refuse(term: Term, what: str, got: object, allowed: Iterable[str], hint: str | None = None) -> NoReturn:
    place = f" (character {term.at + 1})" if term.at >= 0 else ""
    known = ", ".join(sorted(map(str, allowed))[:50]) or "none"
    raise InputError(f"There is no such {what}{place}", where="restrict", got=got, allowed=known, hint=hint)


def _shown(value: Value) -> Value | int:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _outside(part: Expression) -> str | None:
    """The set that the part excludes, if that is all it does."""
    inner = part.part if isinstance(part, Not) else None
    return inner.field if isinstance(inner, Term) and inner.op == "set" else None


def _only_nodes(part: Expression) -> bool:
    return all(term.field in NODE_FIELDS for term in terms(part)) and any(True for _ in terms(part))


def _price(found: Allowed) -> int:
    return 1024 + 64 * len(found.spans) + (2 * found.rows.nbytes if found.rows is not None else 0)
