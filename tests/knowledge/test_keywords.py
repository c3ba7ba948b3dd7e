import numpy as np

from palate.knowledge.keywords import class_tf_idf, document_tokens, group_keywords


def test_document_tokens_keep_labels_whole_and_count_them_more():
    tokens = document_tokens("The Big Sleep, the sleep of 1946", ["film noir"])
    assert tokens.count("sleep") == 1
    assert tokens.count("film noir") == 3
    assert "1946" not in tokens


def test_worth_by_hand():
    # Two groups of four words each; "sea" fills half of the first, "film" a quarter of both.
    within = np.array([[2, 1, 1, 0], [0, 1, 0, 3.0]])
    worth = class_tf_idf(within)
    np.testing.assert_allclose(worth[0, 0], 2 / 4 * np.log(1 + 4 / 2))
    np.testing.assert_allclose(worth[1, 1], 1 / 4 * np.log(1 + 4 / 2))


def test_groups_are_told_apart_by_their_own_words():
    documents = [["sea", "ship", f"once{n}"] for n in range(3)] + [["war", "film"]] * 3
    groups = np.array([0, 0, 0, 1, 1, 1])
    sea, war = group_keywords(documents, groups, stop_words=["film"])
    assert (set(sea), war) == ({"sea", "ship"}, ["war"])


def test_nothing_has_no_keywords():
    assert group_keywords([], np.zeros(0, dtype=np.int64), stop_words=[]) == []
