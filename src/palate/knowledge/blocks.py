"""What a student sees of an item beside its text: blocks of features, each row of unit length, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from palate.data.dataset import Dataset, FloatArray
from palate.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Block = Literal["categories", "company", "taste"]
_WIDTHS = {"company": 128, "taste": 64}


def side_by_side(blocks: Sequence[FloatArray]) -> FloatArray:
    """[n_items, sum of widths]: every block weighs the same, whatever its units.

    A row of zeros, or with a NaN (a file that could not be read, an item that nobody met), stays zero: nothing known.

    Raises:
        InputError: Blocks of different numbers of items.
    """
    lengths = [len(block) for block in blocks]
    if len(set(lengths)) != 1:
        raise InputError("Blocks of features must have one row an item.", got=lengths)
    known = [np.where(np.isfinite(block).all(axis=1, keepdims=True), block, 0.0) for block in blocks]
    lengthy = [(block, np.linalg.norm(block, axis=1, keepdims=True)) for block in known]
    return np.hstack([block / np.where(norm > 0, norm, 1.0) for block, norm in lengthy]).astype(np.float32)


def item_blocks(train: Dataset, names: Sequence[Block]) -> list[FloatArray]:
    """The named blocks of all items of `train`, whose events must be training events alone.

    categories: one column each. company: who met the item, as the leading singular vectors of the user-item matrix
    scaled by the square roots of its row and column sums. taste: how those who met it valued it, as those of the values
    less each user's mean, scaled alike. A block that the data cannot fill (no categories, no values) is left out.
    """
    made = {"categories": _categories, "company": _company, "taste": _taste}
    found = [made[name](train) for name in names]
    return [block for block in found if block.shape[1]]


def _categories(dataset: Dataset) -> FloatArray:
    listed = [categories or [] for categories in dataset.items["categories"].to_list()]
    names = sorted({name for categories in listed for name in categories})
    columns = {name: column for column, name in enumerate(names)}
    block = np.zeros((dataset.n_items, len(names)), dtype=np.float32)
    for row, categories in enumerate(listed):
        block[row, [columns[name] for name in categories]] = 1.0
    return block


def _company(dataset: Dataset) -> FloatArray:
    ones = np.ones(dataset.events.height)
    return _leading(_scaled(dataset, ones), _WIDTHS["company"])


def _taste(dataset: Dataset) -> FloatArray:
    users = dataset.events["user_num"].to_numpy()
    values = dataset.events["value"].cast(float).to_numpy()
    valued = np.isfinite(values)
    if not valued.any():
        return np.zeros((dataset.n_items, 0), dtype=np.float32)
    sums = np.bincount(users[valued], values[valued], dataset.n_users)
    means = sums / np.maximum(np.bincount(users[valued], minlength=dataset.n_users), 1)
    return _leading(_scaled(dataset, np.where(valued, values - means[users], 0.0)), _WIDTHS["taste"])


def _scaled(dataset: Dataset, values: npt.NDArray[np.float64]) -> csr_matrix:
    """`values` of the events as [n_users, n_items], over the roots of how often user and item occur."""
    from scipy.sparse import csr_matrix

    users, items = dataset.events["user_num"].to_numpy(), dataset.events["item_num"].to_numpy()
    of_user = np.bincount(users, minlength=dataset.n_users)
    of_item = np.bincount(items, minlength=dataset.n_items)
    scale = np.sqrt(of_user[users] * of_item[items].astype(np.float64))
    return csr_matrix((values / scale, (users, items)), (dataset.n_users, dataset.n_items))


def _leading(matrix: csr_matrix, width: int) -> FloatArray:
    """Right singular vectors times their values, the greatest first, [n_items, width]; fewer for a small matrix."""
    from scipy.sparse.linalg import svds

    width = min(width, min(matrix.shape) - 1)
    if width < 1 or not np.abs(matrix.data).sum():
        return np.zeros((matrix.shape[1], 0), dtype=np.float32)
    _, lengths, right = svds(matrix, k=width, v0=np.ones(min(matrix.shape)))  # a fixed start: the same every time
    order = np.argsort(-lengths)
    return np.asarray(right[order].T * lengths[order], dtype=np.float32)
