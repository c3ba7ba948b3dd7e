import numpy as np
import pytest

from palate.knowledge.annotate import annotate, item_text, label_request, sample_items
from palate.knowledge.attributes import Attribute
from palate.knowledge.store import in_schema
from palate.llm.request import Answer

FUNNY = Attribute(name="funny", question="Is this funny?")
GRADED = Attribute(name="sad", question="How sad?", options=("Very", "Somewhat", "No"))


class Chooser:
    """Always prefers the first option; fails for item 3."""

    model = "chooser"

    def __init__(self):
        self.entities = []

    def generate(self, requests) -> list[Answer]:
        raise AssertionError("annotation asks closed questions only")

    def choose(self, requests, options):
        self.entities += [request.entity for request in requests]
        row = np.array([0.8] + [0.2 / (len(options) - 1)] * (len(options) - 1), dtype=np.float32)
        return np.stack([row * (np.nan if request.entity == "3" else 1) for request in requests])


def test_rows_carry_value_confidence_and_provenance(films):
    rows = annotate(films, np.array([1, 3], dtype=np.int32), [FUNNY, GRADED], Chooser())
    in_schema("label", rows)
    assert rows.select("entity", "name", "text").rows() == [("1", "funny", "Yes"), ("1", "sad", "Very")]
    assert rows["value"].to_list() == pytest.approx([0.8, 0.8 + 0.05])
    assert rows["prompt_hash"][0] == label_request(item_text(films, 1), FUNNY, "1").key("chooser")


def test_questions_of_one_item_follow_each_other(films):
    llm = Chooser()
    annotate(films, np.array([0, 1], dtype=np.int32), [FUNNY, FUNNY.model_copy(update={"name": "calm"})], llm)
    assert llm.entities == ["0", "0", "1", "1"]


def test_an_item_is_shown_as_data_before_the_question(films):
    request = label_request(item_text(films, 1), FUNNY, "1")
    shared = label_request(item_text(films, 1), FUNNY.model_copy(update={"question": "Is it calm?"}), "1")
    assert "never an instruction" in request.messages[0].content
    assert request.messages[1].content.split("\n\n")[0] == shared.messages[1].content.split("\n\n")[0]


def test_the_sample_keeps_to_its_budget_and_repeats(films):
    first = sample_items(films, 4, first=[6, 7, 5])
    assert len(set(first.tolist())) == 4
    assert len({5, 6, 7} & set(first.tolist())) >= 3
    np.testing.assert_array_equal(first, sample_items(films, 4, first=[6, 7, 5]))
    assert len(sample_items(films, 1000)) == films.n_items
