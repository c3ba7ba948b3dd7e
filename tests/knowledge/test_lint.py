import numpy as np
import pytest

from palate.knowledge.attributes import Attribute
from palate.knowledge.lint import definition, lint


def attribute(name="calm", question="Is this film calm?", description="a calm film", **more):
    return Attribute(name=name, question=question, description=description, **more)


def rules(*attributes):
    return {(remark.attribute, remark.rule) for remark in lint(attributes)}


def test_a_clear_definition_passes():
    examples = ({"item": "Ran", "answer": "No"}, {"item": "Paterson", "answer": "Yes"})
    assert rules(attribute(examples=examples), attribute("gory", "Is blood shown at length?", "a gory film")) == set()


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        ({"question": "Is this a good film?"}, "vague"),
        ({"question": "Is it calm? Is it slow?"}, "double"),
        ({"question": "Is it calm and/or slow?"}, "double"),
        ({"question": "Is this film not loud?"}, "negated"),
        ({"question": "Isn't this film loud?"}, "negated"),
        ({"question": "Is it slow?", "description": ""}, "unexplained"),
        ({"question": "Is it " + "very " * 50 + "calm?"}, "long"),
        ({"question": "Is it slow?", "description": "", "guidance": "No cuts."}, "unnamed"),
        ({"examples": ({"item": "Ran", "answer": "No"},)}, "lopsided"),
        ({"options": ("calm", "very calm")}, "options"),
        ({"options": ("Calm", "calmly told")}, "options"),
        ({"options": ("1-3 scenes", "3 to 5 scenes", "none")}, "options"),
        ({"examples": ({"item": "Ran", "answer": "No"}, {"item": " ran", "answer": "Yes"})}, "contradiction"),
    ],
)
def test_each_rule(more, rule):
    assert ("calm", rule) in rules(attribute(**more))


@pytest.mark.parametrize("options", [("Yes", "No"), ("Very", "Somewhat", "No", "Unknown"), ("1-2", "3-5", "over 5")])
def test_options_that_exclude_each_other_pass(options):
    assert ("calm", "options") not in rules(attribute(options=options))


def test_definitions_that_overlap():
    twin = attribute("calming", "Is this film calm?", "a calm film")
    assert ("calm", "overlap") in rules(attribute(), twin)
    far = np.eye(2, dtype=np.float32)
    assert lint([attribute(), twin], far) == []
    near = np.array([[1, 0], [0.95, 0.3]], dtype=np.float32)
    assert [remark.rule for remark in lint([attribute(), twin], near)] == ["overlap"]
    assert "calm" in definition(twin)
