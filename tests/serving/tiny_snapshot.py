"""A small synthetic snapshot, made in a second without torch: for tests of serving and of the console."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from palate.data.dataset import Histories
from palate.interests.names import name_nodes
from palate.interests.tree import InterestTree, TreeConfig, build_tree
from palate.knowledge.tables import SCHEMA, Knowledge
from palate.serving.opened import Snapshot
from palate.serving.snapshot import SnapshotParts, build_snapshot
from palate.serving.versions import use

TOPICS = ("crime", "comedy", "war", "romance", "western", "horror", "space", "music")
ATTRIBUTES = ("slow-burn", "funny")
MODEL, LABELLER, PROMPT = "tiny-teacher-7b", "student of tiny-teacher-7b", "0123456789abcdef0123456789abcdef"
AS_OF = datetime(2024, 1, 1, tzinfo=UTC)


def tiny_snapshot(folder: Path, n_items: int = 240, n_users: int = 20, seed: int = 0) -> Path:
    """Build it below `folder`, make it the current one, return its path. Same arguments, same snapshot.

    Items are "i0".."i239", titled "Crime story 0" and so on over eight topics (and one title with markup in it,
    "i1"); users "u0".."u19" with 3 to 30 events each, mostly of two topics; no sequence encoder.
    """
    path = build_snapshot(folder, tiny_parts(n_items, n_users, seed))
    use(folder, path.name)
    return path


def has(snapshot: Snapshot, attribute: str) -> np.ndarray:
    """Which items have an attribute, by item_num, as its probabilities say."""
    row = snapshot.attributes[snapshot.attribute_names.index(attribute)]
    return np.asarray(row >= snapshot.manifest["attributes"][snapshot.attribute_names.index(attribute)]["threshold"])


def tiny_parts(n_items: int = 240, n_users: int = 20, seed: int = 0) -> SnapshotParts:
    rng = np.random.default_rng(seed)
    topic = np.arange(n_items) % len(TOPICS)
    vectors = np.eye(len(TOPICS), 16)[topic] * 1.5 + rng.normal(size=(n_items, 16)) * 0.3
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    histories = _histories(topic, n_users, rng)
    popularity = np.bincount(histories.items, minlength=n_items)
    words = [[TOPICS[t], TOPICS[t], f"{TOPICS[t]}{'ab'[i // 8 % 2]}"] for i, t in enumerate(topic)]
    tree = name_nodes(build_tree(vectors, popularity, TreeConfig(branching=(4, 2), seed=seed)), words)
    items = pl.DataFrame(
        {
            "item_id": [f"i{i}" for i in range(n_items)],
            "title": [_title(i, TOPICS[t]) for i, t in enumerate(topic)],
            "categories": [[TOPICS[t]] for t in topic],
            "year": pl.Series([1970 + i % 50 for i in range(n_items)], dtype=pl.Int32),
        }
    )
    probabilities = {
        "slow-burn": np.where(np.isin(topic, (0, 4)), 0.9, 0.1),
        "funny": np.where(topic == 1, 0.95, 0.05),
    }
    return SnapshotParts(
        items=items,
        item_vectors=vectors,
        tree=tree,
        popularity=popularity,
        histories=histories,
        user_ids=[f"u{u}" for u in range(n_users)],
        attributes=probabilities,
        attribute_models=dict.fromkeys(ATTRIBUTES, LABELLER),
        transitions=_transitions(tree),
        explore_level=2,
        knowledge=_knowledge(probabilities, n_users),
        models={"sequence": "mean of history", "attributes": LABELLER, "transitions": MODEL},
        verb="watched",
        run={
            "data": {"name": "tiny", "n_items": n_items, "n_users": n_users, "n_events": len(histories.items)},
            "steps": [
                {"name": "annotate", "seconds": 12.5, "calls": 480, "tokens": 96_000, "cost": 0.0},
                {"name": "train", "seconds": 30.0, "calls": 0, "tokens": 0, "cost": 0.0},
            ],
        },
    )


def _title(number: int, topic: str) -> str:
    return "<b>Bold</b> & <script>alert(1)</script>" if number == 1 else f"{topic.capitalize()} story {number}"


def _histories(topic: np.ndarray, n_users: int, rng: np.random.Generator) -> Histories:
    items = []
    for _ in range(n_users):
        likes = rng.choice(len(TOPICS), 2, replace=False)
        weights = np.where(np.isin(topic, likes), 1.0, 0.002)
        size = int(rng.integers(3, 31))
        items.append(rng.choice(len(topic), size, replace=False, p=weights / weights.sum()).astype(np.int32))
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in items])]).astype(np.int64)
    start = int(AS_OF.timestamp() * 1e6)
    times = np.concatenate([start + np.arange(len(part)) * 3_600_000_000 for part in items]).astype(np.int64)
    return Histories(offsets, np.concatenate(items), times)


def _transitions(tree: InterestTree) -> pl.DataFrame:
    nodes = [node.node for node in tree.at_level(2)]
    rows = []
    for i, a in enumerate(nodes):
        for b in nodes[i + 1 :]:
            others = [node for node in nodes if node not in (a, b)]
            rows.append((a, b, others[(a * 7 + b) % len(others)], 0.5, MODEL, PROMPT))
    columns = ["node_a", "node_b", "next_node", "probability", "model", "prompt_hash"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def _knowledge(probabilities: dict[str, np.ndarray], n_users: int) -> Knowledge:
    origin = {"as_of": AS_OF, "prompt_hash": PROMPT, "model": MODEL, "source": "llm", "tokens": 120, "cost": 0.0001}
    labels, tags, profiles = [], [], []
    for i in range(0, len(probabilities["funny"]), 2):
        for name, values in probabilities.items():
            value = float(values[i])
            labels.append(
                {**origin, "entity": f"i{i}", "name": name, "value": value, "confidence": max(value, 1 - value)}
            )
        tags.append({**origin, "entity": f"i{i}", "name": "tag", "text": "told with patience"})
    for u in range(n_users):
        text = "Likes slow stories & <i>old</i> towns."
        profiles.append({**origin, "entity": f"u{u}", "name": "profile", "text": text})
    kinds = {"label": labels, "tag": tags, "profile": profiles}
    return Knowledge({kind: _table(rows) for kind, rows in kinds.items()})


def _table(rows: list[dict[str, object]]) -> pl.DataFrame:
    found = pl.DataFrame(rows)
    columns = [(pl.col(n) if n in found.columns else pl.lit(None).alias(n)).cast(k) for n, k in SCHEMA.items()]
    return found.select(columns)
