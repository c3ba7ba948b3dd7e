import json

import pytest

from palate.errors import InputError
from palate.knowledge.factors import Factor, Factors, load_factors, propose_factors, save_factors
from palate.llm.request import Answer
from palate.llm.structured import checked


class Fake:
    model = "fake"

    def __init__(self, text):
        self.text, self.asked = text, []

    def generate(self, requests):
        self.asked += requests
        return [checked(request, Answer(self.text)) for request in requests]


@pytest.mark.parametrize("name", ["films", "goods"])
def test_packaged_factors_have_values_to_choose_among(name):
    found = load_factors(name)
    assert len(found.factors) >= 4
    assert all(len(factor.values) > 1 for factor in found.factors)


def test_a_person_edits_the_yaml(tmp_path):
    path = tmp_path / "deep" / "factors.yaml"
    made = Factors(scenario="songs", thing="song", factors=(Factor(name="tempo", description="how fast"),))
    save_factors(made, path)
    assert load_factors(path) == made
    path.write_text(path.read_text().replace("values: []", "values: [slow, fast]"))
    assert load_factors(path).factors[0].values == ("slow", "fast")
    assert [child.name for child in path.parent.iterdir()] == ["factors.yaml"]


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("scenario: films\nfactors: []", "factors"),
        ("scenario: films\nfactors: [{name: a}, {name: a}]", "defined twice"),
        ("scenario: films\nfactors: [{name: a, values: [x, x]}]", "two or more that differ"),
        ("scenario: films\nfactors: [{name: a, vlues: [x, y]}]", "vlues"),
        ("scenario: [", "not valid YAML"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, said, problem):
    path = tmp_path / "factors.yaml"
    path.write_text(said)
    with pytest.raises(InputError, match=problem):
        load_factors(path)
    with pytest.raises(InputError, match="films, goods"):
        load_factors(tmp_path / "none.yaml")


def test_proposals_are_cleaned_and_can_be_used():
    said = [
        {"name": "Mood ", "description": "how it\nfeels", "values": ["Calm", "calm", "tense"]},
        {"name": "mood", "description": "again", "values": []},
        {"name": "era", "description": "when", "values": ["old"]},
    ]
    llm = Fake(json.dumps({"factors": said}))
    found = propose_factors(llm, "films", ["Alien", "Heat"], "film")
    assert [(f.name, f.description, f.values) for f in found.factors] == [
        ("mood", "how it feels", ("calm", "tense")),
        ("era", "when", ()),  # one value is none
    ]
    assert "- Alien" in llm.asked[0].messages[-1].text


def test_a_useless_proposal_is_an_error():
    with pytest.raises(InputError, match="proposed no factors"):
        propose_factors(Fake("I think"), "films", ["Alien"])
