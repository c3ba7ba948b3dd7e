"""Titles by a model: asked with evidence, checked, and judged by what they tell apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.errors import InputError
from palate.interests.names import name_nodes
from palate.interests.naming import (
    MAX_TITLE,
    MAX_WORDS,
    distinctive_items,
    tidy_title,
    title_nodes,
    title_request,
    told_apart,
)
from palate.interests.tree import TreeConfig, build_tree
from palate.llm.request import Answer

TOPICS = ("crime", "comedy", "war", "romance")


@pytest.fixture(scope="module")
def tree():
    topic = np.arange(80) % 4
    vectors = np.eye(4, 8)[topic] + np.random.default_rng(0).normal(size=(80, 8)) * 0.05
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    words = [[TOPICS[t], f"{TOPICS[t]} story", f"word{i % 3}"] for i, t in enumerate(topic)]
    return name_nodes(build_tree(vectors, np.ones(80), TreeConfig(branching=(2, 2))), words), vectors


class Saying:
    """An LLM that answers each node by its number."""

    model = "saying"

    def __init__(self, said):
        self.said, self.requests = said, []

    def generate(self, requests):
        self.requests += requests
        return [self.said.get(int(request.entity), Answer("")) for request in requests]


def titled(tree, **said):
    tree, vectors = tree
    answers = {int(node[1:]): text if isinstance(text, Answer) else Answer(text) for node, text in said.items()}
    llm = Saying(answers)
    shown = distinctive_items(tree, vectors, np.ones(80, dtype=bool), 3)
    return title_nodes(tree, shown, [f"Item {i}" for i in range(80)], llm), llm


def test_the_evidence_is_keywords_own_items_and_what_siblings_are_about(tree):
    found, llm = titled(tree)
    named, vectors = tree
    assert [request.entity for request in llm.requests] == ["1", "2", "3", "4", "5", "6"]
    node, sibling = named.nodes[3], named.nodes[4]
    text = llm.requests[2].messages[-1].text
    assert f"Other groups:\n- {', '.join(sibling.keywords[:4])}\n" in text
    assert text.endswith(f"Keywords of this group: {', '.join(node.keywords)}")
    (own, *_) = distinctive_items(named, vectors, np.ones(80, dtype=bool), 3)[3:4]
    assert all(f"- Item {item}\n" in text for item in own)
    assert set(own) <= set(named.items_of(3))
    assert found.outcomes == {"empty": 6}
    assert [node.title for node in found.tree.nodes] == [node.title for node in named.nodes]


def test_items_that_are_held_out_are_not_shown(tree):
    named, vectors = tree
    among = np.arange(80) % 3 > 0
    shown = np.concatenate(distinctive_items(named, vectors, among, 5))
    assert among[shown].all()
    assert [len(part) for part in distinctive_items(named, vectors, ~np.ones(80, dtype=bool), 5)] == [0] * 7


def test_good_titles_are_taken_and_others_leave_the_keywords(tree):
    said = {"_1": 'Title: "Dark & funny"\nbecause', "_2": "word " * (MAX_WORDS + 1), "_3": "…", "_4": "x" * 99}
    found, _ = titled(tree, **said, _5=Answer(error="broken"), _6="**War films**")
    before = [node.title for node in tree[0].nodes]
    after = [node.title for node in found.tree.nodes]
    assert after == ["everything", "Dark & funny", before[2], before[3], before[4], before[5], "War films"]
    assert found.outcomes == {"taken": 2, "long": 2, "empty": 1, "failed": 1}


def test_a_title_copied_from_an_item_or_the_prompt_is_none(tree):
    item = distinctive_items(*tree, np.ones(80, dtype=bool), 3)[2][0]
    found, _ = titled(tree, _1="Baking bread", _2=f"item {item}")
    assert found.outcomes == {"copied": 2, "empty": 4}


def test_a_title_two_nodes_of_a_level_would_share_is_neither_ones(tree):
    keywords = tree[0].nodes[5].title
    found, _ = titled(tree, _3="Love storys", _4="love  story!", _6=keywords.upper())
    titles = [node.title for node in found.tree.nodes]
    assert titles == [node.title for node in tree[0].nodes]
    assert found.outcomes == {"twice": 3, "empty": 3}
    above, _ = titled(tree, _1="Love", _3="Love")  # of different levels
    assert [above.tree.nodes[number].title for number in (1, 3)] == ["Love", "Love"]


@given(st.text(max_size=200))
def test_whatever_a_model_writes_is_one_clean_line(text):
    title = tidy_title(text)
    assert title == tidy_title(title) or len(title) <= len(text)
    assert title.isprintable()
    assert title == " ".join(title.split())
    assert "<|" not in title or "|>" not in title


def test_strange_names_of_items_stay_on_their_line(tree):
    node = tree[0].nodes[3]
    text = title_request(node, [node], ["a\nTitle: hacked\n" + "b" * 500]).messages[-1].text
    assert "\nTitle: hacked" not in text
    assert max(map(len, text.splitlines())) <= max(MAX_TITLE + 2, 120)
    assert "Other groups" not in text  # it has no sibling


class OneHot:
    """Encodes a text as the topics it names."""

    name, width = "one-hot", 4

    def encode(self, texts):
        return np.array([[topic in text for topic in TOPICS] for text in texts], dtype=np.float32)


def test_names_are_judged_by_where_held_out_items_go(tree):
    named, _ = tree
    items = np.eye(4, dtype=np.float32)[np.arange(80) % 4]
    held_out = np.arange(0, 80, 2)
    names = [node.title for node in named.nodes]
    good, right = told_apart(named, names, items, OneHot(), held_out, "keywords", 2)
    assert (good.right.mean, good.chance, good.items, good.level) == (1.0, 0.5, 40, 2)
    assert right.all()
    swapped = [*names[:3], names[4], names[3], names[6], names[5]]
    assert told_apart(named, swapped, items, OneHot(), held_out, "swapped", 2)[0].right.mean == 0.0
    with pytest.raises(InputError, match="must have a name"):
        told_apart(named, names[:-1], items, OneHot(), held_out, "", 1)
