"""What the API and the console say of items, users, interests and slates: plain dicts, ready for JSON."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np

from palate.data.parse_expression import parse_expression
from palate.data.query import Restrict
from palate.serving.opened import Snapshot
from palate.serving.pipeline import affinities
from palate.serving.reasons import Recommendation


def recommendation(each: Recommendation, explain: bool) -> dict[str, Any]:
    """An item of a slate; `evidence` (who said what) beside the plain `reasons` where `explain`."""
    said: dict[str, Any] = {
        "item_id": each.item_id,
        "title": each.title,
        "score": each.score,
        "source": each.source,
        "reasons": [reason.text for reason in each.reasons],
    }
    if each.ranked is not None:
        said["ranked"] = each.ranked
    if explain:
        said["evidence"] = [evidence for reason in each.reasons for evidence in reason.evidence]
    return said


def item_brief(snapshot: Snapshot, num: int) -> dict[str, Any]:
    row = snapshot.items.row(num, named=True)
    said = {"item_id": row["item_id"], "title": snapshot.titles[num], "categories": row["categories"] or []}
    return {**said, "year": row["year"]} if "year" in row else said


def item(snapshot: Snapshot, num: int) -> dict[str, Any]:
    """An item with its interests, its labels and all that was said of it."""
    labels = [
        {
            "name": attribute["name"],
            "probability": probability,
            "fits": probability >= attribute["threshold"],
            "model": attribute["model"],
        }
        for row, attribute in enumerate(snapshot.manifest["attributes"])
        if not math.isnan(probability := snapshot.probability(row, num))
    ]
    return {
        **item_brief(snapshot, num),
        "popularity": float(snapshot.popularity[num]),
        "interests": [
            {"node": node.node, "level": node.level, "title": node.title} for node in snapshot.interests_of(num)
        ],
        "labels": labels,
        "knowledge": _knowledge(snapshot, snapshot.item_ids[num]),
    }


def similar(snapshot: Snapshot, num: int, n: int, restrict: Restrict | None = None) -> dict[str, Any]:
    """The items nearest to the item by cosine of their vectors, the item itself left out."""
    index = snapshot.likeness
    query = snapshot.vector(num)[None]
    query = query / max(float(np.linalg.norm(query)), float(np.finfo(np.float32).tiny))
    items, scores = index.search(query, restrict, n, np.append(snapshot.gone, np.int32(num)))
    found = [(int(i), float(s)) for i, s in zip(items[0], scores[0], strict=True) if i >= 0]
    return {
        "item_id": snapshot.item_ids[num],
        "items": [{**item_brief(snapshot, other), "score": score} for other, score in found],
    }


def user(snapshot: Snapshot, user_id: str) -> dict[str, Any]:
    """A user's history, latest first, beside the profile and what the user is drawn to."""
    num = snapshot.user_nums[user_id]
    items, times = snapshot.histories.of(num), snapshot.histories.times_of(num)
    there = ~np.isin(items, snapshot.gone)
    items, times = items[there], times[there]
    history = [
        {**item_brief(snapshot, int(i)), "time": datetime.fromtimestamp(t / 1e6, UTC).isoformat()}
        for i, t in zip(items[::-1], times[::-1].tolist(), strict=True)
    ]
    knowledge = _knowledge(snapshot, user_id)
    drawn = [{"name": name, **vars(each)} for name, each in affinities(snapshot, items).items()]
    return {
        "user_id": user_id,
        "n_events": len(items),
        "history": history,
        "profile": [row for row in knowledge if row["kind"] == "profile"],
        "knowledge": [row for row in knowledge if row["kind"] != "profile"],
        "affinities": sorted(drawn, key=lambda each: -float(each["lift"])),
    }


def interests(snapshot: Snapshot) -> dict[str, Any]:
    """The tree, flat: each node with its parent, size, traffic, title and keywords."""
    nodes = [
        {
            "node": node.node,
            "parent": node.parent,
            "level": node.level,
            "title": node.title,
            "keywords": list(node.keywords),
            "n_items": node.stop - node.start,
            "traffic": node.traffic,
        }
        for node in snapshot.tree.nodes
    ]
    return {"explore_level": snapshot.explore_level, "depth": snapshot.tree.depth, "nodes": nodes}


def fields(snapshot: Snapshot) -> dict[str, Any]:
    """What restricts may ask for, by field: values with the number of items that have them, or the range of numbers."""
    columns = snapshot.columns
    found: dict[str, Any] = {
        name: {value: having.count for value, having in sorted(havings.items(), key=lambda each: -each[1].count)}
        for name, havings in columns.values.items()
    }
    for name, numbers in columns.numbers.items():
        known = numbers[~np.isnan(numbers)]
        found[name] = f"{known.min():g} to {known.max():g}" if len(known) else "no numbers"
    leaves = snapshot.tree.at_level(snapshot.tree.depth)
    return {**found, "node": f"0 to {leaves[-1].node}", "leaf": f"{leaves[0].node} to {leaves[-1].node}"}


def restrict(snapshot: Snapshot, text: str) -> dict[str, Any]:
    """How many items a restrict allows to someone who has seen nothing, and the most popular of them."""
    asked = Restrict(where=parse_expression(text))
    allowed = snapshot.index.main.allowed(asked, {"seen": np.zeros(0, dtype=np.int32)})
    best = allowed[np.lexsort((allowed, -snapshot.popularity[allowed]))[:10]]
    return {
        "allowed": len(allowed),
        "of": len(snapshot.popularity),
        "most_popular": [snapshot.titles[num] for num in best.tolist()],
    }


def _knowledge(snapshot: Snapshot, entity: str) -> list[dict[str, Any]]:
    rows = [{key: value for key, value in row.items() if value is not None} for row in snapshot.known(entity)]
    return [{**row, "as_of": row["as_of"].isoformat()} if "as_of" in row else row for row in rows]
