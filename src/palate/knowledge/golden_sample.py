"""Which items are worth a person's time: a random part to estimate with, and parts to learn from."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from palate.data.dataset import Dataset, FloatArray
from palate.errors import InputError
from palate.knowledge.golden_queue import Pick

# In the order of choosing: the random part must not see what the others take.
MIX = {"random": 40, "disagreeing": 20, "uncertain": 20, "tail": 10, "stratified": 10}
MEANING = {
    "random": "drawn from the whole catalogue: prevalence can be estimated from these",
    "disagreeing": "sources of labels differ most",
    "uncertain": "a source is nearest to a probability of 0.5",
    "tail": "drawn from the quarter of the items with the fewest events",
    "stratified": "drawn from each category and third of popularity alike",
}
_CATEGORIES = 8  # the commonest; the rest is one stratum
_PARTS = ("head", "middle", "tail")


@dataclass(frozen=True)
class Sampled:
    """Items to ask about, and in words what could not be drawn."""

    picks: list[Pick]
    notes: list[str] = field(default_factory=list)


def sample_golden(
    dataset: Dataset,
    scores: Mapping[str, FloatArray],
    names: Sequence[str],
    n: int,
    mix: Mapping[str, float] | None = None,
    seed: int = 0,
    done: Iterable[str] = (),
    queued: Sequence[Pick] = (),
) -> Sampled:
    """`n` items to label, in the order of asking: the parts are mixed, so that a rater may stop anywhere.

    Args:
        scores: Source to [n_items, n_names], NaN where it said nothing.
        mix: Part (`MIX`) to its share of `n`; any positive numbers.
        done: Items that people labelled already: never asked about again.
        queued: Picks of earlier rounds: never picked again.

    The random part goes on, over rounds of one seed, along one order of the catalogue: together they are one simple
    random sample of it. The same arguments give the same picks.

    Raises:
        InputError: An unknown part, or shares that are not positive.
    """
    draw = _Draw(dataset, seed, {*done}, queued)
    wanted = _shares(n, MIX if mix is None else mix)
    makers: dict[str, Callable[[int], list[Pick]]] = {
        "random": draw.random,
        "disagreeing": lambda k: draw.best("disagreeing", _spread(scores), names, k),
        "uncertain": lambda k: draw.best("uncertain", _nearness(scores), names, k),
        "tail": draw.tail,
        "stratified": draw.stratified,
    }
    picks: list[Pick] = []
    notes: list[str] = []
    short = 0
    for part, make in makers.items():
        found = make(wanted.get(part, 0))
        missing = wanted.get(part, 0) - sum(pick.ask for pick in found)
        if missing:
            why = "no source of labels speaks of it" if part in ("uncertain", "disagreeing") else "no such item is left"
            notes.append(f"{missing} of {wanted[part]} {part} item(s) not found: {why}")
        short, picks = short + missing, picks + found
    if short:  # what one part lacks, the whole catalogue gives
        picks += draw.random(short)
    share = len(draw.drawn) / dataset.n_items
    picks = [replace(pick, probability=share) if pick.why == "random" else pick for pick in picks]
    return Sampled(sorted(picks, key=lambda pick: _rank(seed, f"order:{pick.item_id}")), notes)


def sample_table(picks: Sequence[Pick]) -> list[dict[str, object]]:
    """How many of each part and stratum, and with what probability: a row for each."""
    counts = Counter((p.why, p.stratum or p.attribute, p.probability) for p in picks if p.ask)
    order = sorted(counts, key=lambda key: (list(MIX).index(key[0]), key[1] or "", key[2] or 0))
    return [{"part": k[0], "of": k[1], "probability": k[2], "items": counts[k]} for k in order]


class _Draw:
    """Takes items one part after another; what is taken once is not taken again."""

    def __init__(self, dataset: Dataset, seed: int, done: set[str], queued: Sequence[Pick]) -> None:
        self.dataset, self.done = dataset, done
        self.drawn = {pick.item_id for pick in queued if pick.why == "random"}
        self.taken = {pick.item_id for pick in queued if pick.ask}
        self.order = sorted(range(dataset.n_items), key=lambda num: _rank(seed, dataset.item_ids[num]))
        self.place = {num: place for place, num in enumerate(self.order)}

    def random(self, k: int) -> list[Pick]:
        """`k` to ask about; those met on the way that are labelled or queued already belong to the sample too."""
        found, asked = [], 0
        for item_id in (self.dataset.item_ids[num] for num in self.order):
            if asked == k:
                break
            if item_id not in self.drawn:
                ask = item_id not in self.done and item_id not in self.taken
                found.append((item_id, ask))
                asked += ask
        self.drawn |= {item_id for item_id, _ in found}
        self.taken |= {item_id for item_id, ask in found if ask}
        return [Pick(item_id, "random", ask=ask) for item_id, ask in found]

    def best(self, why: str, matrix: FloatArray | None, names: Sequence[str], k: int) -> list[Pick]:
        """The highest of `matrix` [n_items, n_names], a turn for each attribute."""
        if matrix is None:
            return []
        ranked = {name: self._ranked(matrix[:, column]) for column, name in enumerate(names)}
        columns = {name: column for column, name in enumerate(names)}
        found: list[Pick] = []
        while ranked and len(found) < k:
            for name in list(ranked)[: k - len(found)]:
                num = next((num for num in ranked[name] if self._free(num)), None)
                if num is None:
                    del ranked[name]
                else:
                    score = float(matrix[num, columns[name]])
                    found.append(self._take(num, why, attribute=name, score=score))
        return found

    def tail(self, k: int) -> list[Pick]:
        counts = self.dataset.item_counts
        edge = np.sort(counts)[: max(1, len(counts) // 4)][-1]
        return self._from([num for num in self.order if counts[num] <= edge], k, "tail", f"{edge} events or fewer")

    def stratified(self, k: int) -> list[Pick]:
        """As many of each stratum as there are, turn by turn; small ones give what they have."""
        strata = self._strata()
        free = {name: [num for num in nums if self._free(num)] for name, nums in strata.items()}
        turns = (name for turn in range(k) for name, nums in free.items() if turn < len(nums))
        quota = Counter(name for name, _ in zip(turns, range(k), strict=False))
        return [
            pick for name, many in sorted(quota.items()) for pick in self._from(free[name], many, "stratified", name)
        ]

    def _from(self, nums: Sequence[int], k: int, why: str, stratum: str) -> list[Pick]:
        free = [num for num in nums if self._free(num)]
        probability = min(k, len(free)) / len(free) if free else None
        return [self._take(num, why, stratum=stratum, probability=probability) for num in free[:k]]

    def _strata(self) -> dict[str, list[int]]:
        """Category (first of an item's) and third of popularity to item_nums in drawing order."""
        firsts = [(each or ["none"])[0] for each in self.dataset.items["categories"].to_list()]
        common = {name for name, _ in Counter(firsts).most_common(_CATEGORIES)}
        counts = self.dataset.item_counts
        ranks = np.empty(len(counts), dtype=np.int64)
        ranks[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
        strata: dict[str, list[int]] = {}
        for num in self.order:
            category = firsts[num] if firsts[num] in common else "other"
            strata.setdefault(f"{category}, {_PARTS[ranks[num] * 3 // len(counts)]}", []).append(num)
        return dict(sorted(strata.items()))

    def _ranked(self, column: npt.NDArray[np.float32]) -> Iterator[int]:
        known = np.flatnonzero(~np.isnan(column))
        return iter(sorted(known.tolist(), key=lambda num: (-column[num], self.place[num])))

    def _free(self, num: int) -> bool:
        item_id = self.dataset.item_ids[num]
        return item_id not in self.taken and item_id not in self.done

    def _take(
        self,
        num: int,
        why: str,
        probability: float | None = None,
        attribute: str | None = None,
        score: float | None = None,
        stratum: str | None = None,
    ) -> Pick:
        item_id = self.dataset.item_ids[num]
        self.taken.add(item_id)
        return Pick(item_id, why, probability, attribute, score, stratum)


def _shares(n: int, mix: Mapping[str, float]) -> dict[str, int]:
    """`n` cut by `mix`; what rounding leaves goes to the first parts."""
    unknown = sorted(set(mix) - set(MIX))
    total = sum(mix.values())
    if unknown or total <= 0 or min(mix.values()) < 0:
        raise InputError("The mix cannot be read.", where="mix", got=dict(mix), allowed=", ".join(MIX) + "=share")
    counts = {part: int(n * share / total) for part, share in mix.items()}
    for part in list(counts)[: n - sum(counts.values())]:
        counts[part] += 1
    return counts


def _nearness(scores: Mapping[str, FloatArray]) -> FloatArray | None:
    """[n_items, n_names]: 0.5 less the distance of the least certain source to 0.5; NaN where none spoke."""
    near = [0.5 - np.abs(matrix - 0.5) for matrix in scores.values()]
    return None if not near else np.asarray(np.fmax.reduce(near), dtype=np.float32)


def _spread(scores: Mapping[str, FloatArray]) -> FloatArray | None:
    """[n_items, n_names]: the greatest difference of two sources; NaN where fewer than two spoke."""
    if len(scores) < 2:
        return None
    stack = np.stack(list(scores.values()))
    spread = np.fmax.reduce(stack) - np.fmin.reduce(stack)
    return np.where((~np.isnan(stack)).sum(axis=0) >= 2, spread, np.nan).astype(np.float32)


def _rank(seed: int, text: str) -> str:
    """A number that belongs to a text under a seed: the catalogue may grow, and nobody's place changes."""
    return hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()
