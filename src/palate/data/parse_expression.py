"""Reading a restrict: `attr:calm and not seen and leaf in (3, 7) and price < 20 and category = "Drama"`.

    any  := all ("or" all)*
    all  := one ("and" one)*
    one  := "not" one | "(" any ")" | term
    term := field ("=" | "!=" | ":" | "<" | "<=" | ">" | ">=") value
          | field ["not"] "in" "(" value ("," value)* ")"
          | "attr" ":" name [("<" | "<=" | ">" | ">=") number]
          | set

`:` and `=` are the same, `x != y` is `not x = y`. A name with a space, a bracket or the look of a number stands in
quotes. Words of the language are read in any case. What is read is bounded, so nobody can send a text that takes
long: the time is linear in its length, and so is the recursion in `MAX_DEPTH`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from palate.data.expression import All, Either, Expression, Not, Operator, Term, Value
from palate.errors import InputError

MAX_LENGTH = 2000  # characters
MAX_DEPTH = 20  # brackets and nots inside each other
MAX_TERMS = 64
MAX_VALUES = 500  # in all lists together

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    | (?P<word>\w[\w./-]*)
    | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<sign><=|>=|!=|[<>=:(),])
    | (?P<end>\Z)
    )""",
    re.VERBOSE | re.DOTALL,
)
_COMPARE: dict[str, Operator] = {"<": "<", "<=": "<=", ">": ">", ">=": ">="}


@dataclass(frozen=True)
class _Token:
    kind: str  # "number", "word", "text", "sign", "end"
    text: str
    at: int

    def says(self, *words: str) -> bool:
        return self.kind in ("word", "sign") and self.text.lower() in words


def parse_expression(text: str) -> Expression:
    """Read a restrict.

    Raises:
        InputError: what is wrong and at which character, for a text that cannot be read or is too long, too deep
            or of too many terms.
    """
    if len(text) > MAX_LENGTH:
        raise InputError(
            "A restrict is too long", where="restrict", got=f"{len(text)} characters", allowed=f"{MAX_LENGTH}"
        )
    return _Reader(text).whole()


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.next, self.depth, self.n_terms, self.n_values = text, 0, 0, 0, 0
        self.tokens = self._tokens()

    def whole(self) -> Expression:
        found = self._any()
        if self._now.kind != "end":
            raise self._wrong(self._now, '"and", "or" or the end')
        return found

    @property
    def _now(self) -> _Token:
        return self.tokens[self.next]

    def _tokens(self) -> list[_Token]:
        found: list[_Token] = []
        place = 0
        while not found or found[-1].kind != "end":
            match = _TOKEN.match(self.text, place)
            if match is None:
                rest = self.text[place:].lstrip()
                raise self._wrong(
                    _Token("sign", rest[:1], len(self.text) - len(rest)), "words, numbers, quotes, brackets"
                )
            kind = str(match.lastgroup)
            found.append(_Token(kind, match[kind], match.start(kind)))
            place = match.end()
        return found

    def _wrong(self, token: _Token, allowed: str, what: str = "cannot be read") -> InputError:
        return InputError(
            f"A restrict {what} at character {token.at + 1}",
            where="restrict",
            got=self.text[token.at : token.at + 40] or "the end",
            allowed=allowed,
            hint='Write it like: attr:calm and not seen and year >= 1990 and category = "Drama"',
        )

    def _take(self) -> _Token:
        token = self._now
        self.next += token.kind != "end"
        return token

    def _took(self, *words: str) -> bool:
        found = self._now.says(*words)
        self.next += found
        return found

    def _need(self, sign: str) -> None:
        if not self._took(sign):
            raise self._wrong(self._now, f'"{sign}"')

    def _any(self) -> Expression:
        parts = self._joined(self._all, "or")
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _all(self) -> Expression:
        parts = self._joined(self._one, "and")
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _joined(self, read: Callable[[], Expression], word: str) -> list[Expression]:
        parts = [read()]
        while self._took(word):
            parts.append(read())
        return parts

    def _one(self) -> Expression:
        token = self._now
        if self._took("not"):
            return Not(self._deeper(token, self._one))
        if self._took("("):
            inside = self._deeper(token, self._any)
            self._need(")")
            return inside
        return self._term()

    def _deeper(self, token: _Token, read: Callable[[], Expression]) -> Expression:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self._wrong(token, f"{MAX_DEPTH} brackets and nots", "is too deep")
        found = read()
        self.depth -= 1
        return found

    def _term(self) -> Expression:
        token = self._take()
        if token.kind != "word" or token.says("and", "or", "in"):
            raise self._wrong(token, "a field, a set, not or (")
        self.n_terms += 1
        if self.n_terms > MAX_TERMS:
            raise self._wrong(token, f"{MAX_TERMS} terms", "has too many terms")
        if self._took("="):
            return Term(token.text, "in", (self._value(),), token.at)
        if self._took("!="):
            return Not(Term(token.text, "in", (self._value(),), token.at))
        if self._took(":"):
            return self._named(token)
        if self._now.says("not", "in"):
            outside = self._took("not")
            self._need("in")
            inside = Term(token.text, "in", self._values(), token.at)
            return Not(inside) if outside else inside
        return self._compared(token.text, token.at) or Term(token.text, "set", (), token.at)

    def _named(self, token: _Token) -> Term:
        value = self._value(as_name=token.text == "attr")
        if token.text == "attr":
            compared = self._compared(f"attr:{value}", token.at)
            if compared is not None:
                return compared
        return Term(token.text, "in", (value,), token.at)

    def _compared(self, name: str, at: int) -> Term | None:
        if self._now.kind != "sign" or self._now.text not in _COMPARE:
            return None
        op, number = _COMPARE[self._take().text], self._now
        value = self._value()
        if not isinstance(value, float):
            raise self._wrong(number, "a number")
        return Term(name, op, (value,), at)

    def _values(self) -> tuple[Value, ...]:
        self._need("(")
        found = [self._value()]
        while self._took(","):
            found.append(self._value())
        self._need(")")
        return tuple(found)

    def _value(self, as_name: bool = False) -> Value:
        token = self._take()
        self.n_values += 1
        if self.n_values > MAX_VALUES:
            raise self._wrong(token, f"{MAX_VALUES} values", "has too many values")
        if token.kind == "number" and not as_name:
            return float(token.text)
        if token.kind == "text":
            return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)
        if token.kind == "number" or (token.kind == "word" and not token.says("and", "or", "not", "in")):
            return token.text
        raise self._wrong(token, "a name, a number or a text in quotes")
