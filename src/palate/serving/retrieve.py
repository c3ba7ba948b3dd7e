"""Exact top-k under a restrict: items lie in leaf order, a node is a slice, an attribute bits or a list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray, IntArray
from palate.data.query import Restrict
from palate.errors import InputError
from palate.interests.tree import Node
from palate.serving.columns import ItemColumns, Positions
from palate.serving.copies import Copies, Copy
from palate.serving.restrict import Restricts, places_of
from palate.serving.scores import FloatScores, Found, Int8Scores, Quantised, Scores
from palate.serving.spans import Allowed, merge

# Below this share of its stretches it is cheaper to gather the allowed rows than to read the stretches through
# (`benchmarks/retrieval.py --plans` measures where the two cross).
GATHER_BELOW = {"float32": 0.25, "int8": 0.1}
_CODES_FROM = 512  # allowed items from which the codes' narrower rows pay for their wider margin
_CODES_FOR = 8  # queries at once, beyond which float32 by BLAS is faster than codes query by query
_SHORT = 64  # rows: stretches that are shorter on average cost more calls of BLAS than their rows cost to gather
_MANY = 32  # candidates for each answer wanted, from which better products choose among them before the exact ones
_BLOCK = 256  # scores that share one maximum in the search for the k-th largest
_RESCORE_ROWS = 65_536
_SCORES_AT_ONCE = 2**24  # of all queries together: 64 MiB


class RestrictedIndex:
    """Exact maximum inner product search over the items that a restrict allows.

    Answers are those of brute force in double precision: products of int8 codes or in float32 choose the candidates,
    with a margin for their error, and float64 products order them. Equal scores are ordered by item_num, ascending.
    So an answer does not depend on which plan was taken: scan of slices, gather of rows, or scan of everything.

    Args:
        vectors: [n_items, d] float32, row `p` is the item `tree.order[p]`; may be memory-mapped. None: answers are
            exact for the vectors that `quantised` stands for.
        columns: What restricts ask of the items, and the interest tree.
        quantised: The vectors in int8: a quarter of the bytes to read.
        weights: [n_items] not negative, in leaf order, multiply the items' scores.
        first: The item_num of the item that the tree calls 0.

    Raises:
        InputError: for shapes that disagree, or a vector that is not finite.
    """

    def __init__(
        self,
        vectors: FloatArray | None,
        columns: ItemColumns,
        quantised: Quantised | None = None,
        weights: FloatArray | None = None,
        first: int = 0,
    ) -> None:
        self.columns, self.tree, self.restricts = columns, columns.tree, Restricts(columns)
        self.vectors, self.quantised, self.weights, self.first = vectors, quantised, weights, first
        n_items = len(self.tree.order)
        for given, kind in ((vectors, np.float32), (quantised.codes if quantised else None, np.int8)):
            if given is not None and (given.ndim != 2 or len(given) != n_items or given.dtype != kind):
                raise InputError(
                    "The vectors do not fit the tree",
                    got=f"{given.dtype} {given.shape}",
                    allowed=f"{np.dtype(kind)} [{n_items}, d]",
                )
        if vectors is None and quantised is None:
            raise InputError("An index needs vectors", where="RestrictedIndex", allowed="float32, int8 or both")
        self.width = int((vectors if vectors is not None else quantised.codes).shape[1])  # type: ignore[union-attr]
        self._float = None if vectors is None else FloatScores(vectors, weights)
        lost = 0.0 if vectors is None or quantised is None else quantised.error
        self._int8 = None if quantised is None else Int8Scores(replace(quantised, error=lost), weights)
        self._copies: Copies | None = None  # after `compile`
        if self._float is not None and not np.isfinite(self._float.longest):
            raise InputError("An item vector is not finite", where="RestrictedIndex", hint="Train the model again.")

    def compile(self) -> bool:
        """Have int8 codes searched by compiled code from now on; False where there are none or numba is missing.

        It takes seconds where it was never done on this machine, and half a second where it was. Until then, and
        without it, answers are the same and slower.
        """
        if self._int8 is None or not self._int8.compile():
            return False
        if self.vectors is not None:
            self._int8.compile_exact(self.vectors, self.weights, self.tree.order)
            self._copies = Copies(self._int8.codes, self._int8.scales)
        return True

    def search(
        self,
        queries: FloatArray,
        restrict: Restrict | None,
        k: int,
        exclude: IntArray | None = None,
        sets: Mapping[str, IntArray] | None = None,
        probe: int = 0,
        away: Positions | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """The k best allowed items of each query.

        Args:
            queries: [n_queries, d] float32, finite.
            restrict: None allows everything.
            k: Answers wanted, at least 1.
            exclude: item_nums that are never answered (seen items).
            sets: item_nums by the name that the restrict calls them ("seen").
            probe: Where everything is allowed, read only so many leaves of the tree, those whose mean vectors score
                best: approximate. 0 reads all, and a restrict is always answered exactly.
            away: In place of `exclude`, its `places`: for whoever asks several times for one person.

        Returns:
            item_nums [n_queries, k] and scores [n_queries, k], best first; where fewer than k items are
            allowed the rest is -1 and -inf.

        Raises:
            InputError: for an unknown node, attribute, field or set, k below 1, or queries of another width.
        """
        self._check(queries, k)
        allowed, away = self._allowed(restrict, exclude, sets or {}, away)
        items = np.full((len(queries), k), -1, dtype=np.int32)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        few = 0 < probe < len(self._leaves) and allowed.rows is None and allowed.width == len(self.tree.order)
        if len(queries) == 1 and not few:
            found, best = self.nearest(
                queries[0], allowed, k, away, None if self._copies is None else self._copies.of(allowed)
            )
            items[0, : len(found)], scores[0, : len(found)] = found, best
            return items, scores
        step = 1 if few else max(1, _SCORES_AT_ONCE // max(1, allowed.width))
        for start in range(0, len(queries) if allowed.size else 0, step):
            some = queries[start : start + step]
            where = self._probed(queries[start], probe) if few else allowed
            for row, positions in enumerate(self._candidates(some, where, away, k), start):
                found, best = self._ordered(queries[row], positions, k)
                items[row, : len(found)], scores[row, : len(found)] = found, best
        return items, scores

    def nearest(
        self, query: FloatArray, allowed: Allowed, k: int, away: Positions | None = None, copy: Copy | None = None
    ) -> tuple[IntArray, FloatArray]:
        """Of one query [d] the k best items, or fewer, and their scores, among places that are known to be allowed, of
        whose codes there may be a `copy`."""
        if self._int8 is not None and self._int8.answers:
            items, scores = np.empty(k, dtype=np.int32), np.empty(k, dtype=np.float32)
            n = self._int8.best(query, allowed, away, _scans(allowed), items, scores, copy)
            return items[:n] + np.int32(self.first), scores[:n]
        some = self._candidates(query[None], allowed, away, k)[0] if allowed.size else np.zeros(0, dtype=np.int64)
        return self._ordered(query, some, k)

    def allowed(self, restrict: Restrict | None, sets: Mapping[str, IntArray] | None = None) -> IntArray:
        """The item_nums that a restrict allows, in leaf order."""
        allowed, away = self._allowed(restrict, None, sets or {})
        positions = allowed.positions
        if away is not None:
            positions = positions[~np.isin(positions, away, assume_unique=True)]
        return self.tree.order[positions] + np.int32(self.first)

    def nearest_leaves(self, vectors: FloatArray) -> IntArray:
        """For each vector the leaf, as a node, whose items' mean vector has the greatest cosine with it."""
        lengths = np.linalg.norm(self._centres, axis=1, keepdims=True)
        near = vectors @ (self._centres / np.where(lengths > 0, lengths, 1)).T
        nodes: IntArray = np.array([node.node for node in self._leaves], dtype=np.int32)[near.argmax(axis=1)]
        return nodes

    def _check(self, queries: FloatArray, k: int) -> None:
        if queries.ndim != 2 or queries.shape[1] != self.width or not np.isfinite(queries).all():
            raise InputError(
                "The query vectors do not fit the items", got=queries.shape, allowed=f"[n, {self.width}], finite"
            )
        if k < 1:
            raise InputError("At least one answer must be wanted", where="k", got=k, allowed="1 or more")

    def _allowed(
        self,
        restrict: Restrict | None,
        exclude: IntArray | None,
        sets: Mapping[str, IntArray],
        away: Positions | None = None,
    ) -> tuple[Allowed, Positions | None]:
        """The places to search, and those among them that may not be answered."""
        named = {name: self.places(items) for name, items in sets.items()}
        allowed, taken = self.restricts.allowed((restrict or Restrict()).expression, named)
        if away is None and exclude is not None and len(exclude):
            away = self.places(exclude)
        if away is None or taken is None:
            return allowed, taken if away is None else away
        return allowed, np.union1d(taken, away)

    def places(self, items: IntArray) -> Positions:
        """Of the item_nums that are here."""
        local = items.astype(np.int64) - self.first
        return places_of(self.tree.position, local[(local >= 0) & (local < len(self.tree.order))])

    @cached_property
    def _leaves(self) -> list[Node]:
        return [node for node in self.tree.at_level(self.tree.depth) if node.start < node.stop]

    @cached_property
    def _centres(self) -> FloatArray:
        """The mean vector of each leaf."""
        centres = np.empty((len(self._leaves), self.width), dtype=np.float32)
        for centre, node in zip(centres, self._leaves, strict=True):
            own = slice(node.start, node.stop)
            rows = self._rows(own)
            centre[:] = (rows if self.weights is None else rows * self.weights[own, None]).mean(axis=0)
        return centres

    def _rows(self, where: slice | Positions) -> FloatArray:
        if self.vectors is not None:
            return self.vectors[where]
        assert self.quantised is not None
        return self.quantised.rows(where)

    def _probed(self, query: FloatArray, probe: int) -> Allowed:
        """The leaves whose mean vectors score best."""
        best = np.argpartition(-(self._centres @ query), probe)[:probe]
        return Allowed(merge((self._leaves[leaf].start, self._leaves[leaf].stop) for leaf in best.tolist()))

    def _candidates(self, queries: FloatArray, allowed: Allowed, away: Positions | None, k: int) -> Found:
        """For each query places among which its k best are."""
        if self._int8 is not None and self._int8.compiled and self._takes_codes(len(queries), allowed):
            found = self._int8.candidates(queries, allowed, away, k, _scans(allowed))
            return [self._fewer(query, some, k) for query, some in zip(queries, found, strict=True)]
        scorer = self._float or self._int8
        assert scorer is not None
        scores, margins = _scored(scorer, queries, allowed, away)
        numbers = [_best(row, k, float(margin)) for row, margin in zip(scores, margins, strict=True)]
        return [allowed.place(some) if allowed.rows is None else allowed.rows[some] for some in numbers]

    def _takes_codes(self, n_queries: int, allowed: Allowed) -> bool:
        """Codes are read anew for each query; BLAS reads float32 once for all of them."""
        return self._float is None or (n_queries <= _CODES_FOR and allowed.size >= _CODES_FROM)

    def _fewer(self, query: FloatArray, positions: Positions, k: int) -> Positions:
        """Of many candidates those that float32 products leave."""
        if len(positions) <= _MANY * k or self._float is None:
            return positions
        scores = np.empty((1, len(positions)), dtype=np.float32)
        prepared, margins = self._float.prepare(query[None])
        self._float.gather(prepared, positions, scores)
        return positions[_best(scores[0], k, float(margins[0]))]

    def _ordered(self, query: FloatArray, positions: Positions, k: int) -> tuple[IntArray, FloatArray]:
        exact = self._exact(query, positions)
        items = self.tree.order[positions]
        first = np.lexsort((items, -exact))[:k]
        return items[first] + np.int32(self.first), exact[first].astype(np.float32)

    def _exact(self, query: FloatArray, positions: Positions) -> npt.NDArray[np.float64]:
        """Products in float64, each row summed alike wherever it stands, so that equal vectors tie."""
        wide = query.astype(np.float64)
        result = np.empty(len(positions))
        for start in range(0, len(positions), _RESCORE_ROWS):
            rows = self._rows(positions[start : start + _RESCORE_ROWS]).astype(np.float64)
            rows *= wide
            result[start : start + len(rows)] = rows.sum(axis=1)
        return result if self.weights is None else result * self.weights[positions]


def _scans(allowed: Allowed) -> bool:
    """Whether the compiled search reads stretches through, or the allowed rows alone."""
    return allowed.rows is None or allowed.size >= GATHER_BELOW["int8"] * allowed.width


def _scored(
    scorer: Scores, queries: FloatArray, allowed: Allowed, away: Positions | None
) -> tuple[FloatArray, FloatArray]:
    """Approximate scores of all allowed places, -inf for those of `away`, and the margins of the queries."""
    prepared, margins = scorer.prepare(queries)
    scan = allowed.size >= GATHER_BELOW["float32"] * allowed.width and allowed.width >= _SHORT * len(allowed.spans)
    scores = np.empty((len(queries), allowed.width if scan else allowed.size), dtype=np.float32)
    if not scan:
        scorer.gather(prepared, allowed.positions, scores)
    else:
        scorer.scan(prepared, allowed, scores)
        scores = scores if allowed.rows is None else scores[:, allowed.numbers]
    if away is not None:
        scores[:, _find(allowed, away)] = -np.inf
    return scores, margins


def _find(allowed: Allowed, positions: Positions) -> Positions:
    """The scores' numbers of those places that are allowed."""
    if allowed.rows is None:
        return allowed.count(allowed.inside(positions))
    at = np.minimum(np.searchsorted(allowed.rows, positions), len(allowed.rows) - 1)
    found: Positions = at[allowed.rows[at] == positions]
    return found


def _best(scores: FloatArray, k: int, margin: float) -> Positions:
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
