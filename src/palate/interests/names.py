"""Names of interests: the words that tell a node from its siblings and from the rest of its level."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from palate.errors import InputError
from palate.interests.tree import InterestTree, Node
from palate.knowledge.keywords import Counts, class_tf_idf, count_words, english_stop_words, without_variants


def name_nodes(
    tree: InterestTree,
    documents: Sequence[Sequence[str]],
    stop_words: Iterable[str] | None = None,
    *,
    n_keywords: int = 8,
    title_words: int = 3,
) -> InterestTree:
    """The tree with `keywords` and a `title` for each node ("crime, noir, detective"); the root is "everything".

    A word's worth for a node is its c-TF-IDF over the nodes of the level (Grootendorst 2022, arXiv 2203.05794,
    eq. 2: tf · log(1 + A / f)) times the squared share of its rate that falls to the node among its siblings. Words
    that fewer than two items (or 2% of the node) have are no name. Titles are unique on their level by
    construction, hold no comma or line break within a word, and are the same for the same input.

    Args:
        tree: Of `len(documents)` items.
        documents: Tokens of each item, row = item_num (see `palate.knowledge.keywords.document_tokens`); repeats count.
        stop_words: Words that name nothing, lower case; None: the commonest English ones.
        n_keywords: Keywords kept for each node.
        title_words: Keywords in a title.

    Raises:
        InputError: if there is not one document for each item.
    """
    if len(documents) != len(tree.order):
        raise InputError(
            "There must be one document for each item of the tree", got=len(documents), allowed=len(tree.order)
        )
    counts, words = count_words(documents, english_stop_words() if stop_words is None else frozenset(stop_words))
    nodes = [replace(tree.nodes[0], title="everything", keywords=())]
    for level in range(1, tree.depth + 1):
        row = tree.at_level(level)
        taken: set[str] = set()
        for node, worth in zip(row, _worth(counts, tree, row), strict=True):
            ranked = [words[i] for i in np.argsort(-worth, kind="stable")[: 6 * n_keywords] if worth[i] > 0]
            keywords = without_variants(ranked)
            title = _title(keywords, title_words, node.node, taken)
            taken.add(title)
            nodes.append(replace(node, title=title, keywords=tuple(keywords[:n_keywords])))
    return InterestTree(tuple(nodes), tree.order)


def keep_titles(named: InterestTree, before: InterestTree) -> InterestTree:
    """`named` with the titles that its nodes, the same by number, had `before`: as long as they hold.

    A title holds while each of its words is among the node's keywords. So a few new items rename nothing, and what was
    asked of a language model under a title needs not be asked again. Titles stay unique on their level.
    """
    nodes = []
    for level in range(named.depth + 1):
        old = {node.title for node in before.at_level(level)}
        for node in named.at_level(level):
            title = before.nodes[node.node].title
            holds = bool(title) and {*title.split(", ")} <= {*node.keywords}
            nodes.append(replace(node, title=title) if holds or (title and node.title in old) else node)
    return InterestTree(tuple(nodes), named.order)


def _worth(counts: sp.csr_matrix, tree: InterestTree, row: list[Node]) -> Counts:
    """Worth of each word for each node of a level, [n_nodes, n_words]."""
    ordered = counts[tree.order]
    slices = [ordered[node.start : node.stop] for node in row]
    within = np.vstack([np.asarray(part.sum(axis=0)).ravel() for part in slices])  # [n_nodes, n_words]
    spread = np.vstack([np.asarray((part > 0).sum(axis=0)).ravel() for part in slices])
    sizes = np.array([node.stop - node.start for node in row])
    tf = within / np.maximum(within.sum(axis=1, keepdims=True), 1)
    worth = class_tf_idf(within)
    parents = np.array([node.parent for node in row])
    among = np.vstack([tf[parents == parent].sum(axis=0) for parent in parents])
    # Squared, or genres that all siblings share fill every title.
    worth *= np.divide(tf, among, out=np.zeros_like(tf), where=among > 0) ** 2
    worth[spread < np.maximum(2, 0.02 * sizes)[:, None]] = 0
    return np.asarray(worth)


def _title(keywords: list[str], n_words: int, node: int, taken: set[str]) -> str:
    """The first keywords; if that is taken, other last words, then the node's number."""
    if not keywords:
        return f"interest {node}"
    first, spare = keywords[: n_words - 1], keywords[n_words - 1 :]
    for last in spare or [""]:
        title = ", ".join([*first, last] if last else first)
        if title not in taken:
            return title
    return f"{', '.join(keywords[:n_words])} {node}"
