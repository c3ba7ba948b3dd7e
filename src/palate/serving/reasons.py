"""Why an item is recommended: a sentence for the person, and the knowledge behind it for whoever asks."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from palate.data.dataset import IntArray
from palate.interests.explore import Exploration
from palate.serving.opened import Snapshot
from palate.serving.restrict import places_of
from palate.serving.spans import Allowed

Evidence = dict[str, Any]
_EVIDENCE_FIELDS = ("kind", "name", "value", "text", "confidence", "model", "source", "prompt_hash", "as_of", "cost")


class Reason(NamedTuple):
    """`text` in plain words (not escaped), `evidence` the knowledge it rests on: who said what, asked how."""

    text: str
    evidence: tuple[Evidence, ...] = ()


class Recommendation(NamedTuple):
    """An item of a slate. `score` is the source's: an inner product, a cosine ("similar"), events ("popular").

    `propensity`: the chance with which it came to its place, see `arrange`; None where it is not known.
    """

    item_id: str
    title: str
    score: float
    source: str
    reasons: tuple[Reason, ...] = ()
    ranked: float | None = None  # the ranker's score
    propensity: float | None = None


def by_history(snapshot: Snapshot, history: IntArray, n: int = 2) -> Callable[[int], Reason]:
    """For any item the `n` events of the history that are nearest to it by cosine."""

    @cache
    def past() -> Allowed:
        return snapshot.stretch(0).only(places_of(snapshot.tree.position, history))

    def reason(item: int) -> Reason:
        near, _ = snapshot.likeness.nearest(snapshot.vector(item), past(), n)
        return Reason(_because(snapshot, near.tolist()))

    return reason


def for_exploration(snapshot: Snapshot, exploration: Exploration) -> Reason:
    """Which interests led to the new one, and which model said so."""
    transition, to_node = exploration.transition, exploration.to_node
    if transition is None or to_node is None:
        raise ValueError("nothing was explored")
    title = snapshot.tree.nodes[to_node].title
    kind = "new for you" if exploration.novel else "rarely seen by you"
    text = f"{_because(snapshot, list(exploration.because))}; {kind}: {title} (suggested by {transition.model})"
    titles = [snapshot.tree.nodes[node].title for node in exploration.from_nodes]
    evidence = {
        "kind": "transition",
        "name": " + ".join(titles),
        "value": transition.probability,
        "text": title,
        "model": transition.model,
        "prompt_hash": transition.prompt_hash,
        "from_nodes": list(exploration.from_nodes),
        "to_node": to_node,
        "because": [snapshot.item_ids[item] for item in exploration.because],
        "novel": exploration.novel,
    }
    return Reason(text, (evidence,))


def for_attribute(snapshot: Snapshot, item: int, attribute: str, share: float, base: float) -> Reason:
    """The attribute the person is drawn to, and how sure who is that the item has it."""
    row = snapshot.attribute_names.index(attribute)
    label = {
        "kind": "label",
        "name": attribute,
        "value": snapshot.probability(row, item),
        "model": snapshot.manifest["attributes"][row]["model"],
    }
    said = f"{label['model'] or 'the labels'}: {label['value']:.0%}"
    text = (
        f"because you like {attribute}: {share:.0%} of what you {snapshot.verb}, {base:.0%} of the catalogue ({said})"
    )
    recorded = evidence_of(snapshot, snapshot.item_ids[item], "label", attribute)
    return Reason(text, (label, *recorded))


def for_similar(snapshot: Snapshot, other: int) -> Reason:
    """Of which item of the history it is a neighbour."""
    return Reason(f"like {snapshot.titles[other]}, which you {snapshot.verb}")


def for_fresh(snapshot: Snapshot, item: int) -> Reason:
    """Since when it is there, where that is known."""
    created = snapshot.newest.created(item)
    return Reason("new" if created is None else f"new since {created}")


def for_popular(snapshot: Snapshot, item: int, *, known: bool) -> Reason:
    """Said to those of whom nothing is known."""
    why = "nothing is known of you yet" if not known else "nothing nearer was left"
    return Reason(f"popular: {int(snapshot.popularity[item])} people {snapshot.verb} it; {why}")


def evidence_of(snapshot: Snapshot, entity: str, kind: str, name: str) -> list[Evidence]:
    """What was kept about an entity under a name, without what is null."""
    rows = snapshot.known_as(entity, kind, name)
    return [{key: row[key] for key in _EVIDENCE_FIELDS if row.get(key) is not None} for row in rows]


def _because(snapshot: Snapshot, items: list[int]) -> str:
    titles = list(dict.fromkeys(snapshot.titles[item] for item in items))
    return f"because you {snapshot.verb} {' and '.join(titles)}"
