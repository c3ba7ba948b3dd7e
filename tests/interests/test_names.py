from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.errors import InputError
from palate.interests.names import keep_titles, name_nodes
from palate.interests.tree import InterestTree, Node


def two_by_two(leaf_size: int) -> InterestTree:
    """Root, two nodes, four leaves of `leaf_size` items, in item order."""
    n = 4 * leaf_size
    nodes = [Node(0, None, 0, 0, n, n), Node(1, 0, 1, 0, n // 2, n / 2), Node(2, 0, 1, n // 2, n, n / 2)]
    nodes += [Node(3 + i, 1 + i // 2, 2, i * leaf_size, (i + 1) * leaf_size, leaf_size) for i in range(4)]
    return InterestTree(tuple(nodes), np.arange(n, dtype=np.int32))


TOPICS = (["crime", "noir"], ["crime", "heist"], ["comedy", "slapstick"], ["comedy", "wedding"])


def documents(leaf_size: int) -> list[list[str]]:
    return [["film", "the", *topic, f"word{i}"] for topic in TOPICS for i in range(leaf_size)]


def test_a_node_is_named_by_what_its_siblings_lack() -> None:
    tree = name_nodes(two_by_two(10), documents(10))
    assert tree.nodes[0].title == "everything"
    assert [node.keywords[0] for node in tree.at_level(1)] == ["crime", "comedy"]
    # "crime" is common to both leaves, so the leaf's own word comes first.
    assert [node.keywords[0] for node in tree.at_level(2)] == ["noir", "heist", "slapstick", "wedding"]
    assert all("the" not in node.keywords for node in tree.nodes)


def test_titles_are_short_unique_and_stable() -> None:
    first, second = (name_nodes(two_by_two(10), documents(10)) for _ in range(2))
    assert first.nodes == second.nodes
    for level in (1, 2):
        titles = [node.title for node in first.at_level(level)]
        assert len(set(titles)) == len(titles)
        assert all(len(title.split(", ")) <= 3 for title in titles)


def test_a_title_stays_as_long_as_its_words_hold() -> None:
    before = name_nodes(two_by_two(10), documents(10))
    more = [[*words, *(["ship", "ship"] if words[3] == "noir" else [])] for words in documents(10)]
    renamed = name_nodes(two_by_two(10), more)
    kept = keep_titles(renamed, before)
    assert renamed.nodes[3].title != before.nodes[3].title == kept.nodes[3].title
    assert "ship" in kept.nodes[3].keywords  # they are as they are now
    other = [["film", *(["opera", "aria"] if words[3] == "heist" else words[2:])] for words in documents(10)]
    found = keep_titles(name_nodes(two_by_two(10), other), before)
    assert found.nodes[4].title not in {node.title for node in before.nodes} and "opera" in found.nodes[4].title
    for tree in (kept, found):
        for level in (1, 2):
            titles = [node.title for node in tree.at_level(level)]
            assert len({*titles}) == len(titles)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.lists(st.sampled_from(["a1", "crime", "noir", "x, y", "\n", "99", ""]), max_size=4), min_size=8, max_size=8
    )
)
def test_titles_are_unique_whatever_the_words(tokens: list[list[str]]) -> None:
    tree = name_nodes(two_by_two(2), tokens)
    for level in (1, 2):
        titles = [node.title for node in tree.at_level(level)]
        assert len(set(titles)) == len(titles)
        assert all(title and title.isprintable() for title in titles)


def test_bent_forms_and_rare_words_are_no_names() -> None:
    tokens = [["detective", "detectives", f"once{i}"] if i < 10 else ["garden"] for i in range(20)]
    tree = name_nodes(two_by_two(5), tokens)
    assert tree.nodes[1].keywords == ("detective",)


def test_one_document_an_item() -> None:
    with pytest.raises(InputError, match="one document for each item"):
        name_nodes(two_by_two(10), [])
