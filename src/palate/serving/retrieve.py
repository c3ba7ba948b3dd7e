"""Exact top-k under a restrict: items lie in leaf order, a node is a slice, an attribute a mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray, IntArray
from palate.data.query import Restrict
from palate.errors import InputError
from palate.interests.tree import InterestTree

Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Below this share of a slice it is cheaper to gather the rows than to read the slice through
# (`benchmarks/retrieval.py --plans` measures where the two cross).
GATHER_BELOW = 0.3
_GATHER_ROWS = 4096  # rows copied at a time: 1 MiB at 64 dimensions, stays in the L2 cache
_BLOCK = 256  # scores that share one maximum in the search for the k-th largest
_RESCORE_ROWS = 65_536
_UNIT = float(np.finfo(np.float32).eps) / 2  # relative error of one float32 operation
_TINY = float(np.finfo(np.float32).tiny)


class RestrictedIndex:
    """Exact maximum inner product search over the items that a restrict allows.

    Answers are those of brute force in double precision: float32 products choose the candidates, with a margin
    for their rounding, and float64 products order them. Equal scores are ordered by item_num, ascending. So an
    answer does not depend on which plan was taken: scan of a slice, gather of rows, or scan of everything.

    Args:
        vectors: [n_items, d] float32, row `p` is the item `tree.order[p]`; may be memory-mapped.
        tree: The interest tree.
        attributes: Name to mask [n_items] by item_num.

    Raises:
        InputError: for shapes that disagree, or a vector that is not finite.
    """

    def __init__(
        self, vectors: FloatArray, tree: InterestTree, attributes: Mapping[str, npt.NDArray[np.bool_]] | None = None
    ) -> None:
        if vectors.ndim != 2 or len(vectors) != len(tree.order) or vectors.dtype != np.float32:
            raise InputError(
                "The vectors do not fit the tree",
                got=f"{vectors.dtype} {vectors.shape}",
                allowed=f"float32 [{len(tree.order)}, d]",
            )
        self.vectors, self.tree = vectors, tree
        self.masks = {name: np.ascontiguousarray(mask[tree.order]) for name, mask in (attributes or {}).items()}
        self._longest = float(np.sqrt(max((float((b * b).sum(1).max()) for b in _blocks(vectors)), default=0.0)))
        if not np.isfinite(self._longest):
            raise InputError("An item vector is not finite", where="RestrictedIndex", hint="Train the model again.")

    def search(
        self, queries: FloatArray, restrict: Restrict | None, k: int, exclude: IntArray | None = None
    ) -> tuple[IntArray, FloatArray]:
        """The k best allowed items of each query.

        Args:
            queries: [n_queries, d] float32, finite.
            restrict: Union of its nodes, intersected with all its attributes; None allows everything.
            k: Answers wanted, at least 1.
            exclude: item_nums that are never answered (seen items).

        Returns:
            item_nums [n_queries, k] and scores [n_queries, k], best first; where fewer than k items are
            allowed the rest is -1 and -inf.

        Raises:
            InputError: for an unknown node or attribute, k below 1, or queries of another width.
        """
        self._check(queries, k)
        restrict = restrict or Restrict()
        slices, mask_names = self._slices(restrict.nodes), self._mask_names(restrict.attributes)
        excluded = np.sort(self.tree.position[exclude]).astype(np.int64) if exclude is not None else None
        items = np.full((len(queries), k), -1, dtype=np.int32)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        allowed = _Allowed(slices, [self._rows(part, mask_names) for part in slices])
        for row, query in enumerate(np.ascontiguousarray(queries, dtype=np.float32)):
            found, best = self._best(query, allowed, k, excluded)
            items[row, : len(found)], scores[row, : len(found)] = found, best
        return items, scores

    def allowed(self, restrict: Restrict | None) -> IntArray:
        """The item_nums that a restrict allows, in leaf order."""
        restrict = restrict or Restrict()
        slices, names = self._slices(restrict.nodes), self._mask_names(restrict.attributes)
        rows = [self._rows(part, names) for part in slices]
        places = [np.arange(s.start, s.stop) if r is None else r for s, r in zip(slices, rows, strict=True)]
        return self.tree.order[np.concatenate(places)] if places else self.tree.order[:0]

    def _check(self, queries: FloatArray, k: int) -> None:
        width = self.vectors.shape[1]
        if queries.ndim != 2 or queries.shape[1] != width or not np.isfinite(queries).all():
            raise InputError(
                "The query vectors do not fit the items", got=queries.shape, allowed=f"[n, {width}], finite"
            )
        if k < 1:
            raise InputError("At least one answer must be wanted", where="k", got=k, allowed="1 or more")

    def _slices(self, nodes: tuple[int, ...]) -> list[slice]:
        """The nodes as disjoint slices of the leaf order, neighbours and descendants merged."""
        for number in nodes:
            if not 0 <= number < len(self.tree.nodes):
                top = len(self.tree.nodes) - 1
                raise InputError("There is no such interest", where="restrict", got=number, allowed=f"0 to {top}")
        chosen = [self.tree.nodes[node] for node in nodes] or [self.tree.nodes[0]]
        merged: list[slice] = []
        for node in sorted(chosen, key=lambda node: node.start):
            if merged and node.start <= merged[-1].stop:
                merged[-1] = slice(merged[-1].start, max(merged[-1].stop, node.stop))
            else:
                merged.append(slice(node.start, node.stop))
        return merged

    def _mask_names(self, attributes: tuple[str, ...]) -> tuple[str, ...]:
        for name in attributes:
            if name not in self.masks:
                raise InputError(
                    "There is no such attribute", where="restrict", got=name, allowed=", ".join(sorted(self.masks))
                )
        return attributes

    def _rows(self, part: slice, names: tuple[str, ...]) -> Positions | None:
        """Places within a slice that have all attributes; None stands for the whole slice."""
        if not names:
            return None
        mask = self.masks[names[0]][part]
        for name in names[1:]:
            mask = mask & self.masks[name][part]
        rows: Positions = np.flatnonzero(mask) + part.start
        return rows

    def _best(
        self, query: FloatArray, allowed: _Allowed, k: int, excluded: Positions | None
    ) -> tuple[IntArray, FloatArray]:
        scores = np.concatenate([self._scores(query, part, rows) for part, rows in allowed.parts()])
        if excluded is not None:
            scores[allowed.find(excluded)] = -np.inf
        # Twice the bound on |float32 product - exact product| (Higham 2002, section 3.1), and room for float64's.
        d = len(query)
        margin = 2.1 * d * _UNIT / (1 - d * _UNIT) * float(np.linalg.norm(query.astype(np.float64))) * self._longest
        margin += d * _TINY  # products that underflow
        positions = allowed.positions(_candidates(scores, k, margin))
        exact = self._exact(query, positions)
        items = self.tree.order[positions]
        first = np.lexsort((items, -exact))[:k]
        return items[first], exact[first].astype(np.float32)

    def _scores(self, query: FloatArray, part: slice, rows: Positions | None) -> FloatArray:
        if rows is None:
            return np.asarray(self.vectors[part] @ query)
        if len(rows) >= GATHER_BELOW * (part.stop - part.start):
            return np.asarray((self.vectors[part] @ query)[rows - part.start])
        scores = np.empty(len(rows), dtype=np.float32)
        buffer = np.empty((min(_GATHER_ROWS, len(rows)), self.vectors.shape[1]), dtype=np.float32)
        for start in range(0, len(rows), _GATHER_ROWS):
            some = rows[start : start + _GATHER_ROWS]
            np.take(self.vectors, some, axis=0, out=buffer[: len(some)], mode="clip")  # "raise" would copy once more
            np.dot(buffer[: len(some)], query, out=scores[start : start + len(some)])
        return scores

    def _exact(self, query: FloatArray, positions: Positions) -> npt.NDArray[np.float64]:
        """Products in float64, each row summed alike wherever it stands, so that equal vectors tie."""
        wide = query.astype(np.float64)
        result = np.empty(len(positions))
        for start in range(0, len(positions), _RESCORE_ROWS):
            rows = self.vectors[positions[start : start + _RESCORE_ROWS]].astype(np.float64)
            rows *= wide
            result[start : start + len(rows)] = rows.sum(axis=1)
        return result


@dataclass
class _Allowed:
    """Disjoint slices in order, each whole (None) or only at some places; scores are numbered along them."""

    slices: list[slice]
    rows: list[Positions | None]

    def __post_init__(self) -> None:
        sizes = [s.stop - s.start if r is None else len(r) for s, r in zip(self.slices, self.rows, strict=True)]
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def parts(self) -> Iterator[tuple[slice, Positions | None]]:
        return zip(self.slices, self.rows, strict=True)

    def positions(self, numbers: Positions) -> Positions:
        """Place in leaf order of each score's number."""
        part = np.searchsorted(self.starts, numbers, side="right") - 1
        result = numbers - self.starts[part]
        for number, (where, rows) in enumerate(self.parts()):
            own = part == number
            result[own] = result[own] + where.start if rows is None else rows[result[own]]
        return result

    def find(self, positions: Positions) -> Positions:
        """The scores' numbers of those places (sorted) that are allowed."""
        found = []
        for start, (where, rows) in zip(self.starts, self.parts(), strict=False):
            inside = positions[np.searchsorted(positions, where.start) : np.searchsorted(positions, where.stop)]
            if rows is None:
                found.append(start + inside - where.start)
            else:
                at = np.searchsorted(rows, inside)
                at, inside = at[at < len(rows)], inside[at < len(rows)]
                found.append(start + at[rows[at] == inside])
        return np.concatenate(found)


def _candidates(scores: FloatArray, k: int, margin: float) -> Positions:
    """Numbers of all scores that may be among the k best when each is off by up to half the margin."""
    bound = -np.inf
    if len(scores) > 4 * k:
        bound = _lower_bound(scores, k) - margin
    some = np.flatnonzero(scores >= bound) if bound > -np.inf else np.flatnonzero(scores > -np.inf)
    if len(some) > k:
        own = scores[some]
        kth = np.partition(own, len(own) - k)[len(own) - k]
        some = some[own >= kth - margin]
    return some


def _lower_bound(scores: FloatArray, k: int) -> float:
    """A number that at least k scores reach: the k-th largest of the blocks' maxima. One cheap pass."""
    n_blocks = len(scores) // _BLOCK
    if n_blocks < 2 * k:
        return float(np.partition(scores, len(scores) - k)[len(scores) - k])
    maxima = scores[: n_blocks * _BLOCK].reshape(n_blocks, _BLOCK).max(axis=1)
    return float(np.partition(maxima, n_blocks - k)[n_blocks - k])


def _blocks(vectors: FloatArray, rows: int = 65_536) -> list[FloatArray]:
    return [vectors[start : start + rows] for start in range(0, len(vectors), rows)]
