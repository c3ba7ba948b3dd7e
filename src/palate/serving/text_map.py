"""From a text's vector to where its item would lie: new items get vector, labels and leaf before anyone has met them.

A linear map by ridge regression from what is known of an item to the space a model has learned (Gantner et al. 2010,
"Learning attribute-to-feature mappings for cold-start recommendations", ICDM). Items count by their events: the learned
vector of one that nobody met is where training began. The same regression learns the logits of the attributes: a
student of whoever labelled the catalogue, that reads the text alone. A leaf of the interest tree is the one whose
items' texts are nearest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray, IntArray
from palate.interests.tree import InterestTree
from palate.interests.vectors import unit_rows

# Chosen on items held out of the bundled sample (docs/serving.md).
RIDGE, RIDGE_OF_LABELS = 3.0, 1.0
_MOST_EVENTS, _EVENTS = 50, 10.0  # an item counts as its events over `_EVENTS`, those beyond `_MOST_EVENTS` not
_SURE = 1e-3  # probabilities are kept so far from 0 and 1 that their logits are finite
_NO_ITEMS = -2.0  # below any cosine


@dataclass(frozen=True)
class Placed:
    """Where items would lie."""

    vectors: FloatArray  # [n, d]
    probabilities: FloatArray  # [n, n_attributes]
    leaves: IntArray  # [n], nodes


def fit_text_map(
    texts: FloatArray,
    vectors: FloatArray,
    attributes: Mapping[str, npt.NDArray[np.floating]],
    tree: InterestTree,
    events: npt.NDArray[np.number],
) -> FloatArray:
    """Learn it: [text's width + 1, d + n_attributes + n_leaves]; the last row is for the constant.

    Args:
        texts: Unit vectors of the items' texts, [n_items, width].
        vectors: The items' vectors, [n_items, d], in the same order, as all here.
        attributes: Probabilities [n_items] by name.
        events: [n_items], how often each was chosen.
    """
    known = _with_constant(texts)
    weights = np.minimum(events, _MOST_EVENTS) / _EVENTS if np.any(events) else np.ones(len(texts))
    sure = [np.clip(np.asarray(row, dtype=np.float64), _SURE, 1 - _SURE) for row in attributes.values()]
    logits = np.array([np.log(p / (1 - p)) for p in sure]).reshape(len(sure), len(texts)).T
    by_vectors = _ridge(known, vectors.astype(np.float64), weights, RIDGE)
    by_labels = _ridge(known, logits, np.ones(len(texts)), RIDGE_OF_LABELS)
    return np.column_stack([by_vectors, by_labels, _leaf_scores(texts, tree)]).astype(np.float32)


def placed(text_map: FloatArray, texts: FloatArray, d: int, tree: InterestTree, length: float) -> Placed:
    """Of texts [n, width]. Vectors have the `length` that is usual, since a regression draws them to the mean."""
    leaves = tree.at_level(tree.depth)
    found = _with_constant(texts) @ text_map
    vectors, logits, scores = np.split(found, [d, found.shape[1] - len(leaves)], axis=1)
    nearest = np.array([leaf.node for leaf in leaves], dtype=np.int32)[scores.argmax(axis=1)]
    chances = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return Placed(unit_rows(vectors.astype(np.float32)) * np.float32(length), chances, nearest)


def _ridge(
    known: npt.NDArray[np.float64], targets: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], ridge: float
) -> npt.NDArray[np.float64]:
    weighted = known * weights[:, None]
    gram = known.T @ weighted + ridge * np.eye(known.shape[1])
    return np.asarray(np.linalg.solve(gram, weighted.T @ targets), dtype=np.float64)


def _leaf_scores(texts: FloatArray, tree: InterestTree) -> FloatArray:
    """Columns that make of a text its cosine with the mean text of each leaf, [width + 1, n_leaves]."""
    leaves = tree.at_level(tree.depth)
    scores = np.zeros((texts.shape[1] + 1, len(leaves)), dtype=np.float32)
    for column, leaf in enumerate(leaves):
        own = texts[tree.order[leaf.start : leaf.stop]]
        if len(own):
            scores[:-1, column] = unit_rows(own.mean(axis=0, keepdims=True))[0]
        else:
            scores[-1, column] = _NO_ITEMS
    return scores


def _with_constant(texts: FloatArray) -> npt.NDArray[np.float64]:
    return np.column_stack([texts, np.ones(len(texts))]).astype(np.float64)
