"""Ranking metrics as pure functions on arrays, one value per query. Full ranking only; nothing is sampled.

Relevance is binary, the discount is log2(rank + 1) (Järvelin & Kekäläinen 2002), and the ideal ranking of NDCG
is cut at n. A query without targets cannot be judged: its metrics are NaN, which `bootstrap` leaves out.

Ties in score are broken by one fixed pseudo-random order of the item numbers, the same for every query and model:
deterministic, and unlike the order of the numbers themselves (old or popular items first) it favours nobody.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from palate.errors import InputError

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Nums = npt.NDArray[np.int32] | npt.NDArray[np.int64]
Metric = npt.NDArray[np.float64]  # [q]

NOBODY = -1  # fills a ranking where fewer than n items may be answered
_CHUNK = 2_000_000  # scores ranked at a time: bounds the memory at a few dozen MB


def mask_seen(scores: Floats, seen: Sequence[Nums]) -> npt.NDArray[np.float32]:
    """A copy of `scores` [q, n_items] with minus infinity, "never answer", at `seen[i]` of each row."""
    masked = np.array(scores, dtype=np.float32)
    if len(seen):
        rows = np.repeat(np.arange(len(seen)), [len(items) for items in seen])
        masked[rows, np.concatenate(seen)] = -np.inf
    return masked


def top_n(scores: Floats, n: int) -> npt.NDArray[np.int64]:
    """The `n` best items of each row of `scores` [q, n_items], best first: [q, n].

    Scores are compared as float32. Items at minus infinity are never answered; `NOBODY` (-1) fills the rest.

    Raises:
        InputError: A score is NaN.
    """
    top = np.full((len(scores), n), NOBODY, dtype=np.int64)
    width = min(n, scores.shape[1])
    rows = max(1, _CHUNK // max(1, scores.shape[1]))
    for start in range(0, len(scores), rows) if width else ():
        keys = _keys(scores[start : start + rows])
        best = np.argpartition(keys, width - 1, axis=1)[:, :width]
        best = np.take_along_axis(best, np.argsort(np.take_along_axis(keys, best, 1), axis=1), 1)
        allowed = ~np.isneginf(np.take_along_axis(scores[start : start + rows], best, 1))
        top[start : start + rows, :width] = np.where(allowed, best, NOBODY)
    return top


def ranks(scores: Floats, targets: Sequence[Nums]) -> list[npt.NDArray[np.int64]]:
    """The rank of each target among all items, 1 the best, in the order that `top_n` would give.

    Raises:
        InputError: A score is NaN.
    """
    values = np.asarray(scores, dtype=np.float32)
    _no_nan(values)
    order, found = _tie_order(values.shape[1]), []
    for row, items in zip(values, targets, strict=True):
        own = row[items][:, None]
        before = (row > own).sum(axis=1)
        ties = row == own
        if ties.sum() > len(items):
            before += (ties & (order < order[items][:, None])).sum(axis=1)
        found.append(before + 1)
    return found


def ndcg_at(places: Sequence[Nums], n: int) -> Metric:
    """NDCG@n from the ranks of all relevant items of each query, as `ranks` gives them; [q], NaN without target."""
    ideal = np.concatenate([[np.nan], np.cumsum(1.0 / np.log2(np.arange(2, n + 2)))])
    gains = [(1.0 / np.log2(place[place <= n] + 1.0)).sum() for place in places]
    return np.asarray(gains / ideal[np.minimum([len(place) for place in places], n)])


def recall_at(places: Sequence[Nums], n: int) -> Metric:
    """Share of the relevant items among the first `n`, from their ranks; [q], NaN without target."""
    return np.array([(place <= n).mean() if len(place) else np.nan for place in places])


def ndcg(top: Nums, targets: Sequence[Nums], n: int) -> Metric:
    """NDCG@n of the rankings `top` [q, >= n]; [q], NaN without target."""
    hits, relevant = _hits(top, targets, n)
    discount = 1.0 / np.log2(np.arange(2, n + 2))
    ideal = np.concatenate([[np.nan], np.cumsum(discount)])
    return np.asarray(hits @ discount / ideal[np.minimum(relevant, n)])


def recall(top: Nums, targets: Sequence[Nums], n: int) -> Metric:
    """Share of the relevant items that are among the first `n`; [q], NaN without target."""
    hits, relevant = _hits(top, targets, n)
    return np.asarray(hits.sum(axis=1) / np.where(relevant > 0, relevant, np.nan))


def recall_capped(top: Nums, targets: Sequence[Nums], n: int) -> Metric:
    """As `recall`, divided by min(relevant items, n), so that 1 can be reached; [q], NaN without target."""
    hits, relevant = _hits(top, targets, n)
    return np.asarray(hits.sum(axis=1) / np.where(relevant > 0, np.minimum(relevant, n), np.nan))


def hit(top: Nums, targets: Sequence[Nums], n: int) -> Metric:
    """1 where any relevant item is among the first `n`, else 0; [q], NaN without target."""
    hits, relevant = _hits(top, targets, n)
    return np.where(relevant > 0, hits.any(axis=1), np.nan)


def mrr(top: Nums, targets: Sequence[Nums], n: int) -> Metric:
    """1 / rank of the first relevant item among the first `n`, 0 where there is none; [q], NaN without target."""
    hits, relevant = _hits(top, targets, n)
    first = np.where(hits.any(axis=1), 1.0 / (hits.argmax(axis=1) + 1), 0.0)
    return np.where(relevant > 0, first, np.nan)


METRICS = {"ndcg": ndcg, "recall": recall, "recall_capped": recall_capped, "hit": hit, "mrr": mrr}


def ranking_metrics(top: Nums, targets: Sequence[Nums], n: int = 10) -> dict[str, Metric]:
    """Every metric of this file at `n`, by name: `ndcg@10`, `recall@10`, ... each [q]."""
    return {f"{name}@{n}": metric(top, targets, n) for name, metric in METRICS.items()}


def _keys(scores: Floats) -> npt.NDArray[np.int64]:
    """One integer per score, the smallest the best, all different within a row: the score, then the tie order."""
    values = np.asarray(scores, dtype=np.float32) + np.float32(0.0)  # -0.0 becomes 0.0
    _no_nan(values)
    bits = values.view(np.int32).astype(np.int64)
    ascending = np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))  # order of the floats as order of integers
    return (-ascending << 32) | _tie_order(values.shape[1])


def _no_nan(values: npt.NDArray[np.float32]) -> None:
    if np.isnan(values).any():
        row, item = np.argwhere(np.isnan(values))[0]
        raise InputError("A score is NaN", where=f"query {row}, item {item}", hint="mask items with -inf")


def _tie_order(n_items: int) -> npt.NDArray[np.int64]:
    """A fixed pseudo-random number below 2**32 for each item, all different.

    An odd multiplier and a xor-shift are both permutations of the 32-bit numbers.
    """
    x = np.arange(n_items, dtype=np.uint64)
    for multiplier in (0x9E3779B1, 0x85EBCA6B):
        x = ((x + np.uint64(1)) * np.uint64(multiplier)) & np.uint64(0xFFFFFFFF)
        x ^= x >> np.uint64(15)
    return x.astype(np.int64)


def _hits(top: Nums, targets: Sequence[Nums], n: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Whether each of the first `n` is relevant [q, n], and how many different items are [q]."""
    if top.shape[0] != len(targets) or top.shape[1] < n:
        raise InputError("Ranking and targets do not fit", got=f"top {top.shape}, {len(targets)} targets, n={n}")
    sets = [np.unique(items).astype(np.int64) for items in targets]
    relevant = np.array([len(items) for items in sets], dtype=np.int64)
    rows = np.repeat(np.arange(len(sets)), relevant)
    wanted = (rows << 32) | np.concatenate([*sets, np.zeros(0, np.int64)])
    first = np.asarray(top[:, :n], dtype=np.int64)
    answered = (np.arange(len(sets))[:, None] << 32) | np.maximum(first, 0)
    return np.isin(answered, wanted) & (first >= 0), relevant
