"""Worlds fitted to a real log, and how well: the log's own figures beside those of what people of the world took.

Taken from the log: how popular each item is, which interest it is of, how many items and interests a person has and in
which sittings they were taken (people of the log are drawn, with replacement), how often one is taken again, which
interests lie in the same people and which are met after which. Fitted: how many interests a person must know so that
as many show. Not in any log, and therefore assumed (`WorldConfig`): what a slate does to people.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from palate.data.dataset import Dataset, Histories, IntArray
from palate.errors import InputError
from palate.experiments.worlds.config import WorldConfig
from palate.experiments.worlds.log import Flags
from palate.experiments.worlds.truth import (
    Floats,
    Interests,
    Items,
    Truth,
    birthdays,
    plant_items,
    plant_people,
    plant_trend,
    stream,
    total,
    unit,
)
from palate.experiments.worlds.world import World
from palate.interests.meetings import first_meetings

_GAP = 1_800_000_000  # microseconds without an event that end a session
_SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)
_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
_LEAST = 15  # items that two categories together must have to be an interest of their own
_STEPS = 6  # of the search for how much people know


@dataclass(frozen=True, eq=False)
class Fitted:
    """What was taken from a log. Arrays over items, over people, and over their events packed by person."""

    main: IntArray  # [n_items], interest
    counts: Floats  # [n_items], events, one added
    names: tuple[str, ...]  # of the interests
    titles: tuple[str, ...]  # of the items, untrusted
    sizes: IntArray  # [people], events
    breadth: IntArray  # [people], distinct interests
    begins: Flags  # [events], whether a session begins
    offsets: np.ndarray[tuple[int], np.dtype[np.int64]]  # [people + 1]
    repeat: float
    centres: Floats
    related: Floats
    reach: Floats  # [interests], people who met it
    facts: Facts
    knowing: float = 1.0  # interests that people know, for one that shows

    @cached_property
    def digest(self) -> str:
        """Of all that a world hangs on."""
        found = hashlib.sha256(repr(self.knowing).encode())
        for array in (self.main, self.counts, self.sizes, self.breadth, self.begins, self.centres, self.related):
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()[:32]


@dataclass(frozen=True, eq=False)
class Facts:
    """Figures of a log: see `rows`."""

    popularity: Floats
    events: Floats
    interests: Floats
    session: Floats
    repeat: float

    def rows(self, other: Facts) -> list[dict[str, Any]]:
        """This log beside another, figure by figure."""
        listed = (
            ("share of events on the top items", "popularity", [f"top {share:.0%}" for share in _SHARES]),
            ("items a person", "events", [f"{q:.0%}" for q in _QUANTILES]),
            ("interests a person", "interests", [f"{q:.0%}" for q in _QUANTILES]),
            ("items a session", "session", [f"{q:.0%}" for q in _QUANTILES]),
        )
        rows = [
            {"figure": figure, "at": at, "log": float(mine), "world": float(theirs)}
            for figure, name, marks in listed
            for at, mine, theirs in zip(marks, getattr(self, name), getattr(other, name), strict=True)
        ]
        return [*rows, {"figure": "share taken again", "at": "", "log": self.repeat, "world": other.repeat}]


def facts_of(histories: Histories, interest_of: IntArray) -> Facts:
    """Figures of a packed log whose items have interests."""
    counts = np.sort(np.bincount(histories.items, minlength=len(interest_of)))[::-1]
    tops = [counts[: max(1, round(share * len(counts)))].sum() / max(1, counts.sum()) for share in _SHARES]
    sizes = np.diff(histories.offsets)
    begins = session_begins(histories)
    lengths = np.diff(np.append(np.flatnonzero(begins), len(begins)))
    items, interests, session = (
        np.asarray(np.quantile(part, _QUANTILES))
        for part in (sizes[sizes > 0], breadth_of(histories, interest_of), lengths)
    )
    return Facts(np.array(tops), items, interests, session, repeat_share(histories))


def session_begins(histories: Histories) -> Flags:
    """Whether each packed event is the first after half an hour of nothing, or the person's first."""
    begins = np.ones(len(histories.times), dtype=bool)
    begins[1:] = np.diff(histories.times) > _GAP
    begins[histories.offsets[:-1][np.diff(histories.offsets) > 0]] = True
    return begins


def breadth_of(histories: Histories, interest_of: IntArray) -> IntArray:
    """Distinct interests of each person who has any event."""
    owner = _owners(histories)
    pairs = np.unique(owner * np.int64(interest_of.max() + 1) + interest_of[histories.items])
    counts = np.bincount(pairs // (interest_of.max() + 1), minlength=len(histories.offsets) - 1)
    return counts[np.diff(histories.offsets) > 0].astype(np.int32)


def repeat_share(histories: Histories) -> float:
    """Share of events on an item that the person had before."""
    keys = _owners(histories) * np.int64(histories.items.max(initial=0) + 1) + histories.items
    return 1 - len(np.unique(keys)) / max(1, len(keys))


def interests_by_category(dataset: Dataset, least: int = _LEAST) -> tuple[IntArray, tuple[str, ...]]:
    """An interest for each item, and their names: its two rarest categories where many items share them, or the rarest.

    Raises:
        InputError: The items have no categories.
    """
    listed = [sorted(set(row or ())) for row in dataset.items["categories"].to_list()]
    counts = pl.Series([name for row in listed for name in row], dtype=pl.String).value_counts()
    if not counts.height:
        raise InputError("The items have no categories", hint="say what interest each is of: `interest_of`")
    frequency = dict(counts.iter_rows())
    rarest = [sorted(row, key=lambda name: (frequency[name], name))[:2] for row in listed]
    both = pl.Series([" & ".join(sorted(two)) if len(two) == 2 else "" for two in rarest])
    shared = {name for name, n in both.value_counts().iter_rows() if name and n >= least}
    chosen = [name if name in shared else (two[0] if two else "other") for name, two in zip(both, rarest, strict=True)]
    names = sorted(set(chosen))
    number = {name: place for place, name in enumerate(names)}
    return np.array([number[name] for name in chosen], dtype=np.int32), tuple(names)


def fit_world(
    dataset: Dataset, interest_of: IntArray | None = None, names: Sequence[str] = (), dimensions: int = 24
) -> Fitted:
    """What a `FittedWorld` needs of a log.

    Args:
        interest_of: The interest of each item, [n_items], from 0 on; None: by categories. It must not come from the
            vectors that recommenders see, or they would be the world's truth.
        names: Of the interests.

    Raises:
        InputError: No events, no categories, or interests that do not fit the items.
    """
    if interest_of is None:
        interest_of, names = interests_by_category(dataset)
    if len(interest_of) != dataset.n_items or not dataset.events.height:
        got = f"{len(interest_of)} interests, {dataset.n_items} items, {dataset.events.height} events"
        raise InputError("A world cannot be fitted to this log", got=got, allowed="events, and one interest an item")
    packed, n = dataset.histories, int(interest_of.max()) + 1
    sizes = np.diff(packed.offsets)
    there = sizes > 0
    offsets = np.concatenate([[0], sizes[there].cumsum()]).astype(np.int64)
    met = np.zeros((dataset.n_users, n))
    np.add.at(met, (_owners(packed), interest_of[packed.items]), 1)
    found = Fitted(
        interest_of,
        np.asarray(dataset.item_counts + 1.0, dtype=np.float64),
        tuple(names) or tuple(f"interest {number}" for number in range(n)),
        tuple(dataset.items["title"].to_list()),
        sizes[there].astype(np.int32),
        breadth_of(packed, interest_of),
        session_begins(packed),
        offsets,
        repeat_share(packed),
        _centres(met, dimensions),
        _related(dataset, interest_of, n),
        (met > 0).sum(axis=0) + 1.0,
        facts_of(packed, interest_of),
    )
    return _knowing(found)


class FittedWorld(World):
    """A world of a log's items, popularity, people and sittings. `config` says what no log does.

    `items`, `interests`, `dimensions` and `repeat` of the configuration are the log's. New items are like old ones.
    """

    def __init__(
        self,
        fitted: Fitted,
        config: WorldConfig | None = None,
        seed: int = 0,
        days: int = 60,
        clusters: tuple[int, ...] | None = None,
    ) -> None:
        n = len(fitted.main)
        taken = {"items": n, "interests": len(fitted.related), "dimensions": fitted.centres.shape[1]}
        # nobody's first is a repetition: the others must make up for it
        repeat = min(0.95, fitted.repeat / max(1e-9, 1 - len(fitted.sizes) / fitted.sizes.sum()))
        config = (config or WorldConfig()).model_copy(update={**taken, "repeat": repeat})
        self.fitted = fitted
        rng, people = stream(seed, "drawn people"), total(config.people, config.arrivals, days)
        self._drawn = rng.integers(0, len(fitted.sizes), people)
        super().__init__(config, self._plant(config, seed, days, rng), seed, days, clusters)

    def _plant(self, config: WorldConfig, seed: int, days: int, rng: np.random.Generator) -> Truth:
        fitted = self.fitted
        interests = Interests(fitted.centres, fitted.reach / fitted.reach.sum(), fitted.related)
        more = rng.integers(0, config.items, total(config.items, config.new_items, days) - config.items)
        rows = np.concatenate([np.arange(config.items), more])
        self.titles = tuple(fitted.titles[row] for row in rows.tolist())  # a new item's is of the one it is like
        items: Items = plant_items(config, seed, days, interests, fitted.main[rows], fitted.counts[rows])
        known = np.clip(np.rint(fitted.breadth[self._drawn] * fitted.knowing), 1, config.interests).astype(np.int32)
        sizes = fitted.sizes[self._drawn]
        people = plant_people(config, seed, days, interests, sizes, known)
        lengths = np.diff(np.append(np.flatnonzero(fitted.begins), len(fitted.begins)))
        looks = np.quantile(lengths / lengths.mean(), (np.arange(1000) + 0.5) / 1000)
        assert len(items.born) == len(birthdays(config.items, len(rows), days))
        return Truth(interests, items, people, plant_trend(config, seed, days, len(rows)), looks)

    @cached_property
    def begins(self) -> Flags:
        sizes, starts = self.fitted.sizes[self._drawn], self.fitted.offsets[self._drawn]
        nth = np.arange(sizes.sum()) - np.repeat(sizes.cumsum() - sizes, sizes)
        return np.asarray(self.fitted.begins[np.repeat(starts, sizes) + nth])

    def facts(self) -> Facts:
        """Figures of what people of this world took before the first day, to be held against the log's."""
        log = self.log(day=self.days)
        there = np.flatnonzero(self.truth.items.born == 0)
        return facts_of(log.histories().histories, self.truth.items.nearest[there, 0])


def _knowing(fitted: Fitted) -> Fitted:
    """How many interests people must know so that as many show in what they took as in the log, by bisection."""
    from dataclasses import replace

    low, high = 1.0, 3.0
    config = WorldConfig(people=max(2, min(1500, len(fitted.sizes))), arrivals=0)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        world = FittedWorld(replace(fitted, knowing=middle), config, days=1)
        shown = breadth_of(world.log().histories().histories, world.truth.items.nearest[:, 0]).mean()
        low, high = (middle, high) if shown < fitted.breadth[world._drawn].mean() else (low, middle)
    return replace(fitted, knowing=(low + high) / 2)


def _centres(met: Floats, dimensions: int) -> Floats:
    """Interests [C, d] near each other where the same people have them: the principal axes of their logarithms."""
    logs = np.log1p(met)
    logs = logs - logs.mean(axis=1, keepdims=True)
    logs -= logs.mean(axis=0)
    _, values, axes = np.linalg.svd(logs / np.maximum(logs.std(axis=0), 1e-9), full_matrices=False)
    found = axes[:dimensions].T * values[:dimensions]
    return unit(np.pad(found, ((0, 0), (0, dimensions - found.shape[1]))))


def _related(dataset: Dataset, interest_of: IntArray, n: int) -> Floats:
    """How much more often than by chance an interest is met after each other one, as shares of a row."""
    meetings = first_meetings(dataset, interest_of)
    counts = np.full((n, n), 1e-9)
    for column in meetings.pair.T:
        np.add.at(counts, (column, meetings.label), 1.0)
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    more = np.maximum(counts - expected, 0.0) + 1e-3 * expected
    np.fill_diagonal(more, 0.0)
    return np.asarray(more / np.maximum(more.sum(axis=1, keepdims=True), 1e-300))


def _owners(histories: Histories) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.repeat(np.arange(len(histories.offsets) - 1, dtype=np.int64), np.diff(histories.offsets))
