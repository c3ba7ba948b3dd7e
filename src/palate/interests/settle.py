"""Bring parts under their capacity: the rows that lose least move, whole rounds at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray

Weights = npt.NDArray[np.float64]
Parts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Gains = Callable[[Parts], FloatArray]
"""Row numbers to the worth of each part for them, [n_rows, parts]."""


def settle(
    part: Parts,
    gain_of: Gains,
    weights: Weights,
    capacity: float | Weights,
    parts: int,
    free: Mask | None = None,
) -> Parts:
    """`part` with as few and as cheap moves as make every load at most `capacity`, and no part empty.

    Rows too heavy to find room everywhere are placed first, the heaviest first, in their own part or the best with
    room, else in the lightest. Every lighter row then finds room somewhere.

    Args:
        free: Rows that may move; the others count where they are. All by default.
    """
    part, free = part.copy(), np.ones(len(part), dtype=np.bool_) if free is None else free
    capacity = np.broadcast_to(np.asarray(capacity, dtype=np.float64), parts)
    if (np.bincount(part, weights, parts) > capacity).any():
        spare = (capacity.sum() - weights.sum()) / parts
        boulder = free & (weights > max(spare, 0.1 * capacity.mean()))
        fixed: Weights = np.bincount(part, np.where(free, 0.0, weights), parts).astype(np.float64)
        _place(part, boulder, fixed, gain_of, weights, capacity)
        _shed(part, gain_of, weights, capacity, parts, free & ~boulder)
    _fill(part, gain_of, weights, parts, free)
    return part


def _place(part: Parts, boulder: Mask, fixed: Weights, gain_of: Gains, weights: Weights, capacity: Weights) -> None:
    """Boulders of parts that these alone overfill go, heaviest first, to the best part with room among boulders."""
    load = fixed + np.bincount(part[boulder], weights[boulder], len(fixed))
    rows = np.flatnonzero(boulder & (load > capacity)[part])
    rows = rows[np.argsort(-weights[rows], kind="stable")]
    load -= np.bincount(part[rows], weights[rows], len(fixed))
    for row, gain in zip(rows, gain_of(rows) if len(rows) else (), strict=True):
        room = load + weights[row] <= capacity
        if not room[part[row]]:
            part[row] = np.argmax(np.where(room, gain, -np.inf)) if room.any() else np.argmin(load - capacity)
        load[part[row]] += weights[row]
    if (load > capacity).any():  # it is tight: each to the lightest part, near or not
        rows, load = np.flatnonzero(boulder), fixed.copy()
        for row in rows[np.argsort(-weights[rows], kind="stable")]:
            part[row] = np.argmin(load - capacity)
            load[part[row]] += weights[row]


def _shed(part: Parts, gain_of: Gains, weights: Weights, capacity: Weights, parts: int, free: Mask) -> None:
    """Each round: the cheapest rows (loss for their weight) of each part that is over go to the best with room."""
    for _ in range(8 * parts + 32):
        load = np.bincount(part, weights, parts)
        rows = np.flatnonzero((load > capacity)[part] & free)
        if not len(rows):
            return
        gain, place = gain_of(rows), np.arange(len(rows))
        own = gain[place, part[rows]]
        gain[weights[rows][:, None] > capacity - load] = -np.inf
        target = np.argmax(gain, axis=1)
        loss = (own - gain[place, target]) / weights[rows]
        order = np.lexsort((loss, part[rows]))
        before = running(part[rows][order], weights[rows][order]) - weights[rows][order]
        leave = (before < (load - capacity)[part[rows]][order]) & np.isfinite(loss[order])
        order = order[leave]
        order = order[np.argsort(loss[order], kind="stable")]
        if not _accept(part, rows[order], target[order], weights, capacity - load):
            return


def _accept(part: Parts, rows: Parts, target: Parts, weights: Weights, room: Weights) -> int:
    """Move rows, in this order, to their target while it has room; how many moved."""
    order = np.argsort(target, kind="stable")
    rows, target = rows[order], target[order]
    fits = running(target, weights[rows]) <= room[target]
    part[rows[fits]] = target[fits]
    return int(fits.sum())


def running(group: Parts, values: Weights) -> Weights:
    """Cumulative sum that begins anew with each run of `group`."""
    total = np.cumsum(values)
    first = np.flatnonzero(np.diff(group, prepend=-1))
    base = total[first] - values[first]
    return np.asarray(total - np.repeat(base, np.diff(np.append(first, len(group)))))


def _fill(part: Parts, gain_of: Gains, weights: Weights, parts: int, free: Mask) -> None:
    """An empty part takes the row, of those that leave no part empty, which gains most or loses least."""
    for poor in np.flatnonzero(np.bincount(part, minlength=parts) == 0):
        rows = np.flatnonzero((np.bincount(part, minlength=parts) > 1)[part] & free)
        if len(rows):
            gain = gain_of(rows)
            part[rows[np.argmax(gain[:, poor] - gain[np.arange(len(rows)), part[rows]])]] = poor
