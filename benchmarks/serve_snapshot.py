"""A synthetic snapshot of any size with all that a slate may need: for measuring, not for learning anything from it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from palate.data.dataset import Histories
from palate.interests.tree import InterestTree, TreeConfig, build_tree
from palate.knowledge.tables import SCHEMA, Knowledge
from palate.serving.snapshot import SnapshotParts, build_snapshot
from palate.serving.versions import use

CATEGORIES = tuple(f"category {number}" for number in range(24))
LENGTH = 50  # events that the sequence model reads


def synthetic_snapshot(
    folder: Path,
    n_items: int = 10_000,
    d: int = 64,
    n_users: int = 1000,
    models: bool = False,
    branching: tuple[int, int] = (8, 8),
) -> Path:
    """Items around 40 centres, histories of 5 to 300 events (median 40), four attributes, a full table of transitions.

    Two items in a hundred came in the last month. With `models` (extra `train`) there are a SASRec of two blocks and a
    DeepFM, trained for a moment: they cost what trained ones cost.
    """
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, d))[rng.integers(40, size=n_items)] + rng.normal(size=(n_items, d))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    popularity = rng.zipf(1.5, n_items).clip(max=10_000)
    tree = build_tree(vectors, popularity, TreeConfig(branching=branching, iterations=5))
    histories = _histories(n_items, n_users, popularity, rng)
    attributes = {name: rng.random(n_items).astype(np.float32) for name in ("calm", "bold", "slow", "bright")}
    parts = SnapshotParts(
        items=_items(n_items, rng),
        item_vectors=vectors,
        tree=tree,
        popularity=popularity,
        histories=histories,
        user_ids=[f"user{number}" for number in range(n_users)],
        attributes=attributes,
        thresholds={"calm": 0.9, "bold": 0.7, "slow": 0.95, "bright": 0.8},
        transitions=_transitions(tree, rng),
        knowledge=_knowledge(attributes),
        explore_level=1,
        max_length=LENGTH,
        **(_models(folder, vectors, histories, attributes, popularity, tree) if models else {}),
    )
    path = build_snapshot(folder, parts)
    use(folder, path.name)
    return path


def _items(n: int, rng: np.random.Generator) -> pl.DataFrame:
    now = datetime.now(UTC)
    ages = np.where(rng.random(n) < 0.02, rng.uniform(0, 30, n), rng.uniform(60, 2000, n))
    created = [now - timedelta(days=age) for age in ages.tolist()]
    ids = [f"item{number}" for number in range(n)]
    return pl.DataFrame(
        {
            "item_id": ids,
            "title": [f"The title of {each}" for each in ids],
            "categories": [list(rng.choice(CATEGORIES, 2, replace=False)) for _ in ids],
            "year": rng.integers(1950, 2026, n).astype(np.int32),
            "created_at": pl.Series(created, dtype=pl.Datetime("us", "UTC")),
        }
    )


def _histories(n_items: int, n_users: int, popularity: np.ndarray, rng: np.random.Generator) -> Histories:
    lengths = np.clip(rng.lognormal(np.log(40), 0.8, n_users), 5, min(300, n_items // 2)).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    bounds = np.cumsum(np.sqrt(popularity) / np.sqrt(popularity).sum())
    items = np.minimum(np.searchsorted(bounds, rng.random(offsets[-1])), n_items - 1).astype(np.int32)
    return Histories(offsets, items, np.arange(len(items)))


def _transitions(tree: InterestTree, rng: np.random.Generator) -> pl.DataFrame:
    nodes = [node.node for node in tree.at_level(1)]
    pairs = [(a, b, int(rng.choice(nodes)), 0.5, "none", "") for a in nodes for b in nodes if a <= b]
    columns = ["node_a", "node_b", "next_node", "probability", "model", "prompt_hash"]
    return pl.DataFrame(pairs, schema=columns, orient="row")


def _knowledge(attributes: dict[str, np.ndarray]) -> Knowledge:
    """A label of every item and attribute, as a student leaves them: the evidence behind reasons."""
    columns = pl.DataFrame(schema=SCHEMA)
    tables = []
    for name, values in attributes.items():
        ids = [f"item{number}" for number in range(len(values))]
        rows = pl.DataFrame({"entity": ids, "value": values.astype(np.float64)})
        said = rows.with_columns(pl.lit(name).alias("name"), pl.lit("student of none").alias("model"))
        tables.append(pl.concat([columns, said.cast({"value": SCHEMA["value"]})], how="diagonal_relaxed"))
    return Knowledge({"label": pl.concat(tables).select(list(SCHEMA)).cast(SCHEMA)})  # type: ignore[arg-type]


def _models(
    folder: Path,
    vectors: np.ndarray,
    histories: Histories,
    attributes: dict,
    popularity: np.ndarray,
    tree: InterestTree,
) -> dict[str, Path]:  # type: ignore[type-arg]
    from palate.data.event_log import EventLog
    from palate.data.query import Query
    from palate.models.ranking.pair_ranker import PairRanker, PairRankerConfig
    from palate.models.ranking.pair_rows import OTHERS, group_rows
    from palate.models.ranking.pairs import Items
    from palate.models.sasrec import SasRec, SasRecConfig

    folder.mkdir(parents=True, exist_ok=True)
    few = Histories(histories.offsets[:201], histories.items, histories.times)
    config = SasRecConfig(dimensions=vectors.shape[1], length=LENGTH, epochs=1, blocks=2)
    SasRec(config).fit(EventLog(few, len(vectors))).export_onnx(folder / "encoder.onnx")
    labels = np.stack(list(attributes.values()), axis=1)
    items = Items(vectors, labels, popularity.astype(np.float32), tree.node_of_items(tree.depth))
    queries = [Query(None, histories.of(user)[:-1]) for user in range(100)]
    chosen = np.array([histories.of(user)[-1] for user in range(100)])
    rows = group_rows(queries, chosen, vectors[:100], items, labels.mean(axis=0))
    ranker = PairRanker(list(attributes), labels.mean(axis=0), PairRankerConfig(epochs=1))
    ranker.fit(rows, OTHERS + 1).export_onnx(folder / "ranker.onnx")
    return {"encoder": folder / "encoder.onnx", "ranker": folder / "ranker.onnx"}
