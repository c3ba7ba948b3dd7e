"""From a person to a slate: candidates of several sources, the ranker's order, caps, places, reasons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate

import numpy as np

from palate.data.dataset import FloatArray, IntArray
from palate.data.query import Query, Restrict
from palate.errors import InputError
from palate.serving import affinity
from palate.serving.affinity import Affinity, AffinityConfig
from palate.serving.arrange import Caps, Draw, Entry, Listed, Place, arrange
from palate.serving.candidates import Asked, Candidates
from palate.serving.crew import crew
from palate.serving.opened import Snapshot
from palate.serving.pipeline_config import CapsConfig, PipelineConfig
from palate.serving.reasons import Recommendation
from palate.serving.sources.popular import most_popular
from palate.serving.sources.registry import source
from palate.serving.stages import PAUSE, Fallback, Stage, Stages, Steps, inline


@dataclass(frozen=True)
class Slate(Sequence[Recommendation]):
    """Recommendations, best first; what was gone without, and the seconds that each stage took."""

    items: tuple[Recommendation, ...]
    fallbacks: tuple[Fallback, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        return self.items[place]

    def __iter__(self) -> Iterator[Recommendation]:
        return iter(self.items)


def recommend(
    snapshot: Snapshot,
    user: str | IntArray,
    n: int = 10,
    restrict: Restrict | None = None,
    explain: bool = True,
    rng: np.random.Generator | None = None,
    config: PipelineConfig | None = None,
    moment: int | None = None,
    since: IntArray | None = None,
    rejected: IntArray | None = None,
    encode: Callable[[Query], FloatArray] | None = None,
) -> Slate:
    """What `slate_steps` comes to, waited for.

    Raises:
        InputError: as `slate_steps`.
    """
    config = config or PipelineConfig()
    steps = slate_steps(snapshot, user, n, restrict, explain, rng, config, moment, since, rejected, encode)
    budget = config.budget
    return inline(steps) if budget.candidates is None and budget.rank is None else crew().run(steps)


def slate_steps(
    snapshot: Snapshot,
    user: str | IntArray,
    n: int,
    restrict: Restrict | None,
    explain: bool,
    rng: np.random.Generator | None,
    config: PipelineConfig,
    moment: int | None,
    since: IntArray | None = None,
    rejected: IntArray | None = None,
    encode: Callable[[Query], FloatArray] | None = None,
) -> Steps[Slate]:
    """The slate for a user of the snapshot or a history of item_nums (oldest first), at most `n` items.

    The configured sources propose candidates, the snapshot's ranker orders them, and `arrange` gives the places by
    shares and caps; a source that has nothing leaves its share to the others, and what stays empty is filled with
    popular items. A source or ranker that fails or is late by the budget is gone without, and noted in the slate. Seen
    items are left out unless the restrict speaks of `seen`, none comes twice. With a `restrict` all items obey it.
    Someone unknown, or without a history, gets popular items spread over the interests. Reasons are empty unless
    `explain`. `moment` is the time in microseconds since the epoch, the present one by default; only where it is given
    are explored interests kept until the next `explore.refresh`. `since` are item_nums that the person chose after
    `user`'s history ends, `rejected` others that are left out. New items (`Snapshot.new`) are left out when seen; no
    model has learned to read them in a history. `encode` stands in for the snapshot's encoder.

    Raises:
        InputError: for a restrict that names what the snapshot does not have, or n below 1.
    """
    rng, stages = rng or np.random.default_rng(0), Stages()
    history, away = _histories(snapshot, user, since, rejected)
    if n < 1:
        raise InputError("At least one item must be wanted", where="n", got=n, allowed="1 or more")
    query = Query(user if isinstance(user, str) else None, history, restrict=restrict)
    draws = rng.random((n, 3)).tolist() if config.epsilon else []
    vectors = np.zeros((1, snapshot.vectors.shape[1]), dtype=np.float32)
    if len(history):
        with stages.timed("encode"):
            told = snapshot.user_vector(user) if isinstance(user, str) and (since is None or not len(since)) else None
            vectors = told if told is not None else (encode or snapshot.encode_one)(query)
    asked = Asked(snapshot, query, vectors, n, away, rng, moment, config)
    lists = (yield from _candidates(asked, stages)) if len(history) else []
    entries = yield from _ranked(asked, lists, stages)
    yield PAUSE
    with stages.timed("arrange"):
        places = _places(asked, entries, draws)
        items = tuple(_recommendation(snapshot, place, explain) for place in places)
    return Slate(items, tuple(stages.fallbacks), dict(stages.seconds))  # a late stage may still add to its own


def affinities(snapshot: Snapshot, history: IntArray, config: AffinityConfig | None = None) -> dict[str, Affinity]:
    """For each attribute that any item has; an empty history has a lift of 1."""
    return affinity.affinities(snapshot.columns, history, config or AffinityConfig())


def _histories(
    snapshot: Snapshot, user: str | IntArray, since: IntArray | None, rejected: IntArray | None
) -> tuple[IntArray, IntArray]:
    """What models can read, and all that is not to be shown again."""
    history = snapshot.history(user) if isinstance(user, str) else np.asarray(user, dtype=np.int32)
    history = history if since is None else np.concatenate([history, since])
    if len(history) and not (0 <= int(history.min()) <= int(history.max()) < len(snapshot.popularity)):
        raise InputError("The history has an unknown item number", where="history", allowed="those of the snapshot")
    away = history if rejected is None else np.concatenate([history, rejected])
    return history if snapshot.new is None else history[history < snapshot.n_built], away


def _candidates(asked: Asked, stages: Stages) -> Steps[list[Candidates]]:
    """Of every source that has a share, one after the other, as far as they are in time together."""
    names = [name for name, share in asked.config.sources.items() if share > 0]
    found, left = list[Candidates](), asked.config.budget.candidates
    for place, name in enumerate(names):
        answer, start = list[Candidates](), stages.seconds.get("candidates", 0.0)
        try:
            if not (yield Stage(left, partial(_ask, asked, name, answer, stages))):
                for late in names[place:]:
                    stages.went_without(late, "late")
                break
            found += answer
        except Exception as error:
            stages.failed(name, error)
        if left is not None:
            left = max(0.0, left - 1000 * (stages.seconds["candidates"] - start))
    return found


def _ask(asked: Asked, name: str, answer: list[Candidates], stages: Stages) -> None:
    with stages.timed("candidates"):
        answer += source(name)(asked)


def _ranked(asked: Asked, lists: Sequence[Candidates], stages: Stages) -> Steps[list[Sequence[Entry]]]:
    """Each list in the ranker's order, or all in one. An order that was drawn stays where shares hold."""
    scores = None if asked.config.rank == "off" else (yield from _rank_scores(asked, lists, stages))
    with stages.timed("rank"):
        return _in_order(asked, lists, scores)


def _in_order(asked: Asked, lists: Sequence[Candidates], scores: FloatArray | None) -> list[Sequence[Entry]]:
    """By `scores` of all candidates, one list's after the other's."""
    if scores is None:
        return [Listed(each) for each in lists]
    ends = accumulate(len(each.items) for each in lists)
    own = [scores[end - len(each.items) : end] for each, end in zip(lists, ends, strict=True)]
    if asked.config.rank == "across":
        once: dict[int, Entry] = {}
        for each, ranked in zip(lists, own, strict=True):
            for entry in Listed(replace(each, weights=None), ranked):
                once.setdefault(entry.item, entry)
        return [sorted(once.values(), key=lambda entry: -(entry.ranked or 0.0))]
    return [
        Listed(each, ranked, None if each.weights is not None else np.argsort(-ranked, kind="stable"))
        for each, ranked in zip(lists, own, strict=True)
    ]


def _rank_scores(asked: Asked, lists: Sequence[Candidates], stages: Stages) -> Steps[FloatArray | None]:
    """Of all candidates, one list's after the other's; None without a ranker, or where it was late or failed."""
    ranker, answer = asked.snapshot.ranker, list[FloatArray]()
    if ranker is None or not any(len(each.items) for each in lists):
        return None

    def rank() -> None:
        with stages.timed("rank"):
            known, place = np.unique(np.concatenate([each.items for each in lists]), return_inverse=True)
            answer.append(ranker.score(asked.snapshot, asked.query.history, asked.vectors[0], known)[place])

    try:
        if (yield Stage(asked.config.budget.rank, rank)):
            return answer[0]
        stages.went_without("rank", "late")
    except Exception as error:
        stages.failed("rank", error)
    return None


def _places(asked: Asked, lists: Sequence[Sequence[Entry]], draws: Sequence[Draw]) -> list[Place]:
    """Under the caps; then, where that leaves too few, without; then popular items."""
    config, n = asked.config, asked.n
    names = [entries[0].by.source if len(entries) else "" for entries in lists]
    across = config.rank == "across" and len(lists) == 1
    shares = [1.0 if across else config.sources.get(name, 0.0) / names.count(name) for name in names]
    places = arrange(lists, shares, n, Caps(asked.snapshot, config.caps), config.epsilon, draws)
    if len(places) < n:
        taken = frozenset(place.entry.item for place in places)
        left = [[entry for entry in entries if entry.item not in taken] for entries in lists]
        places += arrange(left, shares, n - len(places), Caps(asked.snapshot, CapsConfig()))
    if len(places) < n:
        taken = frozenset(place.entry.item for place in places)
        places += [Place(entry, 1.0) for entry in Listed(most_popular(asked, n - len(places), taken))]
    return places


def _recommendation(snapshot: Snapshot, place: Place, explain: bool) -> Recommendation:
    item, score, ranked, by = place.entry
    return Recommendation(
        snapshot.item_ids[item],
        snapshot.titles[item],
        score,
        by.source,
        (by.why(item),) if explain else (),
        ranked,
        place.propensity,
    )
