"""From a person to a slate: the next of the sequence, something new, and more of a quality the person likes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from pydantic import ConfigDict, Field

from palate.data.dataset import FloatArray, IntArray
from palate.data.expression import NODE_FIELDS
from palate.data.query import Query, Restrict
from palate.errors import InputError
from palate.interests.explore import ExploreConfig, explore
from palate.interests.policy import interleave, restricted_softmax, rng_of
from palate.serving import affinity, reasons
from palate.serving.affinity import Affinity, AffinityConfig
from palate.serving.load import Snapshot
from palate.serving.reasons import Reason, Recommendation


class BlendConfig(AffinityConfig):
    """Shares of the slate, and when a person counts as drawn to an attribute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sequence: float = Field(default=0.6, ge=0, description="share of unrestricted candidates")
    exploration: float = Field(default=0.2, ge=0, description="share of candidates from an interest that is new")
    attribute: float = Field(default=0.2, ge=0, description="share of candidates with the person's attribute")
    probe: int = Field(
        default=0,
        ge=0,
        description="leaves of the interest tree that are read for unrestricted candidates; 0: all, exactly",
    )
    explore: ExploreConfig = ExploreConfig()


@dataclass(frozen=True)
class Candidates:
    """Of one source, best first, with a way to say why."""

    source: str
    items: IntArray
    scores: FloatArray
    why: Callable[[int], Reason]

    def pairs(self) -> Iterator[tuple[int, float]]:
        return zip(self.items.tolist(), self.scores.tolist(), strict=True)


def recommend(
    snapshot: Snapshot,
    user: str | IntArray,
    n: int = 10,
    restrict: Restrict | None = None,
    explain: bool = True,
    rng: np.random.Generator | None = None,
    config: BlendConfig | None = None,
    moment: int | None = None,
    since: IntArray | None = None,
    rejected: IntArray | None = None,
    encode: Callable[[Query], FloatArray] | None = None,
) -> list[Recommendation]:
    """The slate for a user of the snapshot or a history of item_nums (oldest first), at most `n` items.

    Candidates of the sequence model, of an interest that is new to the person (`interests.explore`) and of the
    attribute the person is most drawn to are interleaved by the configured shares; a source that has nothing
    leaves its share to the others. Seen items are left out unless the restrict speaks of `seen`, none comes twice.
    With a `restrict` all items obey it, and with one of interests nothing is explored. Someone unknown, or without
    a history, gets popular items spread over the interests. Reasons are empty unless `explain`. `moment`, the time
    in microseconds since the epoch, is for `explore.refresh`: a person of the snapshot explores the same until it
    passes. `since` are item_nums that the person chose after `user`'s history ends, `rejected` others that are left
    out. New items (`Snapshot.new`) are left out when seen; no model has learned to read them in a history. `encode`
    stands in for the snapshot's encoder.

    Raises:
        InputError: for a restrict that names what the snapshot does not have, or n below 1.
    """
    config, rng = config or BlendConfig(), rng or np.random.default_rng(0)
    history = snapshot.history(user) if isinstance(user, str) else np.asarray(user, dtype=np.int32)
    history = history if since is None else np.concatenate([history, since])
    if len(history) and not (0 <= int(history.min()) <= int(history.max()) < len(snapshot.popularity)):
        raise InputError("The history has an unknown item number", where="history", allowed="those of the snapshot")
    if n < 1:
        raise InputError("At least one item must be wanted", where="n", got=n, allowed="1 or more")
    away = history if rejected is None else np.concatenate([history, rejected])
    history = history[history < snapshot.n_built]
    sources: list[Candidates] = []
    if len(history):
        query = Query(user if isinstance(user, str) else None, history, restrict=restrict)
        vectors = snapshot.encoder.encode([query]) if encode is None else encode(query)
        sources.append(_sequence(snapshot, query, vectors, n, away, config.probe))
        if restrict is None or not restrict.is_about(*NODE_FIELDS):
            lasting = moment is not None and config.explore.refresh > 0 and query.user_id is not None
            drawn = rng_of(query.user_id or "", moment or 0, config.explore.refresh) if lasting else rng
            sources += _exploration(snapshot, query, vectors, n, away, drawn, config)
        if restrict is None or not restrict.is_about("attr"):
            sources += _attribute(snapshot, query, vectors, n, away, config)
    by_name = {f"{source.source} {number}": source for number, source in enumerate(sources)}
    alike = Counter(source.source for source in sources)
    shares = {name: getattr(config, each.source) / alike[each.source] for name, each in by_name.items()}
    mixed = interleave({name: source.pairs() for name, source in by_name.items()}, shares, n)
    slate = [(item, score, by_name[name]) for item, score, name in mixed]
    if len(slate) < n:
        taken = np.array([item for item, _, _ in slate], dtype=np.int32)
        popular = _popular(snapshot, away, taken, n - len(slate), restrict)
        slate += [(item, score, popular) for item, score in popular.pairs()]
    return [
        Recommendation(
            snapshot.item_ids[item],
            snapshot.titles[item],
            score,
            source.source,
            (source.why(item),) if explain else (),
        )
        for item, score, source in slate
    ]


def affinities(snapshot: Snapshot, history: IntArray, config: BlendConfig | None = None) -> dict[str, Affinity]:
    """For each attribute that any item has; an empty history has a lift of 1."""
    return affinity.affinities(snapshot.columns, history, config or BlendConfig())


def _sequence(snapshot: Snapshot, query: Query, vectors: FloatArray, n: int, away: IntArray, probe: int) -> Candidates:
    why = reasons.by_history(snapshot, query.history)
    return _retrieved(snapshot, "sequence", query, vectors, n, away, why, probe)


def _exploration(
    snapshot: Snapshot,
    query: Query,
    vectors: FloatArray,
    n: int,
    away: IntArray,
    rng: np.random.Generator,
    config: BlendConfig,
) -> list[Candidates]:
    found = explore(query, snapshot.tree, snapshot.transitions, snapshot.explore_level, rng, config.explore)
    if found.to_node is None or config.exploration == 0:
        return []
    reason = reasons.for_exploration(snapshot, found)
    pool = n if config.explore.temperature == 0 else max(n, config.explore.pool)
    near = _retrieved(snapshot, "exploration", found.query, vectors, pool, away, lambda item: reason)
    items, scores = restricted_softmax(near.items, near.scores, 2 * n, config.explore.temperature, rng)
    return [replace(near, items=items, scores=scores)]


def _attribute(
    snapshot: Snapshot, query: Query, vectors: FloatArray, n: int, away: IntArray, config: BlendConfig
) -> list[Candidates]:
    """Of each attribute that the person is drawn to, the nearest items that have it."""
    if config.attribute == 0:
        return []
    found = affinities(snapshot, query.history, config)
    result = []
    for name in affinity.triggered(found, config):
        narrowed = replace(query, restrict=replace(query.restrict or Restrict(), attributes=(name,)))
        why = partial(reasons.for_attribute, snapshot, attribute=name, share=found[name].share, base=found[name].base)
        result.append(_retrieved(snapshot, "attribute", narrowed, vectors, n, away, why))
    return result


def _retrieved(
    snapshot: Snapshot,
    source: str,
    query: Query,
    vectors: FloatArray,
    n: int,
    away: IntArray,
    why: Callable[[int], Reason],
    probe: int = 0,
) -> Candidates:
    """Twice as many as wanted: the same item may come from several sources."""
    exclude, sets = _seen(query.restrict, away)
    items, scores = snapshot.index.search(vectors, query.restrict, 2 * n, exclude, sets, probe)
    found = items[0] >= 0
    return Candidates(source, items[0][found], scores[0][found], why)


def _seen(restrict: Restrict | None, history: IntArray) -> tuple[IntArray | None, dict[str, IntArray]]:
    """What is left out, and the sets a restrict may name. One that speaks of `seen` decides of it alone."""
    return None if restrict is not None and restrict.is_about("seen") else history, {"seen": history}


def _popular(snapshot: Snapshot, history: IntArray, taken: IntArray, n: int, restrict: Restrict | None) -> Candidates:
    """The most popular of each interest, then the second of each, and so on: no interest fills the slate."""
    allowed = np.ones(len(snapshot.popularity), dtype=bool)
    exclude, sets = _seen(restrict, history)
    if restrict is not None:
        allowed[:] = False
        allowed[snapshot.index.main.allowed(restrict, sets)] = True
    if exclude is not None:
        allowed[exclude] = False
    allowed[taken] = False
    ranked = snapshot.by_popularity[allowed[snapshot.by_popularity]][: max(1000, 20 * n)]
    level = snapshot.tree.depth if restrict is not None and restrict.is_about(*NODE_FIELDS) else 1
    node = snapshot.tree.node_of_items(level)[ranked]
    grouped = np.argsort(node, kind="stable")
    first = np.searchsorted(node[grouped], node[grouped])
    turn = np.empty(len(ranked), dtype=np.int64)
    turn[grouped] = np.arange(len(ranked)) - first
    items = ranked[np.argsort(turn, kind="stable")][:n]
    why = lambda item: reasons.for_popular(snapshot, item, known=len(history) > 0)  # noqa: E731
    return Candidates("popular", items, snapshot.popularity[items], why)
