import json

from palate.knowledge.handbook import Dimension, Handbook, Section
from palate.knowledge.handbook_llm import name_dimensions, propose_dimensions
from palate.llm.request import Answer
from palate.llm.structured import checked


class Fake:
    model = "fake"

    def __init__(self, *texts):
        self.texts = list(texts)

    def generate(self, requests):
        return [checked(request, Answer(self.texts.pop(0))) for request in requests]


def book(*dimensions):
    made = tuple(Dimension(name=name, values=values, lift=0.1) for name, values in dimensions)
    return Handbook(sections=(Section(category="all", dimensions=made),))


def test_names_are_values_and_unique():
    found = name_dimensions(
        book(("a / b", ("war", "army")), ("c / d", ("war", "sea")), ("e / f", ("x", "y")), ("g / h", ("v", "w"))),
        Fake("war", "war", "nonsense", "w"),
    )
    dimensions = found.sections[0].dimensions
    assert [d.name for d in dimensions] == ["war", "c / d", "e / f", "w"]
    assert [d.lift for d in dimensions] == [0.1] * 4


def test_proposals_are_plain_and_different():
    said = [
        {"name": "Mood ", "values": ["Calm", "calm", "", "#tense"]},
        {"name": "mood", "values": ["x"]},
        {"name": "!", "values": ["y"]},
        {"name": "empty", "values": []},
    ]
    found, problem = propose_dimensions(["A title"], Fake(json.dumps({"dimensions": said})))
    assert problem == ""
    assert [(d.name, d.values) for d in found] == [("mood", ("calm", "tense"))]


def test_a_useless_answer_is_said():
    found, problem = propose_dimensions(["A title"], Fake("I think that"))
    assert found == []
    assert "proposed no dimensions" in problem
