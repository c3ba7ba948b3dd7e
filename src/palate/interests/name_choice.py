"""Keywords or a model's titles? Whichever sends more held-out items to the right sibling, by names alone.

Items are held out of everything that names are made from. One half of them chooses, the other half reports.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray, IntArray
from palate.errors import InputError
from palate.evaluation.bootstrap import Interval, bootstrap_mean
from palate.interests.names import name_nodes
from palate.interests.naming import Told, distinctive_items, title_nodes, told_apart, unique_titles
from palate.interests.tree import InterestTree
from palate.llm.encoders import Encoder
from palate.llm.request import LLM

KEYWORDS, FROM_KEYWORDS, FROM_ITEMS = "keywords", "LLM, shown keywords", "LLM, shown keywords and items"
HELD_OUT = 0.3  # of the items
_SHOWN = 5  # items of a node


@dataclass(frozen=True)
class Judged:
    """Figures of the half that chose nothing; `gain` is the paired difference to the keywords, None of themselves."""

    told: Told
    gain: Interval | None


@dataclass(frozen=True)
class NameChoice:
    """The tree with the names that validation chose, and what each kind was worth."""

    tree: InterestTree
    chosen: str
    judged: tuple[Judged, ...]
    outcomes: dict[str, dict[str, int]]  # of the model's titles


def choose_names(
    named: InterestTree,
    documents: Sequence[Sequence[str]],
    stop_words: Iterable[str],
    item_titles: Sequence[str],
    vectors: FloatArray,
    judge: Encoder,
    llm: LLM,
    seed: int = 0,
) -> NameChoice:
    """Ask for titles in two ways, judge them beside the keywords, and keep what validation likes best.

    Args:
        named: The tree with keywords of all documents (`name_nodes`): it stays as it is where keywords win.
        documents: Tokens of each item.
        stop_words: Words that name nothing.
        item_titles: By item_num.
        vectors: [n_items, d] of the items' texts by `judge`, which sees names alone.
        judge: An encoder that had no part in making the names.

    Raises:
        InputError: Too few items to hold some out.
    """
    held = np.random.default_rng(seed).random(len(documents)) < HELD_OUT
    if held.sum() < 2:
        raise InputError("There are too few items to judge names by.", got=len(documents), allowed="about 10 or more")
    rest = [[] if out else document for document, out in zip(documents, held, strict=True)]
    plain = name_nodes(named, rest, stop_words)
    shown = distinctive_items(plain, vectors, ~held, _SHOWN)
    asked = {
        FROM_KEYWORDS: title_nodes(plain, [items[:0] for items in shown], item_titles, llm),
        FROM_ITEMS: title_nodes(plain, shown, item_titles, llm),
    }
    trees = {KEYWORDS: plain} | {kind: found.tree for kind, found in asked.items()}
    numbers = np.flatnonzero(held).astype(np.int32)
    choosing, reporting = numbers[::2], numbers[1::2]
    worth = {kind: _right(tree, vectors, judge, choosing)[1].mean() for kind, tree in trees.items()}
    chosen = max(worth, key=lambda kind: worth[kind])  # keywords are first: they win a tie
    return NameChoice(
        named if chosen == KEYWORDS else _with_titles(named, plain, trees[chosen]),
        chosen,
        tuple(_judged(trees, vectors, judge, reporting)),
        {kind: found.outcomes for kind, found in asked.items()},
    )


def _right(
    tree: InterestTree, vectors: FloatArray, judge: Encoder, items: IntArray
) -> tuple[list[Told], npt.NDArray[np.float64]]:
    """Of each level how often, and for every item and level whether, [levels * n]."""
    titles = [node.title for node in tree.nodes]
    found = [told_apart(tree, titles, vectors, judge, items, "", level) for level in range(1, tree.depth + 1)]
    return [told for told, _ in found], np.concatenate([right for _, right in found])


def _judged(trees: dict[str, InterestTree], vectors: FloatArray, judge: Encoder, items: IntArray) -> Iterable[Judged]:
    base = np.zeros(0)
    for kind, tree in trees.items():
        told, right = _right(tree, vectors, judge, items)
        base = right if kind == KEYWORDS else base
        for level, each in enumerate(told):
            part = slice(level * len(items), (level + 1) * len(items))
            gain = None if kind == KEYWORDS else bootstrap_mean(right[part] - base[part])
            yield Judged(replace(each, names=kind), gain)


def _with_titles(named: InterestTree, plain: InterestTree, titled: InterestTree) -> InterestTree:
    """`named` with the titles that the model gave, where they are no other node's."""
    pairs = zip(plain.nodes, titled.nodes, strict=True)
    given = {new.node: new.title for old, new in pairs if new.title != old.title}
    kept = unique_titles(named, given)
    nodes = tuple(replace(node, title=kept.get(node.node, node.title)) for node in named.nodes)
    return InterestTree(nodes, named.order)
