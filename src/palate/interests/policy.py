"""How an explored interest becomes places of a slate: shared by serving and the comparisons made offline.

Wang et al. 2024 (arXiv 2405.16363), section 3: the softmax of the sequence model, restricted to the items of the
interests found, π(i) = exp(s(i) / T) · 1[i in S] / Σ over S. Which interests those are, `explore` says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from palate.data.dataset import FloatArray, IntArray

Scored = tuple[int, float]  # item_num and score
_MICROSECONDS = 3_600_000_000  # of an hour


def rng_of(user: str, moment: int, refresh: float) -> np.random.Generator:
    """What is drawn for a person: the same within `refresh` hours of the clock, then anew; 0: at every moment.

    `moment` is in microseconds since the epoch.
    """
    turn = moment // int(refresh * _MICROSECONDS) if refresh > 0 else moment
    seed = hashlib.sha256(f"{user}|{turn}".encode()).digest()[:8]
    return np.random.default_rng(int.from_bytes(seed, "little"))


def restricted_softmax(
    items: IntArray, scores: FloatArray, n: int, temperature: float = 0.0, rng: np.random.Generator | None = None
) -> tuple[IntArray, FloatArray]:
    """`n` of the allowed `items` [m] with `scores` [m], drawn without replacement from their softmax; with scores.

    Temperature 0 takes the best in order. Drawn as the largest of score / T + Gumbel noise (Kool et al. 2019, arXiv
    1903.06059). Items at minus infinity are never taken.
    """
    keys = scores.astype(np.float64)
    if temperature > 0:
        keys = keys / temperature + (rng or np.random.default_rng(0)).gumbel(size=len(keys))
    order = np.argsort(-keys, kind="stable")[:n]
    order = order[~np.isneginf(keys[order])]
    return items[order], scores[order]


def interleave(
    sources: Mapping[str, Iterable[Scored]], shares: Mapping[str, float], n: int
) -> list[tuple[int, float, str]]:
    """Item, score and source of up to `n` places, each item once.

    Each place goes to the source that is furthest behind its share and still has an item; a source of no share has no
    place.
    """
    waiting = {name: iter(pairs) for name, pairs in sources.items() if shares[name] > 0}
    given = dict.fromkeys(waiting, 0)
    slate: list[tuple[int, float, str]] = []
    taken: set[int] = set()
    while waiting and len(slate) < n:
        total = sum(shares[name] for name in waiting)
        turn = max(waiting, key=lambda name: shares[name] / total * (len(slate) + 1) - given[name])
        found = next((pair for pair in waiting[turn] if pair[0] not in taken), None)
        if found is None:
            del waiting[turn]
            continue
        given[turn] += 1
        taken.add(found[0])
        slate.append((*found, turn))
    return slate


def in_turn(items: IntArray, groups: IntArray) -> IntArray:
    """The first of each group in the order of `items`, then the second of each, and so on."""
    grouped = np.argsort(groups, kind="stable")
    first = np.searchsorted(groups[grouped], groups[grouped])
    turn = np.empty(len(items), dtype=np.int64)
    turn[grouped] = np.arange(len(items)) - first
    return items[np.argsort(turn, kind="stable")]
