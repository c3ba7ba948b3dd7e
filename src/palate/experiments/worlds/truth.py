"""What is planted in a world, and never shown to a policy: interests, items, people, and what leads to what."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray, IntArray
from palate.experiments.worlds.config import WorldConfig

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Rng = np.random.Generator


def stream(seed: int, what: str, *numbers: int) -> Rng:
    """Random numbers of their own for each use, so that two policies in one world meet the same chances."""
    return np.random.default_rng([seed, crc32(what.encode()), *numbers])


@dataclass(frozen=True)
class Interests:
    """`centres` [C, d] of unit length; `popular` [C] sums to 1; `related` [C, C] rows sum to 1: what leads to what."""

    centres: Floats
    popular: Floats
    related: Floats


@dataclass(frozen=True)
class Items:
    """Items in the order in which they appear: those of a day are a prefix.

    `nearest` [n, 2] are their interests, the main one first, with `weights` [2]; `appeal` [n] a logit; `popular` [n]
    how often they were taken before, relative; `born` [n] the day on which they appear (0: there from the beginning).
    """

    vectors: FloatArray
    nearest: IntArray
    weights: Floats
    appeal: FloatArray
    popular: Floats
    born: IntArray


@dataclass(frozen=True)
class People:
    """People in the order in which they arrive; `affinity` [p, C] is 0 where there is no interest."""

    affinity: FloatArray
    known: Flags  # [p, C], before anything was taken
    arrives: IntArray  # [p], day
    rate: Floats  # [p], mean sessions of a visiting day
    visit: Floats  # [p], logit of a visit in the mood of the beginning
    before: IntArray  # [p], items taken before


@dataclass(frozen=True)
class Truth:
    """Everything that is planted. `looks` are quantiles of a session's length over its mean, evenly spaced."""

    interests: Interests
    items: Items
    people: People
    trend: FloatArray  # [days, n_items], a logit
    looks: Floats


def plant(config: WorldConfig, seed: int, days: int) -> Truth:
    """A synthetic truth, the same for the same seed whatever the policies."""
    interests = plant_interests(config, stream(seed, "interests"))
    main = draw(interests.popular, total(config.items, config.new_items, days), stream(seed, "items"))
    items = plant_items(config, seed, days, interests, main.astype(np.int32))
    people = plant_people(config, seed, days, interests)
    # a session's length is exponential: a person goes after any place alike
    looks = -np.log1p(-(np.arange(1000) + 0.5) / 1000)
    return Truth(interests, items, people, plant_trend(config, seed, days, len(items.born)), looks)


def total(first: int, share: float, days: int) -> int:
    """How many there will have been by the last day."""
    return first + round(first * share * days)


def birthdays(first: int, whole: int, days: int) -> IntArray:
    """Day 0 for the first ones, then evenly from day 1 on; ascending."""
    later = np.linspace(1, max(days, 2), whole - first, endpoint=False)
    return np.concatenate([np.zeros(first), later]).astype(np.int32)


def draw(chances: Floats, n: int, rng: Rng) -> npt.NDArray[np.int64]:
    """`n` places of `chances`, with replacement."""
    edges = chances.cumsum()
    found = np.searchsorted(edges, rng.random(n) * edges[-1], side="right")
    return np.asarray(np.minimum(found, len(edges) - 1), dtype=np.int64)


def zipf(n: int, power: float) -> Floats:
    """Falling shares that sum to 1."""
    shares = np.arange(1, n + 1, dtype=np.float64) ** -power
    return np.asarray(shares / shares.sum())


def plant_interests(config: WorldConfig, rng: Rng) -> Interests:
    """Centres around themes; each leads to `links` others, some of which look alike and some of which do not."""
    n = config.interests
    themes = unit(rng.standard_normal((config.themes, config.dimensions)))
    spread = rng.standard_normal((n, config.dimensions)) / np.sqrt(config.dimensions)
    centres = unit(themes[rng.integers(0, config.themes, n)] + 0.9 * spread)
    popular = rng.permutation(zipf(n, config.interest_power))
    return Interests(centres, popular, linked(centres, config.links, config.surprise, rng))


def linked(centres: Floats, links: int, surprise: float, rng: Rng) -> Floats:
    n = len(centres)
    links = min(links, n - 1)
    alike = centres @ centres.T
    np.fill_diagonal(alike, -np.inf)
    near = np.argsort(-alike, axis=1)[:, :links]
    others = rng.integers(1, n, (n, links))
    far = (np.arange(n)[:, None] + others) % n
    chosen = np.where(rng.random((n, links)) < surprise, far, near)
    related = np.zeros((n, n))
    np.add.at(related, (np.arange(n)[:, None], chosen), 1 / links)
    return related


def plant_items(
    config: WorldConfig, seed: int, days: int, interests: Interests, main: IntArray, popular: Floats | None = None
) -> Items:
    """Items around the centre of their `main` interest [n]; `popular` [n] as of `Items`, None: Zipf."""
    rng, n = stream(seed, "item vectors"), len(main)
    noise = rng.standard_normal((n, config.dimensions)) / np.sqrt(config.dimensions)
    vectors = unit(interests.centres[main] + config.spread * noise)
    alike = vectors @ interests.centres.T
    alike[np.arange(n), main] = -np.inf
    nearest = np.column_stack([main, alike.argmax(axis=1)]).astype(np.int32)
    popular = rng.permutation(zipf(n, config.item_power)) if popular is None else popular / popular.sum()
    logs = np.log(popular)
    # what was popular is better than what was not, but popularity is not all of an item's worth
    standard = (logs - logs.mean()) / max(float(logs.std()), 1e-9)
    appeal = config.appeal * (0.7 * standard + np.sqrt(1 - 0.7**2) * rng.standard_normal(n))
    weights = np.array([1 - config.second, config.second])
    born = birthdays(config.items, n, days)
    return Items(vectors.astype(np.float32), nearest, weights, appeal.astype(np.float32), popular, born)


def plant_people(
    config: WorldConfig,
    seed: int,
    days: int,
    interests: Interests,
    before: IntArray | None = None,
    known: IntArray | None = None,
) -> People:
    """People whose interests follow from each other; `before` and `known` [p] fix the numbers of both, where given."""
    rng, first = stream(seed, "people"), config.people
    n = total(first, config.arrivals, days)
    arrives = birthdays(first, n, days)
    if known is None:
        known = 1 + rng.poisson(max(config.tastes * (1 - config.unknown) - 1, 0), n).astype(np.int32)
    hidden = rng.poisson(known * config.unknown / (1 - config.unknown)).astype(np.int32)
    order = chains(config, interests, known + hidden, rng)
    affinity, is_known = np.zeros((n, config.interests), np.float32), np.zeros((n, config.interests), bool)
    strength = rng.uniform(0.5, 1.5, order.shape)
    person, place = np.nonzero(order >= 0)
    affinity[person, order[person, place]] = strength[person, place]
    early = place < known[person]
    is_known[person[early], order[person[early], place[early]]] = True
    if before is None:
        mean = np.where(arrives == 0, config.before, config.newcomers)
        before = rng.poisson(mean * lognormal(config.before_spread, n, rng)).astype(np.int32)
    rate = np.maximum(config.sessions * lognormal(config.activity, n, rng), 1.0)
    visit = config.visit + config.visit_spread * rng.standard_normal(n)
    return People(affinity, is_known, arrives, rate, visit, before)


def chains(config: WorldConfig, interests: Interests, sizes: IntArray, rng: Rng) -> IntArray:
    """Distinct interests of each person, each following from an earlier one or none, [p, most], -1 behind them."""
    n, most = len(sizes), int(min(sizes.max(), config.interests))
    order = np.full((n, most), -1, dtype=np.int32)
    edges = interests.related.cumsum(axis=1)
    filled = np.zeros(n, dtype=np.int64)
    has = np.zeros((n, config.interests), dtype=bool)
    for _ in range(3 * most):  # a draw may hit what the person has; most are full long before
        open_ = np.flatnonzero(filled < np.minimum(sizes, most))
        if not len(open_):
            break
        earlier = order[open_, (rng.random(len(open_)) * np.maximum(filled[open_], 1)).astype(np.int64)]
        follows = (filled[open_] > 0) & (rng.random(len(open_)) < config.related)
        linked_to = (edges[np.maximum(earlier, 0)] < rng.random(len(open_))[:, None]).sum(axis=1)
        drawn = np.where(follows, linked_to, draw(interests.popular, len(open_), rng))
        drawn = np.minimum(drawn, config.interests - 1)
        new = ~has[open_, drawn]
        people, drawn = open_[new], drawn[new]
        has[people, drawn] = True
        order[people, filled[people]] = drawn
        filled[people] += 1
    return order


def plant_trend(config: WorldConfig, seed: int, days: int, n: int) -> FloatArray:
    """The popularity of each day: a stationary autoregression of order 1."""
    noise = stream(seed, "trend").standard_normal((days, n), dtype=np.float32)
    memory, trend = config.trend_memory, noise.copy()
    for day in range(1, days):
        trend[day] = memory * trend[day - 1] + np.float32(np.sqrt(1 - memory**2)) * noise[day]
    return np.float32(config.trend) * trend


def lognormal(spread: float, n: int, rng: Rng) -> Floats:
    """Positive numbers of mean 1."""
    return np.asarray(np.exp(spread * rng.standard_normal(n) - spread**2 / 2))


def unit(rows: Floats) -> Floats:
    """Rows of length 1."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
