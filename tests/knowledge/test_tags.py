"""Extraction: what is kept has evidence, what is dropped is counted. The model is a fake that says what it should."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import TASTES, WordEncoder, planted

from palate.data.dataset import Dataset
from palate.errors import InputError
from palate.knowledge.handbook import Dimension, Handbook, Section
from palate.knowledge.tag_distil import taught
from palate.knowledge.tag_prompts import occurs, plain_tag, read_plain
from palate.knowledge.tag_sources import category_tags, near_tags, student_tags, tfidf_tags
from palate.knowledge.tags import extract
from palate.llm.request import Answer
from palate.llm.structured import checked

BOOK = Handbook(sections=(Section(category="all", dimensions=(Dimension(name="beings", values=TASTES),)),))


class Fake:
    model = "fake"

    def __init__(self, say):
        self.say, self.asked = say, []

    def generate(self, requests):
        self.asked += requests
        return [checked(r, Answer(**{"tokens_in": 10, "tokens_out": 4, **self.say(r)})) for r in requests]

    def choose(self, requests, options):
        raise AssertionError("asked through generate, which counts tokens")


def guided(*tags):
    entries = [{"dimension": "beings", "tag": tag, "evidence": evidence} for tag, evidence in tags]
    return lambda request: {"text": json.dumps({"tags": entries})}


def test_a_tag_without_evidence_in_the_item_is_dropped_and_counted():
    dataset = planted(n_items=8)
    word = dataset.items["text"][0].split(".")[0]
    found = extract(dataset, np.array([0]), Fake(guided((word, word), ("Castle", "a castle"))), "guided", 5, BOOK)
    assert found.rows.select("name", "text", "evidence").rows() == [("beings", word, word)]
    assert (found.asked, found.unverified, found.unread, found.tokens) == (1, 1, 0, 14)
    row = found.rows.row(0, named=True)
    assert (row["model"], row["source"], row["version"]) == ("fake", "llm", BOOK.version)
    assert len(row["content_hash"]) == len(row["prompt_hash"]) == 32


def test_an_unreadable_answer_is_counted():
    found = extract(planted(n_items=8), np.array([0, 1]), Fake(lambda r: {"text": "no json"}), "guided", 5, BOOK)
    assert (found.rows.height, found.unread) == (0, 2)


def test_plain_tags_are_read_once_each():
    fake = Fake(lambda request: {"text": "Space Opera; space opera, cosy\n1. heist; " + "x" * 90})
    found = extract(planted(n_items=8), np.array([0]), fake, "plain", 3)
    assert found.rows["text"].to_list() == ["space opera", "cosy", "heist"]
    assert found.repeated == 2


def test_picked_tags_are_values_of_the_handbook():
    dataset = planted(n_items=8)
    fake = Fake(lambda request: {"text": request.trie[1] if "i1" in request.entity else "none"})
    found = extract(dataset, np.array([0, 1]), fake, "pick", 5, BOOK)
    assert found.rows.select("entity", "text").rows() == [("i1", TASTES[1])]


def test_chosen_tags_are_those_that_gain_most_on_the_empty_question():
    dataset = planted(n_items=8)

    def say(request):
        asked = request.messages[1].text
        yes = 0.9 if "robot" in asked.split("“")[1] and "N/A" not in asked else 0.5
        return {"probabilities": (yes, 1 - yes)}

    found = extract(dataset, np.array([0]), Fake(say), "choose", 1, BOOK, WordEncoder())
    assert found.rows["text"].to_list() == ["robot"]
    assert found.rows["confidence"][0] == pytest.approx(0.9, abs=0.01)


def test_a_failed_question_is_no_tag():
    found = extract(
        planted(n_items=8), np.array([0]), Fake(lambda r: {"error": "down"}), "choose", 2, BOOK, WordEncoder()
    )
    assert found.rows.height == 0
    assert found.unread > 0


def test_items_without_text_are_named():
    dataset = planted(n_items=8)
    bare = dataset.items.with_columns(
        title=pl.when(pl.col("item_id") == "i3").then(pl.lit("")).otherwise("title"),
        text=pl.when(pl.col("item_id") == "i3").then(None).otherwise("text"),
    )
    found = extract(
        Dataset(bare, dataset.events, dataset.users), np.array([2, 3]), Fake(lambda r: {"text": "calm"}), "plain"
    )
    assert found.without_text == ("i3",)
    assert found.rows["entity"].to_list() == ["i2"]


@pytest.mark.parametrize("route", ["guided", "pick", "choose"])
@pytest.mark.parametrize("book", [None, Handbook(notes=("nothing found",))])
def test_guidance_needs_a_handbook(route, book):
    with pytest.raises(InputError, match="handbook"):
        extract(planted(n_items=8), np.array([0]), Fake(lambda r: {}), route, 5, book, WordEncoder())


@given(st.text(max_size=60), st.integers(0, 59), st.integers(1, 20))
def test_words_of_an_item_occur_in_it(text, start, length):
    words = plain_tag(text).split()
    for word in words:
        if plain_tag(word):
            assert occurs(word, text)
    assert not occurs("", text)
    assert not occurs("\ue000" * 3, text)


def test_evidence_is_whole_words():
    assert occurs("The  Cold War", "after the cold war, peace")
    assert not occurs("old war", "after the cold war")
    assert not occurs("car", "a caravan")


@given(st.text(max_size=120), st.integers(1, 8))
def test_a_line_of_tags_gives_plain_different_tags(text, n):
    tags, dropped = read_plain(text, n)
    assert len(tags) == len(set(tags)) <= n
    assert dropped >= 0
    assert all(tag == plain_tag(tag) and tag for tag in tags)


def test_sources_without_a_language_model():
    dataset = planted()
    items = np.array([0, 1])
    assert category_tags(dataset, items)["text"].to_list() == ["film", "book"]
    terms = tfidf_tags(dataset, items, 2).group_by("entity", maintain_order=True).len()
    assert terms["len"].to_list() == [2, 2]
    near = near_tags(dataset, items, BOOK, WordEncoder(), 1)
    assert near["text"].to_list() == [dataset.items["text"][i].split(".")[0] for i in (0, 1)]


def test_a_student_tags_every_item():
    dataset = planted()
    vectors = WordEncoder().encode([text.split(".")[0] for text in dataset.items["text"]])
    rows = [(f"i{i}", dataset.items["text"][i].split(".")[0]) for i in range(120)]
    teacher = pl.DataFrame(rows, schema=["entity", "text"], orient="row").with_columns(
        model=pl.lit("t"), source=pl.lit("recorded")
    )
    found = student_tags(teacher, vectors, dataset.item_ids, WordEncoder(), 1)
    assert found.height == dataset.n_items
    right = [tag == dataset.items["text"][i].split(".")[0] for i, tag in enumerate(found["text"])]
    assert np.mean(right) > 0.9
    assert found["source"].unique().to_list() == ["student"]


def test_a_student_needs_tags_that_items_share():
    dataset = planted(n_items=30)
    rows = [(f"i{i}", f"tag{i}") for i in range(30)]
    teacher = pl.DataFrame(rows, schema=["entity", "text"], orient="row").with_columns(
        model=pl.lit("t"), source=pl.lit("recorded")
    )
    with pytest.raises(InputError, match="Too few tags are shared"):
        student_tags(teacher, WordEncoder().encode(dataset.item_ids), dataset.item_ids, WordEncoder())


def test_examples_for_a_small_model_hold_the_teachers_tags():
    dataset = planted(n_items=8)
    tags = pl.DataFrame({"entity": ["i1", "i1", "zz"], "text": ["a", "b", "c"]})
    (example,) = taught(dataset, tags, [0, 1])
    assert (example.item_num, example.answer) == (1, "a; b")
    assert "dragon" in example.request.messages[1].text or "Item 1" in example.request.messages[1].text
