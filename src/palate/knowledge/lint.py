"""Definitions that annotators will not agree on, found by rule before anybody is asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from palate.data.dataset import FloatArray
from palate.knowledge.attributes import Attribute

_VAGUE = re.compile(
    r"\b(good|bad|nice|interesting|appropriate|relevant|suitable|quality|normal|proper|etc|and so on|some kind of|"
    r"kind of|sort of|somewhat|fairly|quite|various|stuff|things?)\b",
    re.IGNORECASE,
)
_TWO_QUESTIONS = re.compile(r"\b(and/or|and also|as well as)\b|\?.*\?", re.IGNORECASE)
_NEGATED = re.compile(r"\b(not|n't|never|without|no longer)\b|n't\b", re.IGNORECASE)
_RANGE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:-|–|to)\s*(\d+(?:\.\d+)?)")
_TOO_LONG = 40  # words of a question
_ALIKE = 0.85  # cosine of two definitions' vectors, above which they are taken for one


@dataclass(frozen=True)
class Remark:
    """Something about an attribute that is worth mending. `rule` is its short name."""

    attribute: str
    rule: str
    what: str
    hint: str


def lint(attributes: Sequence[Attribute], vectors: FloatArray | None = None) -> list[Remark]:
    """Vague, double, negated, unexplained or overlapping definitions; options and examples that contradict.

    Args:
        vectors: Unit vectors [n_attributes, d] of the definitions (`definition`), for overlap in meaning; None: only
            overlap in words is looked for.
    """
    found = [remark for attribute in attributes for remark in _alone(attribute)]
    for (i, one), (j, other) in combinations(enumerate(attributes), 2):
        alike = _same_words(one, other) if vectors is None else float(vectors[i] @ vectors[j])
        if alike > _ALIKE:
            what = f"its definition is close to that of {other.name} ({alike:.2f})"
            found.append(Remark(one.name, "overlap", what, "Say in the guidance of both what tells them apart."))
    return found


def definition(attribute: Attribute) -> str:
    """What an attribute means, in one text."""
    return " ".join(part for part in (attribute.question, attribute.description, attribute.guidance) if part)


def _alone(attribute: Attribute) -> list[Remark]:
    name, found = attribute.name, []
    text = definition(attribute)
    for rule, pattern, place, what, hint in (
        ("vague", _VAGUE, attribute.question, "vague word", "Name what is to be seen or heard in the item."),
        ("double", _TWO_QUESTIONS, attribute.question, "two questions in one", "Make two attributes of them."),
        ("negated", _NEGATED, attribute.question, "negated question", "Ask for the thing itself, then read the No."),
    ):
        match = pattern.search(place)
        if match:
            found.append(Remark(name, rule, f"{what}: {match.group(0).strip()!r}", hint))
    if not attribute.guidance and not attribute.description:
        hint = "Write what counts and what does not; raters see it too."
        found.append(Remark(name, "unexplained", "neither guidance nor description", hint))
    if len(attribute.question.split()) > _TOO_LONG:
        found.append(Remark(name, "long", f"a question of more than {_TOO_LONG} words", "Move details to guidance."))
    if name.replace("_", " ") not in text.lower() and not attribute.description:
        found.append(Remark(name, "unnamed", "the question never says its own name", "Add a description."))
    return found + _options(attribute) + _examples(attribute)


def _options(attribute: Attribute) -> list[Remark]:
    """Options that do not exclude each other: one within the other, or ranges of numbers that meet."""
    found = []
    for one, other in combinations(attribute.options, 2):
        short, long = sorted((one, other), key=len)
        if f" {short.lower()} " in f" {long.lower()} " or long.lower().startswith(short.lower()):
            what = f"{short!r} is part of {long!r}"
            found.append(Remark(attribute.name, "options", what, "Word the options differently."))
        ranges = [_RANGE.search(option) for option in (one, other)]
        if all(ranges):
            (a, b), (c, d) = (sorted(map(float, match.groups())) for match in ranges if match)
            if a <= d and c <= b:
                what = f"{one!r} and {other!r} overlap"
                found.append(Remark(attribute.name, "options", what, "Let each number lie in one option."))
    return found


def _examples(attribute: Attribute) -> list[Remark]:
    """Examples that all answer the same, or answer one item in two ways."""
    name, found = attribute.name, []
    answered = {example.answer for example in attribute.examples}
    if attribute.examples and len(answered) < 2:
        what = f"all examples answer {next(iter(answered))!r}"
        found.append(Remark(name, "lopsided", what, "Give an example of another answer too."))
    said: dict[str, set[str]] = {}
    for example in attribute.examples:
        said.setdefault(" ".join(example.item.casefold().split()), set()).add(example.answer)
    for item, answers in said.items():
        if len(answers) > 1:
            what = f"the example {item!r} answers {' and '.join(sorted(answers))}"
            found.append(Remark(name, "contradiction", what, "Keep one, or say in edge_cases what decides."))
    return found


def _same_words(one: Attribute, other: Attribute) -> float:
    a, b = ({*re.findall(r"\w+", definition(x).lower())} for x in (one, other))
    return len(a & b) / len(a | b)
