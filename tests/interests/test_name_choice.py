"""Keywords or titles: held-out items choose, others report."""

import numpy as np
import pytest

from palate.errors import InputError
from palate.interests.name_choice import FROM_ITEMS, FROM_KEYWORDS, KEYWORDS, choose_names
from palate.interests.names import name_nodes
from palate.interests.tree import TreeConfig, build_tree
from palate.llm.request import Answer

TOPICS = ("crime", "comedy", "war", "romance")
TOPIC = np.arange(160) % 4
ITEM_VECTORS = np.eye(4, dtype=np.float32)[TOPIC]


class OneHot:
    """Encodes a text as the topics it names, in the words of `known`."""

    name, width = "one-hot", 4

    def __init__(self, known):
        self.known = known

    def encode(self, texts):
        return np.array([[word in text for word in self.known] for text in texts], dtype=np.float32)


class Naming:
    """Says of each node what `words` has for the topics of its keywords."""

    model = "naming"

    def __init__(self, words):
        self.words, self.requests = words, []

    def generate(self, requests):
        self.requests += requests
        own = [request.messages[-1].text.rpartition("Keywords of this group: ")[2] for request in requests]
        return [Answer(" and ".join(w for t, w in zip(TOPICS, self.words, strict=True) if t in text)) for text in own]


def chosen(judge_words, said):
    vectors = np.eye(4, 8)[TOPIC] + np.random.default_rng(0).normal(size=(160, 8)) * 0.05
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    words = [[TOPICS[t], f"word{i % 3}"] for i, t in enumerate(TOPIC)]
    tree = name_nodes(build_tree(vectors, np.ones(160), TreeConfig(branching=(2, 2))), words)
    titles = [f"Item {i} of {TOPICS[t]}" for i, t in enumerate(TOPIC)]
    llm = Naming(said)
    return choose_names(tree, words, (), titles, ITEM_VECTORS, OneHot(judge_words), llm), tree, llm


@pytest.mark.slow
def test_titles_that_tell_more_apart_take_the_place_of_keywords():
    found, tree, _ = chosen(("sleuths", "jokes", "battles", "kisses"), ("sleuths", "jokes", "battles", "kisses"))
    assert found.chosen == FROM_KEYWORDS
    titles = [node.title for node in found.tree.nodes]
    assert sorted(titles[3:]) == ["battles", "jokes", "kisses", "sleuths"]
    assert [node.keywords for node in found.tree.nodes] == [node.keywords for node in tree.nodes]
    leaves = {each.told.names: each for each in found.judged if each.told.level == 2}
    assert leaves[FROM_KEYWORDS].told.right.mean == 1.0
    assert leaves[KEYWORDS].told.right.mean < 0.8  # the judge knows none of these words
    assert leaves[KEYWORDS].gain is None
    assert leaves[FROM_KEYWORDS].gain.low > 0


def test_keywords_stay_where_titles_are_worse_or_no_better():
    for said in (("a thing", "more things", "other things", "last things"), TOPICS):
        found, tree, _ = chosen(TOPICS, said)
        assert found.chosen == KEYWORDS
        assert found.tree == tree


def test_no_held_out_item_is_evidence_and_none_that_chose_reports():
    found, _, llm = chosen(TOPICS, TOPICS)
    held = np.random.default_rng(0).random(160) < 0.3
    shown = "\n".join(request.messages[-1].text for request in llm.requests)
    assert not any(f"Item {i} of" in shown for i in np.flatnonzero(held))
    assert any(f"Item {i} of" in shown for i in np.flatnonzero(~held))
    assert {each.told.items for each in found.judged} == {held.sum() // 2}
    assert set(found.outcomes) == {FROM_KEYWORDS, FROM_ITEMS}


def test_too_few_items_are_said():
    tree = name_nodes(build_tree(np.eye(2, dtype=np.float32), np.ones(2), TreeConfig(branching=(2,))), [["a"], ["b"]])
    with pytest.raises(InputError, match="too few items"):
        choose_names(tree, [["a"], ["b"]], (), ["a", "b"], np.eye(2, dtype=np.float32), OneHot(TOPICS), Naming(TOPICS))
