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
    """Vague, double, negated, unexplained or overlapping definitions.

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
    answered = {example.answer for example in attribute.examples}
    if attribute.examples and len(answered) < min(2, len(attribute.options)):
        what = f"all examples answer {next(iter(answered))!r}"
        found.append(Remark(name, "lopsided", what, "Give an example of another answer too."))
    for one, other in combinations(attribute.options, 2):
        if one.lower() in other.lower() or other.lower() in one.lower():
            found.append(Remark(name, "options", f"{one!r} is part of {other!r}", "Word the options differently."))
    return found


def _same_words(one: Attribute, other: Attribute) -> float:
    a, b = ({*re.findall(r"\w+", definition(x).lower())} for x in (one, other))
    return len(a & b) / len(a | b)
