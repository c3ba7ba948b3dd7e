"""Do clicks tell a dimension apart? Its information about them, beside what chance gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from palate.data.dataset import Dataset
from palate.evaluation.discovery import mutual_information
from palate.knowledge.clicks import ClickPairs, strata

Array = npt.NDArray[np.float64]
_BANDS = 5  # of popularity, within which values are permuted
_ROUND, _BEATEN = 100, 10


@dataclass(frozen=True)
class Information:
    """Of each dimension [n_dimensions]. `seen`: any clicked or matched item shares it; else there is no test."""

    lift: Array
    bits: Array
    p: Array
    seen: npt.NDArray[np.bool_]


def information(
    dataset: Dataset, pairs: ClickPairs, incidence: Any, members: Any, permutations: int, seed: int = 0
) -> Information:
    """Lift, mutual information and one-sided p-value of each dimension.

    An item *shares* a dimension with a history where it has a value that the history has more often than traffic as a
    whole. The lift is how much oftener clicked items share than their matched ones; under the null the values of items
    are permuted among items of the same first category and about the same popularity.

    Args:
        dataset: Training events.
        incidence: CSR [n_items, n_values], 1 where an item has a value.
        members: CSR [n_values, n_dimensions], 1 where a value belongs to a dimension.
    """
    history = _history_matrix(pairs, dataset.n_items)
    traffic = dataset.item_counts / max(1, dataset.item_counts.sum())
    clicked, matched = _shared(history, pairs, incidence, members, traffic)
    lift = clicked.mean(axis=0) - matched.mean(axis=0)

    def permuted(rows: npt.NDArray[np.int64], alive: npt.NDArray[np.int64]) -> Array:
        own = members[:, alive]
        values = np.flatnonzero(np.asarray(own.sum(axis=1)).ravel())
        sides = _shared(history, pairs, incidence[rows][:, values], own[values], traffic)
        return np.asarray(sides[0].mean(axis=0) - sides[1].mean(axis=0))

    p = _sequential_p(lift, permuted, _bands(dataset), permutations, seed)
    yes, no, n = clicked.sum(axis=0), matched.sum(axis=0), len(pairs)
    table = np.stack([np.stack([yes, n - yes], -1), np.stack([no, n - no], -1)], -2)
    return Information(lift, mutual_information(table), p, (yes + no) > 0)


def _sequential_p(
    lift: Array,
    permuted: Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], Array],
    bands: list[npt.NDArray[np.int64]],
    permutations: int,
    seed: int,
) -> Array:
    """One-sided p-values; a dimension that chance has beaten `_BEATEN` times in a round is permuted no more.

    Sequential Monte Carlo p-values after Besag & Clifford (1991).
    """
    rng = np.random.default_rng(seed)
    p, alive = np.ones(len(lift)), np.arange(len(lift))
    beaten, done = np.zeros(len(lift)), 0
    while done < permutations and len(alive):
        for _ in range(min(_ROUND, permutations - done)):
            beaten[alive] += permuted(_within(bands, rng), alive) >= lift[alive] - 1e-12
            done += 1
        p[alive] = (1 + beaten[alive]) / (1 + done)
        alive = alive[beaten[alive] < _BEATEN]
    return p


def _history_matrix(pairs: ClickPairs, n_items: int) -> Any:
    from scipy.sparse import csr_matrix

    rows = np.repeat(np.arange(len(pairs)), [len(history) for history in pairs.histories])
    columns = np.concatenate([*pairs.histories, np.zeros(0, np.int32)])
    return csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(len(pairs), n_items))


def _shared(history: Any, pairs: ClickPairs, incidence: Any, members: Any, traffic: Array) -> tuple[Array, Array]:
    """Whether the clicked and the matched item share each dimension with the history, both [n_pairs, n_dimensions]."""
    counts = (history @ incidence).tocsr()
    lengths = np.asarray(history.sum(axis=1)).ravel()
    usual = np.asarray(incidence.T @ traffic).ravel()
    sides = []
    for items in (pairs.clicked, pairs.matched):
        cells = incidence[items].multiply(counts).tocoo()
        liked = cells.data > lengths[cells.row] * usual[cells.col]
        cells.data = liked.astype(np.float32)
        sides.append(np.asarray((cells.tocsr() @ members).toarray() > 0, dtype=np.float64))
    return sides[0], sides[1]


def _bands(dataset: Dataset) -> list[npt.NDArray[np.int64]]:
    """Items of the same first category, in bands of popularity."""
    group, counts = strata(dataset), dataset.item_counts
    bands = []
    for number in np.unique(group):
        items = np.flatnonzero(group == number)
        bands += np.array_split(items[np.argsort(counts[items], kind="stable")], min(_BANDS, len(items)))
    return bands


def _within(bands: list[npt.NDArray[np.int64]], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """A permutation of the items that leaves each in its band."""
    order = np.empty(sum(map(len, bands)), dtype=np.int64)
    for band in bands:
        order[band] = rng.permutation(band)
    return order
