"""Exploration tables for worlds: what stands in for a language model where there are no titles to ask it about.

A synthetic world has no words, so no language model can know it. `planted_table` answers by the planted links instead,
wrong with a stated rate: it shows what a table of that quality would be worth, not that an LLM has that quality. Where
a fitted world has names, `asked_table` asks a language model about them.
"""

from __future__ import annotations

import numpy as np

from palate.data.dataset import IntArray
from palate.errors import InputError
from palate.experiments.worlds.truth import Floats, stream
from palate.experiments.worlds.world import World
from palate.interests.next_llm import asked, check_names
from palate.interests.table import InterestTable, make_table
from palate.llm.request import LLM

CANDIDATES = 8  # answers kept for a pair


def meant_by(world: World) -> IntArray:
    """The planted interest that most items of each visible cluster have, [n_clusters]."""
    catalogue, main = world.catalogue, world.truth.items.nearest[:, 0]
    counts = np.zeros((catalogue.n_clusters, world.config.interests), dtype=np.int64)
    np.add.at(counts, (catalogue.cluster_of, main), 1)
    return np.asarray(counts.argmax(axis=1), dtype=np.int32)


def planted_table(world: World, error: float, seed: int = 0) -> InterestTable:
    """What the planted links say comes after each pair of visible clusters, each answer replaced with chance `error`.

    Raises:
        InputError: An error rate out of range.
    """
    if not 0 <= error <= 1:
        raise InputError("An error rate is out of range", got=error, allowed="0 to 1")
    meaning, n = meant_by(world), world.catalogue.n_clusters
    links = world.truth.interests.related[np.ix_(meaning, meaning)]
    pairs = _pairs(n)
    found = np.concatenate([_answers(links, pairs[at : at + 4096]) for at in range(0, len(pairs), 4096)])
    rng = stream(seed, "table errors")
    wrong = (rng.random(found.shape) < error) & (found >= 0)
    found = np.where(wrong, rng.integers(0, n, found.shape), found)
    return _table(n, pairs, found, f"planted links, {error:.0%} wrong")


def asked_table(llm: LLM, names: list[str]) -> InterestTable:
    """A language model's answer to every pair of named clusters, one a pair; failed ones are left out.

    Raises:
        InputError: A name that no model can answer with, or two of one name.
    """
    check_names(names)
    pairs = _pairs(len(names))
    answers = asked(llm, pairs, names)
    kept = answers >= 0
    return _table(len(names), pairs[kept], answers[kept, None], llm.model)


def by_meaning(world: World, table: InterestTable) -> InterestTable:
    """A table of planted interests as one of visible clusters, each of which goes by what most of its items are."""
    meaning, n = meant_by(world), world.catalogue.n_clusters
    sizes = np.bincount(world.catalogue.cluster_of, minlength=n)
    cluster = np.full(world.config.interests, -1, dtype=np.int32)
    for number in np.argsort(sizes, kind="stable"):  # the largest of an interest's clusters stands for it
        cluster[meaning[number]] = number
    pairs = _pairs(n)
    found = table.look_up(np.sort(meaning[pairs], axis=1))[0]
    return _table(n, pairs, np.where(found >= 0, cluster[found], -1), "; ".join(table.models))


def _pairs(n: int) -> IntArray:
    """Unordered pairs of `n` clusters, each with itself included, [n (n + 1) / 2, 2]."""
    return np.column_stack(np.triu_indices(n)).astype(np.int32)


def _answers(links: Floats, pairs: IntArray) -> IntArray:
    """The clusters to which either of a pair leads, the strongest first, -1 behind them."""
    scores = links[pairs[:, 0]] + links[pairs[:, 1]]
    np.put_along_axis(scores, pairs.astype(np.int64), 0.0, axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :CANDIDATES]
    return np.where(np.take_along_axis(scores, order, axis=1) > 0, order, -1).astype(np.int32)


def _table(n: int, pairs: IntArray, found: IntArray, model: str) -> InterestTable:
    nothing = np.full(found.shape, np.nan, np.float32)
    return make_table(n, pairs, found, nothing, [model] * len(pairs), [""] * len(pairs))
