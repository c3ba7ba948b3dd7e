"""Exploration: a function from query to query that adds a restrict to an interest new to the person.

The serving rule of LLMs for User Interest Exploration (Wang et al. 2024, arXiv 2405.16363, section 3): sample K
interests from recent history, look them up in a precomputed table, restrict retrieval to the interest found.
No model is asked while serving.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from palate.data.dataset import IntArray
from palate.data.query import Query, Restrict
from palate.interests.prospects import Drawn, Prospects
from palate.interests.tree import InterestTree

_KEPT = 16_384  # rows of a table that are kept as objects
_DENSE = 1024  # nodes up to which all pairs are tabled: 8 MiB


class ExploreConfig(BaseModel):
    """How interests are drawn from a history. The paper gives K = 2 and leaves the drawing open."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    interests: int = Field(
        default=2, ge=1, le=2, description="K, distinct interests looked up together (the paper's 2)"
    )
    recent: int = Field(default=50, ge=1, description="events of the history that are drawn from")
    half_life: float = Field(default=10.0, gt=0, description="events after which an event weighs half")
    attempts: int = Field(default=8, ge=1, description="draws before giving up when all that is proposed is known")
    temperature: float = Field(
        default=0.0, ge=0, description="of the softmax over the new interest's items; 0 takes the best in order"
    )
    pool: int = Field(default=200, ge=1, description="best items of the new interest that are drawn from")
    refresh: float = Field(
        default=0.0, ge=0, description="hours for which a person is drawn the same; 0 draws anew at each request"
    )
    rare_share: float = Field(
        default=0.5,
        ge=0,
        description="a node met before still counts as under-explored below this multiple of an even share of the "
        "history; 0 never relaxes the rule",
    )


@dataclass(frozen=True)
class Transition:
    """What a model said comes next. `probability` is None where the engine gave none."""

    next_node: int
    probability: float | None
    model: str
    prompt_hash: str


class TransitionTable:
    """Unordered pair of nodes (or a node with itself) to what comes next, best first.

    Args:
        rows: Columns `node_a`, `node_b`, `next_node`, `probability`, `model`, `prompt_hash`; several rows a pair
            are ordered by probability, then by place.
    """

    def __init__(self, rows: pl.DataFrame) -> None:
        self.rows = rows
        ends = pl.min_horizontal("node_a", "node_b"), pl.max_horizontal("node_a", "node_b")
        best = rows.with_columns(ends[0].alias("node_a"), ends[1].alias("node_b")).sort(
            "node_a", "node_b", "probability", descending=[False, False, True], nulls_last=True, maintain_order=True
        )
        self._best = best.select("next_node", "probability", "model", "prompt_hash")
        self._columns = self._best.get_columns()
        self.next_nodes: IntArray = best["next_node"].to_numpy().astype(np.int32)
        self.compiled: Any = None  # `prospect_kernels`, after `compile`
        self._with: dict[int, list[Transition]] = {}
        self._row = lru_cache(_KEPT)(lambda row: Transition(*(column[row] for column in self._columns)))
        self._ends = best.select("node_a", "node_b").to_numpy().astype(np.int64)
        self._keys = _pair_key(self._ends[:, 0], self._ends[:, 1])

    def __len__(self) -> int:
        return self.rows.height

    def compile(self) -> bool:
        """Have interests drawn by compiled code (numba) from now on; False where that cannot be. See `Int8Scores`."""
        if find_spec("numba") is None or self._dense is None or not len(self):
            return False
        from palate.interests import prospect_kernels

        some, one = np.zeros(2, np.int32), np.ones(2)
        node_of = np.zeros(1, np.int32)
        node_of.flags.writeable = False
        prospect_kernels.interests(node_of, some, _weights(1, 1.0), 1)
        _, *outcomes, _ = prospect_kernels.pairs(some, one, one, *self.stretches, some, 1.0)
        prospect_kernels.settle(*outcomes, False, one / 2, 1.0, 1)
        self.compiled = prospect_kernels
        return True

    def of(self, a: int, b: int) -> list[Transition]:
        """What comes after the pair; (a, a) is a single interest. Empty if the table has no such pair."""
        start, stop = self.spans(np.int64(a), np.int64(b))
        return [self._row(row) for row in range(int(start), int(stop))]

    def spans(self, a: Any, b: Any) -> tuple[Any, Any]:
        """For arrays of pairs where each has its stretch of `next_nodes`."""
        if self._dense is not None:
            last = len(self._dense[0]) - 1  # of no pair
            a, b = np.minimum(a, last), np.minimum(b, last)
            return self._dense[0][a, b], self._dense[1][a, b]
        keys = _pair_key(np.minimum(a, b).astype(np.int64), np.maximum(a, b).astype(np.int64))
        return np.searchsorted(self._keys, keys, "left"), np.searchsorted(self._keys, keys, "right")

    @property
    def stretches(self) -> tuple[IntArray, IntArray]:
        """`spans` of all pairs, where the nodes are few."""
        assert self._dense is not None
        return self._dense

    @cached_property
    def _dense(self) -> tuple[IntArray, IntArray] | None:
        """The stretches of all pairs as a table, where the nodes are few."""
        most = int(self._ends.max(initial=0)) + 1
        if most > _DENSE:
            return None
        ends = np.arange(most + 1, dtype=np.int64)
        keys = _pair_key(np.minimum(ends[:, None], ends), np.maximum(ends[:, None], ends))
        both = (np.searchsorted(self._keys, keys, side) for side in ("left", "right"))
        start, stop = (found.astype(np.int32) for found in both)
        return start, stop

    def with_node(self, node: int) -> list[Transition]:
        """What comes after any pair with the node, the most frequent answer first: for pairs the table lacks."""
        if node not in self._with:
            self._with[node] = self._with_node(node)
        return self._with[node]

    def _with_node(self, node: int) -> list[Transition]:
        found = self._best[np.flatnonzero((self._ends == node).any(axis=1)).tolist()]
        first = found.group_by("next_node", maintain_order=True).agg(pl.first(*self._best.columns[1:]), pl.len())
        ranked = first.sort("len", "next_node", descending=[True, False]).drop("len")
        return [Transition(*row) for row in ranked.iter_rows()]


def _pair_key(low: npt.NDArray[np.int64] | np.int64, high: npt.NDArray[np.int64] | np.int64) -> Any:
    return low * 2**31 + high


@dataclass(frozen=True)
class Exploration:
    """The query, restricted to `to_node`; unchanged where nothing new was found (`to_node` is None).

    `because` are item_nums of the history, the latest of each of `from_nodes`. `novel` is False if the person
    has met the node before, but rarely.
    """

    query: Query
    from_nodes: tuple[int, ...] = ()
    to_node: int | None = None
    because: tuple[int, ...] = ()
    transition: Transition | None = None
    novel: bool = True
    chance: float = 0.0  # of `to_node`, over the draws


def explore(
    query: Query,
    tree: InterestTree,
    transitions: TransitionTable,
    level: int,
    rng: np.random.Generator,
    config: ExploreConfig | None = None,
) -> Exploration:
    """Restrict the query to an interest that is new to the person.

    1. Draw two distinct nodes of `level` from the recent history, each event weighing half as much as one
       `half_life` events later, the second from what the first left. A history with one node is looked up as a single
       interest.
    2. Look the pair up; then each of the two alone; then all pairs with either (the table lacks the pair).
    3. Take the first answer in whose node the history has no event. If all are known, draw again, up to
       `attempts` times; then take the answer with the least share of the history, if that share is rare.

    `nodes` of the query's own restrict are replaced, the rest of it is kept.

    Raises:
        InputError: if the tree has no such level.
    """
    config = config or ExploreConfig()
    prospects = prospects_of(query, tree, transitions, level, config)
    drawn = None if prospects is None else prospects.draw(rng)
    if drawn is None:
        return Exploration(query)
    proposed = next(each for each in _proposals(transitions, drawn.from_nodes) if each.next_node == drawn.to_node)
    return _towards(query, tree.node_of_items(level), proposed, drawn)


def prospects_of(
    query: Query, tree: InterestTree, transitions: TransitionTable, level: int, config: ExploreConfig | None = None
) -> Prospects | None:
    """Where `explore` may go, and with what chance; None without a history or a table."""
    config = config or ExploreConfig()
    node_of = tree.node_of_items(level)
    if len(query.history) == 0 or len(transitions) == 0:
        return None
    recent = _weights(min(config.recent, len(query.history)), config.half_life)
    if transitions.compiled is not None:
        nodes, weights, met = transitions.compiled.interests(node_of, query.history, recent, len(tree.nodes))
    else:
        nodes, weights = _recent_interests(node_of[query.history[-len(recent) :]], recent)
        met = np.bincount(node_of[query.history], minlength=len(tree.nodes)) / len(query.history)
    rare = config.rare_share / tree.size_of(level)
    return Prospects(nodes, weights, met, transitions, config.interests, config.attempts, rare)


def _recent_interests(nodes: IntArray, recent: npt.NDArray[np.float64]) -> tuple[IntArray, npt.NDArray[np.float64]]:
    """Distinct nodes of recent events (oldest first) and the chance of each."""
    distinct = np.flatnonzero(np.bincount(nodes)).astype(np.int32)
    weights = np.bincount(nodes, recent)[distinct]
    # A node that is too old to weigh anything must still be drawable without replacement.
    weights = np.maximum(weights / weights.sum(), 1e-9)
    return distinct, weights / weights.sum()


@lru_cache(1024)
def _weights(n: int, half_life: float) -> npt.NDArray[np.float64]:
    """Of n events, oldest first."""
    return np.asarray(0.5 ** (np.arange(n)[::-1] / half_life))


def _proposals(transitions: TransitionTable, drawn: tuple[int, ...]) -> Iterator[Transition]:
    yield from transitions.of(drawn[0], drawn[-1])
    if len(drawn) > 1:
        for node in drawn:
            yield from transitions.of(node, node)
    if not transitions.of(drawn[0], drawn[-1]):
        for node in drawn:
            yield from transitions.with_node(node)


def _towards(query: Query, node_of: IntArray, transition: Transition, drawn: Drawn) -> Exploration:
    restricted = replace(query, restrict=replace(query.restrict or Restrict(), nodes=(transition.next_node,)))
    nodes, items = node_of[query.history[::-1]].tolist(), query.history[::-1]
    latest = tuple(int(items[nodes.index(node)]) for node in drawn.from_nodes)
    return Exploration(restricted, drawn.from_nodes, drawn.to_node, latest, transition, drawn.novel, drawn.chance)
