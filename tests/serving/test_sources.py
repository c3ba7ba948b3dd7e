from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tiny_snapshot import TOPICS, tiny_parts

from palate.data.parse_expression import parse_expression
from palate.data.query import Restrict
from palate.serving.fresh import NewItems
from palate.serving.load import load_snapshot
from palate.serving.opened import Snapshot
from palate.serving.pipeline import recommend
from palate.serving.pipeline_config import FreshConfig, PipelineConfig, SimilarConfig
from palate.serving.snapshot import build_snapshot

NOW = datetime(2024, 6, 1, tzinfo=UTC)
MOMENT = int(NOW.timestamp() * 1e6)


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Items 0, 10, 20, … came within the last month, "i0" last; the others long ago or nobody knows when."""
    parts = tiny_parts()
    created = [
        NOW - timedelta(hours=i + 1) if i % 10 == 0 else None if i % 3 else NOW - timedelta(days=900)
        for i in range(240)
    ]
    items = parts.items.with_columns(pl.Series("created_at", created, dtype=pl.Datetime("us", "UTC")))
    folder: Path = tmp_path_factory.mktemp("dated")
    return load_snapshot(build_snapshot(folder, tiny_parts().__class__(**{**vars(parts), "items": items})))


def only(source: str, **settings) -> PipelineConfig:  # type: ignore[no-untyped-def]
    return PipelineConfig(sources={source: 1.0}, **settings)


def test_similar_items_are_like_one_of_the_last_chosen(snapshot: Snapshot) -> None:
    history = np.array([3, 11, 2, 0], dtype=np.int32)  # romance twice, then war and crime
    slate = recommend(snapshot, history, 20, config=only("similar", similar=SimilarConfig(last=2, level=0)))
    topics = {TOPICS[snapshot.item_nums[each.item_id] % len(TOPICS)] for each in slate}
    assert topics == {"war", "crime"}
    assert [each.score for each in slate] == sorted((each.score for each in slate), reverse=True)
    for each in slate:
        assert each.source == "similar"
        near = max(
            (2, 0), key=lambda item: float(snapshot.vector(item) @ snapshot.vector(snapshot.item_nums[each.item_id]))
        )
        assert each.reasons[0].text == f"like {snapshot.titles[near]}, which you watched"


def test_fresh_items_are_the_nearest_of_the_newest(dated: Snapshot) -> None:
    history = np.array([10, 18], dtype=np.int32)
    slate = recommend(dated, history, 5, config=only("fresh"), moment=MOMENT)
    new = [i for i in range(0, 240, 10) if i != 10]
    query = dated.vectors[dated.tree.position[history]].mean(axis=0)
    best = sorted(new, key=lambda item: -float(dated.vector(item) @ query))[:5]
    assert [dated.item_nums[each.item_id] for each in slate] == best
    assert slate[0].reasons[0].text.startswith("new since 2024-05-")
    newest = recommend(dated, history, 3, config=only("fresh", fresh=FreshConfig(most=3)), moment=MOMENT)
    assert {each.item_id for each in newest if each.source == "fresh"} == {"i0", "i20"}  # the third was seen
    later = recommend(dated, history, 3, config=only("fresh"), moment=MOMENT + 90 * 86_400_000_000)
    assert {each.source for each in later} == {"popular"}


def test_many_fresh_items_are_the_nearest_too(dated: Snapshot) -> None:
    history = np.array([10, 18], dtype=np.int32)
    few, many = (recommend(dated, history, n, config=only("fresh"), moment=MOMENT) for n in (8, 60))
    newest = [[each.item_id for each in slate if each.source == "fresh"] for slate in (few, many)]
    assert newest[0] == newest[1][:8] and len(newest[1]) == 23


def test_what_was_put_since_is_fresh_too_and_restricts_hold(dated: Snapshot) -> None:
    leaf = np.array([dated.leaf_of(10)], dtype=np.int32)
    row = dated.items[:1].with_columns(pl.lit("late").alias("item_id"), pl.lit(240, pl.Int32).alias("item_num"))
    table = row.with_columns(pl.lit(None, pl.Datetime("us", "UTC")).alias("created_at"))
    grown = dated.with_new(NewItems(dated.vector(10)[None] * 5, leaf, {}, table.drop("item_num")), table)
    history = np.array([10], dtype=np.int32)
    slate = recommend(grown, history, 5, config=only("fresh"), moment=MOMENT)
    assert slate[0].item_id == "late"
    assert slate[0].reasons[0].text == "new"
    asked = Restrict(where=parse_expression("year >= 1990"))
    years = dict(dated.items.select("item_id", "year").iter_rows())
    found = recommend(grown, history, 5, asked, config=only("fresh"), moment=MOMENT)
    assert found and all(years[each.item_id] >= 1990 for each in found)


def test_popular_can_be_a_source_of_its_own(snapshot: Snapshot) -> None:
    config = PipelineConfig(sources={"sequence": 0.5, "popular": 0.5})
    slate = recommend(snapshot, "u0", 10, config=config)
    assert [each.source for each in slate].count("popular") == 5
