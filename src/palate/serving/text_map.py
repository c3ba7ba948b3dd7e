"""From a text's vector to where its item would lie: new items get a vector and labels before anyone has met them.

A linear map by ridge regression from what is known of an item to the space a model has learned (Gantner et al. 2010,
"Learning attribute-to-feature mappings for cold-start recommendations", ICDM). The same regression learns the logits of
the attributes: a student of whoever labelled the catalogue, that reads the text alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray

RIDGE = 1.0
_SURE = 1e-3  # probabilities are kept so far from 0 and 1 that their logits are finite


def fit_text_map(
    texts: FloatArray, vectors: FloatArray, attributes: Mapping[str, npt.NDArray[np.floating]]
) -> FloatArray:
    """Learn it: [text's width + 1, d + n_attributes], the last row for the constant.

    Args:
        texts: Unit vectors of the items' texts, [n_items, width].
        vectors: The items' vectors, [n_items, d], in the same order.
        attributes: Probabilities [n_items] by name.
    """
    sure = [np.clip(np.asarray(row, dtype=np.float64), _SURE, 1 - _SURE) for row in attributes.values()]
    targets = np.column_stack([vectors.astype(np.float64), *(np.log(p / (1 - p)) for p in sure)])
    known = _with_constant(texts)
    gram = known.T @ known + RIDGE * np.eye(known.shape[1])
    return np.asarray(np.linalg.solve(gram, known.T @ targets), dtype=np.float32)


def placed(text_map: FloatArray, texts: FloatArray, d: int, length: float) -> tuple[FloatArray, FloatArray]:
    """Vectors [n, d] of one length, since a regression draws them to the mean; probabilities [n, n_attributes]."""
    found = _with_constant(texts) @ text_map
    vectors, logits = found[:, :d], found[:, d:]
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return (vectors * length / lengths).astype(np.float32), (1 / (1 + np.exp(-logits))).astype(np.float32)


def _with_constant(texts: FloatArray) -> npt.NDArray[np.float64]:
    return np.column_stack([texts, np.ones(len(texts))]).astype(np.float64)
