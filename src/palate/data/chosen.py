"""`Chosen`: samples of whose histories K events are read: the latest, those most like the target, or any.

Those most like the target are SUBR, semantic user behaviour retrieval (ReLLa, arXiv 2308.11131, section 3.1): cosine of
item vectors, put back in order of time. With vectors of texts that is the soft search of SIM (arXiv 2006.05639), with
rows of flags for categories its hard search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from palate.data.dataset import Dataset, FloatArray
from palate.data.samples import Places, Samples
from palate.data.splits import has_clock
from palate.errors import InputError

NONE = -1
_CELLS = 4_000_000  # pairs of a target and a past event that are scored at a time


@dataclass(frozen=True)
class Chosen(Samples):
    """Samples, and the events that are read of each history."""

    places: Places  # [n, k] of `dataset.histories`, oldest first; NONE behind them


def strictly_before(dataset: Dataset, samples: Samples) -> Samples:
    """Histories without the events of the sample's own moment. Without a clock places are all the time there is."""
    if not has_clock(dataset):
        return samples
    packed = dataset.histories
    begins = np.ones(len(packed.times), dtype=bool)  # of a run of events of one user at one moment
    begins[1:] = packed.times[1:] != packed.times[:-1]
    begins[packed.offsets[:-1][packed.offsets[:-1] < len(begins)]] = True
    first = np.maximum.accumulate(np.where(begins, np.arange(len(begins)), 0))
    last = np.maximum(samples.ends - 1, 0)
    late = (samples.ends > samples.starts) & (packed.times[last] >= samples.times)
    return replace(samples, ends=np.where(late, np.maximum(first[last], samples.starts), samples.ends))


def newest(samples: Samples, k: int) -> Places:
    """Places of the latest `k` events of each history, or of all there are, [n, at most k]; NONE behind them."""
    begin = np.maximum(samples.starts, samples.ends - k)
    longest = int((samples.ends - begin).max(initial=1))
    places = begin[:, None] + np.arange(longest)
    return np.where(places < samples.ends[:, None], places, NONE)


def latest(samples: Samples, k: int) -> Chosen:
    """The last `k` events of each history."""
    return _chosen(samples, newest(samples, k))


def most_similar(dataset: Dataset, samples: Samples, vectors: FloatArray, k: int) -> Chosen:
    """The `k` events of each history whose items are most like the target, the later of two that are alike (SUBR).

    Args:
        vectors: Of items, [n_items, d], of any length; a row of zeros is like nothing.

    Raises:
        InputError: There is not one finite vector for each item.
    """
    if vectors.shape[:1] != (dataset.n_items,) or vectors.ndim != 2 or not np.isfinite(vectors).all():
        allowed = f"finite numbers, {dataset.n_items} rows, one an item"
        raise InputError("Vectors of items do not fit the data", got=f"shape {vectors.shape}", allowed=allowed)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norms, out=np.zeros_like(vectors, dtype=np.float32), where=norms > 0)
    packed = dataset.histories

    def cosines(rows: Places, past: slice) -> FloatArray:
        """Rounded, or what is equal would be ordered by how many rows are computed together."""
        return np.asarray(np.round(unit[samples.items[rows]] @ unit[packed.items[past]].T, 6), dtype=np.float32)

    return _best(samples, k, cosines)


def half_similar(dataset: Dataset, samples: Samples, vectors: FloatArray, k: int) -> Chosen:
    """The latest `k // 2` events, and of those before them the most similar, `k` in all (SIM's short and long part)."""
    late = latest(samples, k // 2).places if k > 1 else np.full((len(samples), 0), NONE)
    earlier = replace(samples, ends=np.maximum(samples.ends - k // 2, samples.starts))
    places = np.concatenate([most_similar(dataset, earlier, vectors, k - k // 2).places, late], axis=1)
    in_front = np.argsort(places == NONE, axis=1, kind="stable")
    return _chosen(samples, np.take_along_axis(places, in_front, axis=1))


def at_random(samples: Samples, k: int, seed: int = 0) -> Chosen:
    """Any `k` events of each history."""
    rng = np.random.default_rng(seed)
    return _best(samples, k, lambda rows, past: rng.random((len(rows), past.stop - past.start), dtype=np.float32))


def _best(samples: Samples, k: int, score: Callable[[Places, slice], FloatArray]) -> Chosen:
    """The `k` events that `score` (rows of one user, a stretch of the packed histories) makes most of."""
    places = newest(samples, k)
    for rows in _of_one_user(samples, np.flatnonzero(samples.ends - samples.starts > k)):
        past = slice(int(samples.starts[rows[0]]), int(samples.ends[rows[-1]]))
        places[rows] = past.start + _greatest(score(rows, past), samples.ends[rows] - past.start, k)
    return _chosen(samples, places)


def _of_one_user(samples: Samples, rows: Places) -> Iterator[Places]:
    """`rows` in blocks, each of one history, by how much of it they read."""
    rows = rows[np.lexsort((samples.ends[rows], samples.starts[rows]))]
    for own in np.split(rows, np.flatnonzero(np.diff(samples.starts[rows])) + 1):
        length = int((samples.ends[own] - samples.starts[own]).max(initial=1))
        step = max(1, _CELLS // length)
        yield from (own[start : start + step] for start in range(0, len(own), step))


def _greatest(scores: FloatArray, ends: Places, k: int) -> npt.NDArray[np.int64]:
    """Columns of the `k` greatest of the first `ends[r]` of each row `r`, left to right; of equal ones the later."""
    width = scores.shape[1]
    scores = np.where(np.arange(width) < ends[:, None], scores, -np.inf)
    edge = np.partition(scores, width - k, axis=1)[:, width - k, None]
    above, tied = scores > edge, scores == edge
    from_here = np.cumsum(tied[:, ::-1], axis=1)[:, ::-1]
    kept = above | (tied & (from_here <= k - above.sum(axis=1, keepdims=True)))
    return np.nonzero(kept)[1].reshape(len(scores), k)


def _chosen(samples: Samples, places: Places) -> Chosen:
    own = (samples.users, samples.items, samples.labels, samples.times, samples.starts, samples.ends, samples.part)
    return Chosen(*own, places)
