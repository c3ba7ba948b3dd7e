"""A slate does not wait for what is slow, and does not fall with what fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from palate.data.query import Restrict
from palate.errors import InputError
from palate.serving.api import create_app
from palate.serving.candidates import Asked, Candidates
from palate.serving.opened import Snapshot
from palate.serving.pipeline import recommend
from palate.serving.pipeline_config import BudgetConfig, PipelineConfig
from palate.serving.sources import registry

SHARES = {"sequence": 0.6, "test": 0.4}


@pytest.fixture
def let_go() -> Iterator[threading.Event]:
    """Ends what was abandoned, so that no thread outlives the test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Registers a source of the name "test": one file, one line."""

    def register(function) -> None:  # type: ignore[no-untyped-def]
        monkeypatch.setitem(registry.SOURCES, "test", f"{__name__}:added")
        monkeypatch.setitem(globals(), "added", function)
        registry.source.cache_clear()

    yield register
    registry.source.cache_clear()


class Backwards:
    def score(self, snapshot: Snapshot, history, vector, items):  # type: ignore[no-untyped-def]
        return -items.astype(np.float32)


def config(**settings) -> PipelineConfig:  # type: ignore[no-untyped-def]
    return PipelineConfig(sources={"sequence": 1.0}, **settings)


def test_a_source_that_raises_is_gone_without(snapshot: Snapshot, source) -> None:  # type: ignore[no-untyped-def]
    def broken(asked: Asked) -> list[Candidates]:
        raise ValueError("no")

    source(broken)
    slate = recommend(snapshot, "u0", 10, config=PipelineConfig(sources=SHARES))
    assert [str(each) for each in slate.fallbacks] == ["test failed"]
    assert [each.source for each in slate] == ["sequence"] * 10


def test_a_late_source_is_gone_without(snapshot: Snapshot, source, let_go: threading.Event) -> None:  # type: ignore[no-untyped-def]
    def slow(asked: Asked) -> list[Candidates]:
        let_go.wait(30)
        return []

    source(slow)
    pipeline = PipelineConfig(sources=SHARES | {"attribute": 0.2}, budget=BudgetConfig(candidates=150))
    start = time.perf_counter()
    slate = recommend(snapshot, "u0", 10, config=pipeline)
    assert time.perf_counter() - start < 5
    assert [str(each) for each in slate.fallbacks] == ["test late", "attribute late"]
    assert {each.source for each in slate} == {"sequence"}


def test_where_every_source_is_late_popular_items_are_left(snapshot: Snapshot, source, let_go: threading.Event) -> None:  # type: ignore[no-untyped-def]
    source(lambda asked: let_go.wait(30))
    pipeline = PipelineConfig(sources={"test": 1.0}, budget=BudgetConfig(candidates=20))
    slate = recommend(snapshot, "u0", 10, config=pipeline)
    assert {each.source for each in slate} == {"popular"}
    assert len(slate) == 10


def test_the_ranker_orders_within_or_across_the_sources(snapshot: Snapshot) -> None:
    ranked = replace(snapshot, ranker=Backwards())
    nums = [snapshot.item_nums[each.item_id] for each in recommend(ranked, "u0", 10, config=config())]
    assert nums == sorted(nums)
    assert nums != [snapshot.item_nums[each.item_id] for each in recommend(snapshot, "u0", 10, config=config())]
    across = recommend(ranked, "u0", 10, config=PipelineConfig(rank="across"))
    assert [each.ranked for each in across] == sorted((each.ranked for each in across), reverse=True)
    within = recommend(ranked, "u0", 10, config=PipelineConfig())
    plain = recommend(snapshot, "u0", 10, config=PipelineConfig())
    assert [each.source for each in within] == [each.source for each in plain]


@pytest.mark.parametrize("kind", ["slow", "broken"])
def test_a_ranker_that_is_slow_or_fails_leaves_the_order_of_the_sources(
    snapshot: Snapshot, let_go: threading.Event, kind: str
) -> None:
    class Bad:
        def score(self, snapshot: Snapshot, history, vector, items):  # type: ignore[no-untyped-def]
            if kind == "broken":
                raise RuntimeError("no")
            let_go.wait(30)

    bad = replace(snapshot, ranker=Bad())
    start = time.perf_counter()
    slate = recommend(bad, "u0", 10, config=config(budget=BudgetConfig(rank=20)))
    assert time.perf_counter() - start < 5
    assert [str(each) for each in slate.fallbacks] == [f"rank {'failed' if kind == 'broken' else 'late'}"]
    assert slate.items == recommend(snapshot, "u0", 10, config=config()).items


def test_many_late_rankers_do_not_use_up_the_threads_for_good(snapshot: Snapshot, let_go: threading.Event) -> None:
    class Slow:
        def score(self, snapshot: Snapshot, history, vector, items):  # type: ignore[no-untyped-def]
            let_go.wait(30)

    slow = replace(snapshot, ranker=Slow())
    hurried = config(budget=BudgetConfig(rank=5, candidates=None))
    assert all(recommend(slow, "u0", 3, config=hurried).fallbacks for _ in range(12))
    let_go.set()
    time.sleep(0.1)
    patient = config(budget=BudgetConfig(rank=5000))
    assert not recommend(replace(snapshot, ranker=Backwards()), "u0", 3, config=patient).fallbacks


def test_a_bad_question_is_not_a_failed_source(snapshot: Snapshot) -> None:
    with pytest.raises(InputError, match="no such attribute"):
        recommend(snapshot, "u0", 5, Restrict(attributes=("absent",)))


def test_the_answer_names_what_was_gone_without_and_others_may_count_it(snapshot_folder: Path, source) -> None:  # type: ignore[no-untyped-def]
    def broken(asked: Asked) -> list[Candidates]:
        raise ValueError("no")

    source(broken)
    app = create_app(snapshot_folder, pipeline=PipelineConfig(sources=SHARES))
    client = TestClient(app)
    assert client.get("/v1/recommend/u0").json()["fallbacks"] == ["test failed"]
    counted = client.get("/metrics").text
    assert 'palate_fallbacks_total{stage="test"} 1.0' in counted
    for stage in ("encode", "candidates", "rank", "arrange", "slate"):
        assert f'palate_stage_seconds_count{{stage="{stage}"}} 1.0' in counted
