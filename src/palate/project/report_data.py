"""The report's dict from a run's artefacts: figures only from files that the steps wrote."""

from __future__ import annotations

import json
import resource
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from palate.knowledge.golden import MIN_POSITIVES
from palate.project.knowledge_steps import ZERO_SHOT
from palate.project.model_steps import tree_of
from palate.project.run import Run
from palate.serving.load import load_snapshot
from palate.serving.pipeline import recommend

_DEFINITIONS = (
    "NDCG@10 = sum over relevant items among the first 10 of 1/log2(rank+1), over the greatest such sum; "
    "recall@10 = relevant items among the first 10 over relevant items. Every item of the catalogue is ranked, seen "
    "items left out; each held-out event is one query with all that came before as its history. "
    "95% intervals resample people."
)


def report_of(run: Run) -> dict[str, Any]:
    """All sections that `project.report` shows."""
    return {
        "title": f"Palate: {run.project.folder.resolve().name}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": _data(run),
        "steps": [
            {"name": a.name, "seconds": a.seconds, "state": a.state, "detail": _words(a.detail)} for a in run.steps.made
        ],
        "llm": _llm(run),
        "golden": _golden(run),
        "comparison": _comparison(json.loads((run.models.folder / "comparison.json").read_text())),
        "controls": _controls(json.loads((run.controls.folder / "worth.json").read_text())),
        "interests": _interests(run),
        "examples": {"users": _examples(run)},
        "memory_mb": {"this process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024},
        "notes": _notes(run),
    }


def _data(run: Run) -> dict[str, Any]:
    dataset = run.project.dataset
    times = dataset.events["timestamp"]
    return {
        "items": dataset.n_items,
        "users": dataset.n_users,
        "events": dataset.events.height,
        "first": str(times[0]),
        "last": str(times[-1]),
        "split": run.project.split.name,
    }


def _llm(run: Run) -> list[dict[str, Any]]:
    asked = {a.name: a.detail for a in run.steps.made}
    rows = []
    for total in run.project.ledger.totals():
        fresh = next((a for a in run.steps.made if a.name == total["purpose"] and a.state == "made"), None)
        this_run = int(asked.get(total["purpose"], {}).get("calls", 0)) if fresh else 0
        rows.append({**total, "calls_this_run": this_run, "cached": total["calls"] - this_run})
    return rows


def _golden(run: Run) -> dict[str, Any]:
    rows = json.loads((run.golden.folder / "golden.json").read_text())
    per_attribute = [row for row in rows if row["attribute"] != "all"]
    judged = run.golden.detail["judged_items"]
    return {
        "verdict": json.loads((run.golden.folder / "agreement.json").read_text())["verdict"],
        "rows": per_attribute,
        "threshold_note": "Thresholds for precision, recall, F1 and kappa maximise F1 on the other half of the items.",
        "note": f"People judged {judged} items. A source is measured on those it labelled, and on attributes with at "
        f"least {MIN_POSITIVES} items that people call so, so n differs; a student never saw the items it is measured "
        f"on. A missing tag is no real no: read AUC. “{ZERO_SHOT}” asks no LLM.",
    }


def _comparison(found: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for result in found["results"]:
        ndcg, recall = result["means"]["NDCG@10"], result["means"]["recall@10"]
        against = result["against"].get("NDCG@10", {})
        rows.append(
            {
                "model": result["name"],
                **_interval("ndcg", ndcg),
                **_interval("recall", recall),
                "fit_seconds": result["fit_seconds"],
                "difference_to_best_baseline": against.get("mean"),
                "difference_low": against.get("low"),
                "difference_high": against.get("high"),
            }
        )
    rows.sort(key=lambda row: -row["ndcg"])
    return {
        "split": found["split"],
        "n_queries": found["queries"],
        "n_users": found["users"],
        "metrics": _DEFINITIONS,
        "rows": rows,
        "verdict": _ranking_verdict(rows, found["baseline"]),
    }


def _ranking_verdict(rows: list[dict[str, Any]], baseline: str | None) -> str:
    sasrec = next((row for row in rows if row["model"] == "sasrec"), None)
    if sasrec is None or sasrec["difference_low"] is None:
        return f"The best baseline is {baseline}."
    low, high = sasrec["difference_low"], sasrec["difference_high"]
    if low > 0:
        return f"SASRec is better than the best baseline, {baseline}."
    if high < 0:
        return f"SASRec is worse than the best baseline, {baseline}."
    return f"SASRec and the best baseline, {baseline}, cannot be told apart."


def _controls(found: list[dict[str, Any]]) -> dict[str, Any]:
    rows = [
        {
            "knowledge": row["knowledge"],
            **_interval("ndcg", row["ndcg"]),
            **_interval("recall", row["recall"]),
            "weight": row["weight"],
            "tokens": row["tokens"],
            "survives": row["survives"],
            "difference_to_off": row["against_off"]["mean"],
            "difference_low": row["against_off"]["low"],
            "difference_high": row["against_off"]["high"],
        }
        for row in found
    ]
    return {"rows": rows, "verdict": _worth_verdict(rows)}


def _worth_verdict(rows: list[dict[str, Any]]) -> str:
    """In words: does any LLM's knowledge raise NDCG over off, and over every control?"""
    said = []
    for row in (row for row in rows if row["survives"] is not None):
        word = "better than every control" if row["survives"] else "no proven help"
        change = f"{row['difference_to_off']:+.4f} [{row['difference_low']:+.4f}, {row['difference_high']:+.4f}]"
        said.append(f"{row['knowledge']}: {change} NDCG@10 over none, {word}")
    return "EASE with knowledge. " + "; ".join(said) + "."


def _interests(run: Run) -> dict[str, Any]:
    tree = tree_of(run.tree)
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
        for node in tree.nodes
    ]
    table = pl.read_parquet(run.transitions.folder / "transitions.parquet")
    title = {node.node: node.title for node in tree.nodes}
    counts = Counter(table["next_node"].to_list())
    examples = [
        {"a": title[a], "b": title[b], "next": title[following]}
        for a, b, following in table.select("node_a", "node_b", "next_node").sample(min(6, table.height), seed=0).rows()
    ]
    return {
        "levels": tree.depth,
        "nodes": nodes,
        "balance": {f"heaviest over mean, {name}": value for name, value in run.interests.detail["balance"].items()},
        "transitions": {
            "pairs": table.height,
            "distinct_next": len(counts),
            "top": [f"{title[node]}: {count} of {table.height} pairs" for node, count in counts.most_common(5)],
            "examples": examples,
        },
    }


def _examples(run: Run) -> list[dict[str, Any]]:
    snapshot = load_snapshot(run.project.state / "snapshots" / run.snapshot.detail["name"])
    counts = np.diff(snapshot.histories.offsets)
    people = [int(num) for num in np.argsort(np.abs(counts - 40), kind="stable")[:2]]
    found = []
    for num in people:
        user_id = snapshot.user_ids[num]
        items = recommend(snapshot, user_id, n=8)
        history = [snapshot.titles[item] for item in snapshot.history(user_id)[-6:]]
        shown = [
            {"title": item.title, "source": item.source, "reasons": [r.text for r in item.reasons]} for item in items
        ]
        found.append({"user_id": user_id, "history": history, "items": shown})
    return found


def _notes(run: Run) -> list[str]:
    notes = [
        "Large models have met well-known films, and perhaps this data set, in training: gains may partly be memory.",
        f"The LLM asked here is {run.project.engine.model}.",
    ]
    if run.project.config.recorded is not None:
        notes.append("The recorded model's answers came with the sample; what they cost in tokens was not recorded.")
    return notes


def _interval(name: str, value: dict[str, Any]) -> dict[str, Any]:
    return {name: value["mean"], f"{name}_low": value["low"], f"{name}_high": value["high"]}


def _words(detail: dict[str, Any]) -> str:
    """A step's detail on one line."""
    said = [f"{key.replace('_', ' ')} {value:,.4g}" for key, value in detail.items() if isinstance(value, int | float)]
    said += [f"{key} {value}" for key, value in detail.items() if isinstance(value, str)]
    return ", ".join(said)
