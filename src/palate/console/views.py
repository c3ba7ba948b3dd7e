"""What each page shows, as plain dicts read from the open snapshot: the same functions the API answers from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import numpy as np
import polars as pl

from palate.console import charts
from palate.console.words import finite, interval
from palate.serving import describe
from palate.serving.opened import Snapshot
from palate.serving.pipeline import recommend

View = dict[str, Any]
SHOWN = 30  # rows of a search
SLATE = 12
LISTED = 10  # items of a node, similar items, transitions


def overview(snapshot: Snapshot) -> View:
    """The run that made the snapshot: steps, what was asked, headline figures."""
    run = snapshot.run if isinstance(snapshot.run, dict) else {}
    steps = [{**step, "detail": detail_words(step)} for step in _maps(run.get("steps"))]
    models = run.get("models") or sorted({str(name) for name in snapshot.knowledge["model"].unique() if name})
    comparison = _map(_map(run.get("report")).get("comparison"))
    rows = comparison_rows(comparison)
    return {
        "run": run,
        "steps": steps,
        "seconds": sum(float(step.get("seconds") or 0) for step in steps) if steps else None,
        "models": models if isinstance(models, list) else [models],
        "roles": snapshot.manifest.get("models") or {},
        "timeline": charts.timeline(steps),
        "comparison": {"split": comparison.get("split"), "rows": rows},
        "ndcg": charts.intervals(rows, "ndcg", "model", axis="NDCG@10"),
        "knowledge": _knowledge_counts(snapshot),
        "calls": _total(run, steps, "calls"),
        "tokens": _total(run, steps, "tokens", "tokens_in", "tokens_out"),
        "n_events": len(snapshot.histories.items),
        "n_pairs": len(snapshot.transitions),
    }


def _total(run: View, steps: list[View], in_steps: str, *in_run: str) -> float | None:
    """From the run's own totals, or else the sum over its steps."""
    found = [finite(run.get(key)) for key in in_run or (in_steps,)]
    if all(one is None for one in found):
        found = [finite(step.get(in_steps)) for step in steps]
    known = [one for one in found if one is not None]
    return sum(known) if known else None


def detail_words(step: Mapping[str, Any]) -> str:
    """A step's detail in words: plain figures of a map; calls and tokens where the step itself carries them."""
    detail = step.get("detail")
    if detail is not None and not isinstance(detail, Mapping):
        return str(detail)
    facts = dict(detail or {}) | {key: step[key] for key in ("calls", "tokens") if step.get(key)}
    said = [
        f"{key.replace('_', ' ')} {value:,.4g}" if isinstance(value, int | float) else f"{key} {value}"
        for key, value in facts.items()
        if isinstance(value, int | float | str)
    ]
    return ", ".join(said)


def comparison_rows(comparison: Mapping[str, Any]) -> list[View]:
    """Models with NDCG@10 and recall@10, best first; `results` of `experiments.compare` or rows of the report."""
    rows = [dict(row) for row in _maps(comparison.get("rows"))]
    for result in _maps(comparison.get("results")):
        row: View = {"model": result.get("name"), "fit_seconds": result.get("fit_seconds")}
        for name, metric in (("ndcg", "NDCG@10"), ("recall", "recall@10")):
            found = _map(_map(result.get("means")).get(metric))
            row |= {name: found.get("mean"), f"{name}_low": found.get("low"), f"{name}_high": found.get("high")}
        rows.append(row)
    for row in rows:
        row["ndcg_text"] = interval(row.get("ndcg"), row.get("ndcg_low"), row.get("ndcg_high"))
        row["recall_text"] = interval(row.get("recall"), row.get("recall_low"), row.get("recall_high"))
    return sorted(rows, key=lambda row: -float(row.get("ndcg") or 0))


def people(snapshot: Snapshot, wanted: str) -> View:
    """People whose id contains `wanted`; an exact id comes first."""
    word = wanted.strip().casefold()
    matching = (num for num, user_id in enumerate(snapshot.user_ids) if word in user_id.casefold())
    found = list(islice(matching, SHOWN))
    exact = snapshot.user_nums.get(wanted.strip())
    if exact is not None:
        found = [exact, *(num for num in found if num != exact)][:SHOWN]
    return {"q": wanted, "limit": SHOWN, "people": [_person_row(snapshot, num) for num in found]}


def items(snapshot: Snapshot, wanted: str) -> View:
    """Items whose title or id contains `wanted`, the most popular first."""
    word = wanted.strip().casefold()
    matching = (
        int(num)
        for num in snapshot.by_popularity
        if word in snapshot.titles[num].casefold() or word == snapshot.item_ids[num].casefold()
    )
    return {"q": wanted, "limit": SHOWN, "items": [_item_row(snapshot, num) for num in islice(matching, SHOWN)]}


def person(snapshot: Snapshot, user_id: str, draw: int) -> View | None:
    """A person's history and profile beside what is recommended and why; None for someone unknown.

    The same `draw` shows the same slate: which interests are explored is drawn at random.
    """
    if user_id not in snapshot.user_nums:
        return None
    seed = hashlib.sha256(f"{user_id}|{draw}".encode()).digest()[:8]
    found = recommend(snapshot, user_id, SLATE, rng=np.random.default_rng(int.from_bytes(seed, "little")))
    slate = [describe.recommendation(each, True) for each in found]
    return {
        **describe.user(snapshot, user_id),
        "draw": draw,
        "verb": snapshot.verb,
        "slate": slate,
        "explored": _explored(snapshot, slate),
    }


def _explored(snapshot: Snapshot, slate: list[View]) -> View | None:
    """The path of a slate's exploration: interests drawn from the history, the new one, who said so, its items.

    None where the slate explores nothing.
    """
    own = [each for each in slate if each["source"] == "exploration"]
    paths = [row for each in own for row in each["evidence"] if row.get("kind") == "transition"]
    if not paths:
        return None
    path, nodes = paths[0], snapshot.tree.nodes
    drawn: list[int] = path["from_nodes"]
    latest = [_item_row(snapshot, snapshot.item_nums[item_id]) for item_id in path["because"]]
    others = [each for each in snapshot.transitions.of(drawn[0], drawn[-1]) if each.next_node != path["to_node"]]
    return {
        "drawn": [{"node": nodes[node], "item": item} for node, item in zip(drawn, latest, strict=True)],
        "to": nodes[path["to_node"]],
        "said": path,
        "items": own,
        "others": [{"node": nodes[each.next_node], "probability": each.probability} for each in others[:LISTED]],
    }


def interests(snapshot: Snapshot) -> View:
    """The tree for the map, and as an outline for those who do not use the map."""
    said = describe.interests(snapshot)
    return {**said, "map": charts.tree(said["nodes"]), "by_parent": _by_parent(said["nodes"])}


def interest(snapshot: Snapshot, number: str) -> View | None:
    """A node with its best-known items and the transitions that lead in and out; None for an unknown node."""
    if not (number.isascii() and number.isdecimal()) or not int(number[:9]) < len(snapshot.tree.nodes):
        return None
    node = snapshot.tree.nodes[int(number[:9])]
    members = snapshot.tree.items_of(node.node)
    best = members[np.lexsort((members, -snapshot.popularity[members]))][:LISTED]
    trail, parent = [], node.parent
    while parent is not None:
        trail.append(snapshot.tree.nodes[parent])
        parent = trail[-1].parent
    rows, here = snapshot.transitions.rows, pl.lit(node.node)
    leads_out = rows.filter((pl.col("node_a") == here) | (pl.col("node_b") == here))
    return {
        "node": node,
        "trail": trail[::-1],
        "children": snapshot.tree.children(node.node),
        "items": [_item_row(snapshot, int(num)) for num in best],
        "out": _transitions(snapshot, leads_out),
        "into": _transitions(snapshot, rows.filter(pl.col("next_node") == here)),
        "n_out": leads_out.height,
        "explore_level": snapshot.explore_level,
        "names": [row for row in snapshot.known(str(node.node)) if row["kind"] == "name"],
    }


def item(snapshot: Snapshot, item_id: str) -> View | None:
    """An item with its labels by teacher, what was said of it with provenance, and similar items."""
    num = snapshot.item_nums.get(item_id)
    if num is None:
        return None
    said = describe.item(snapshot, num)
    rows = [{"name": each["name"], "teacher": "served", "value": each["probability"]} for each in said["labels"]]
    for row in said["knowledge"]:
        if row["kind"] == "label":
            rows.append({**row, "teacher": _teacher(row)})
    kinds: dict[str, list[View]] = {}
    for row in said["knowledge"]:
        kinds.setdefault(row["kind"], []).append(row)
    return {
        **said,
        "label_chart": charts.labels(rows),
        "said": kinds,
        "similar": describe.similar(snapshot, num, LISTED)["items"],
        "verb": snapshot.verb,
    }


def _teacher(row: Mapping[str, Any]) -> str:
    model, source = str(row.get("model") or "unknown"), str(row.get("source") or "")
    return model if source in ("", "llm") or source in model else f"{model} ({source})"


def _person_row(snapshot: Snapshot, num: int) -> View:
    history = snapshot.histories.of(num)
    lately = [snapshot.titles[int(item)] for item in history[-3:][::-1]]
    return {"user_id": snapshot.user_ids[num], "n_events": len(history), "lately": lately}


def _item_row(snapshot: Snapshot, num: int) -> View:
    return {**describe.item_brief(snapshot, num), "popularity": float(snapshot.popularity[num])}


def _transitions(snapshot: Snapshot, rows: pl.DataFrame) -> list[View]:
    nodes = snapshot.tree.nodes
    best = rows.sort("probability", descending=True, nulls_last=True, maintain_order=True).head(LISTED)
    return [
        {
            **row,
            "a": nodes[row["node_a"]],
            "b": nodes[row["node_b"]],
            "next": nodes[row["next_node"]],
        }
        for row in best.iter_rows(named=True)
    ]


def _knowledge_counts(snapshot: Snapshot) -> list[View]:
    counted = (
        snapshot.knowledge.group_by("kind", "model", "source")
        .agg(pl.len().alias("rows"), pl.col("tokens").sum(), pl.col("cost").sum(), pl.col("as_of").max())
        .sort("kind", "model", "source")
    )
    return counted.to_dicts()


def _by_parent(nodes: Iterable[View]) -> dict[Any, list[View]]:
    result: dict[Any, list[View]] = {}
    for node in nodes:
        result.setdefault(node["parent"], []).append(node)
    return result


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _maps(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
