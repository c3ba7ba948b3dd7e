"""Which frames of a film to keep: where its shots change, and evenly within each shot. Arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray

Pixels = npt.NDArray[np.uint8]  # [h, w, 3], sRGB
LOOK_SIDE = 32  # pixels a side of the small copy that a frame is judged by
_GRID, _LEVELS = 8, 32
_CUT = 0.10  # least distance of two neighbours in different shots: within a shot it is mostly below 0.03
_SURGE = 3.0  # and so many times what is usual around it, or fast motion would be nothing but cuts
_AROUND = 6  # frames on each side that are "around"
_SAME = 0.02  # frames that are nearer show the same


def look_of(pixels: Pixels) -> FloatArray:
    """How a frame looks: a grid of brightness and the cumulated histogram of each colour, [8 * 8 + 3 * 32].

    Args:
        pixels: [32, 32, 3].
    """
    wide = pixels.astype(np.float32)
    luma = wide @ np.array([0.299, 0.587, 0.114], dtype=np.float32) / 255
    step = LOOK_SIDE // _GRID
    grid = luma.reshape(_GRID, step, _GRID, step).mean(axis=(1, 3)).ravel()
    bins = pixels.reshape(-1, 3) // (256 // _LEVELS) + np.arange(3) * _LEVELS
    counts = np.bincount(bins.ravel(), minlength=3 * _LEVELS).reshape(3, _LEVELS)
    return np.concatenate([grid, (counts.cumsum(axis=1) / LOOK_SIDE**2).ravel()]).astype(np.float32)


def distance(a: FloatArray, b: FloatArray) -> float:
    """0 (the same) to 2: mean change of brightness over the grid, plus the earth mover's distance of the colours."""
    gap = np.abs(a - b)
    split = _GRID * _GRID
    return float(gap[:split].mean() + gap[split:].mean())


def shot_starts(distances: Sequence[float] | FloatArray) -> list[int]:
    """Numbers of the frames that begin a shot, the first among them.

    Args:
        distances: [n_frames - 1], of each frame to the one before: a cut is a peak, high in itself and for its
            surroundings.
    """
    d = np.asarray(distances, dtype=np.float64)
    starts = [0]
    for at in np.flatnonzero(d >= _CUT):
        around = np.concatenate([d[max(0, at - _AROUND) : at], d[at + 1 : at + 1 + _AROUND]])
        if d[at] >= max(d[max(0, at - 1) : at + 2]) and d[at] >= _SURGE * (around.mean() if len(around) else 0.0):
            starts.append(int(at) + 1)
    return starts


def chosen(times: Sequence[float], shots: Sequence[int], looks: Sequence[FloatArray], n: int) -> list[int]:
    """Numbers of at most `n` candidates, in time order: one of each shot, then evenly in long ones.

    Args:
        times: [n_candidates], ascending.
        shots: The shot of each candidate.
        looks: As `look_of`; of those that show the same only the first is a candidate at all.
    """
    members: dict[int, list[int]] = {}
    different: list[int] = []
    for number, shot in enumerate(shots):
        if all(distance(looks[number], looks[earlier]) >= _SAME for earlier in different):
            different.append(number)
            members.setdefault(shot, []).append(number)
    shares = _shares(members, times, n)
    return sorted(number for shot, share in shares.items() for number in _evenly(members[shot], times, share))


def _shares(members: dict[int, list[int]], times: Sequence[float], n: int) -> dict[int, int]:
    """How many frames each shot gets (Sainte-Laguë over the shots' lengths, each shot one before any gets two)."""
    length = {shot: times[of[-1]] - times[of[0]] + 1e-6 for shot, of in members.items()}
    given = dict.fromkeys(members, 0)
    for _ in range(n):
        open_shots = [shot for shot in members if given[shot] < len(members[shot])]
        if not open_shots:
            break
        best = max(open_shots, key=lambda shot: (given[shot] == 0, length[shot] / (2 * given[shot] + 1), -shot))
        given[best] += 1
    return {shot: share for shot, share in given.items() if share}


def _evenly(numbers: list[int], times: Sequence[float], n: int) -> list[int]:
    """The `n` of `numbers` nearest to the middles of `n` equal parts of their time, each once."""
    first, last = times[numbers[0]], times[numbers[-1]]
    free, taken = list(numbers), []
    for part in range(n):
        middle = first + (last - first) * (part + 0.5) / n
        best = min(free, key=lambda number: (abs(times[number] - middle), number))
        free.remove(best)
        taken.append(best)
    return taken
