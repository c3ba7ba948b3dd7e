"""What the server counts, in Prometheus' format: together over all workers of a host, whichever of them is asked."""

from __future__ import annotations

import os
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from palate.serving.state import Impression
from palate.serving.tracing import span

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
SHARES = (0.0001, 0.001, 0.01, 0.03, 0.1, 0.3, 0.5, 0.75, 0.9, 0.99, 1.0)
TOGETHER = "PROMETHEUS_MULTIPROC_DIR"  # folder in which the workers of a host count together


class Meter:
    """Thread-safe. Labels are few: routes are templates ("/v1/items/{item_id}"), keys go by their configured names."""

    def __init__(self) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = own = CollectorRegistry()
        self.requests = Counter("palate_requests", "Requests answered.", ["route", "status"], registry=own)
        self.seconds = _histogram("palate_request_seconds", "Time to answer.", ["route"], SECONDS, own)
        self.stages = _histogram("palate_stage_seconds", "Time of a part of an answer.", ["stage"], SECONDS, own)
        self.sources = Counter("palate_items_shown", "Items in slates, by source.", ["source", "variant"], registry=own)
        self.fallbacks = Counter(
            "palate_fallbacks", "Stages that something simpler stood in for.", ["stage"], registry=own
        )
        self.cache = Counter("palate_cache", "Look-ups in a cache.", ["cache", "result"], registry=own)
        self.refused = Counter("palate_refused", "Requests refused at the door.", ["reason", "key"], registry=own)
        self.degraded = Counter("palate_degraded", "Answers given while something was away.", ["what"], registry=own)
        self.dropped = Counter("palate_dropped_impressions", "Impressions that could not be written.", registry=own)
        self.swaps = Counter("palate_snapshot_swaps", "Snapshots that were to be served.", ["result"], registry=own)
        self.snapshot = _gauge("palate_snapshot_info", "1 for the snapshot that a process serves.", ["snapshot"], own)
        self.created = _gauge("palate_snapshot_created_timestamp_seconds", "When it was built.", [], own)
        self.stale = _gauge("palate_snapshot_stale", "1 while the current snapshot is refused.", [], own)
        self.state_away = _gauge("palate_state_away", "1 while the state cannot be reached.", [], own)
        self.selectivity = _histogram(
            "palate_restrict_selectivity", "Share of items that a restrict allows, sampled.", [], SHARES, own
        )
        self.recall = _histogram(
            "palate_retrieval_recall", "Of sampled searches, beside brute force in float64.", [], SHARES, own
        )
        # Looked up once: a label of a metric costs as much as counting under it.
        self._under: Callable[..., Any] = cache(lambda metric, *labels: metric.labels(*labels))
        if TOGETHER in os.environ:
            _forget_dead(Path(os.environ[TOGETHER]))

    def record(self, route: str, status: int, seconds: float) -> None:
        """A request that was answered."""
        self._under(self.requests, route, status).inc()
        self._under(self.seconds, route).observe(seconds)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A part of an answer: its time, and a span where traces are on."""
        start = time.perf_counter()
        try:
            with span(name):
                yield
        finally:
            self._under(self.stages, name).observe(time.perf_counter() - start)

    def timed(self, stages: Mapping[str, float], fallbacks: Iterable[str] = ()) -> None:
        """Parts that were timed elsewhere, in seconds, and those that something simpler stood in for."""
        for name, seconds in stages.items():
            self._under(self.stages, name).observe(seconds)
        for name in fallbacks:
            self.fallbacks.labels(name).inc()

    def shown(self, impressions: Iterable[Impression]) -> None:
        for (source, variant), count in Tally((each.source, each.variant) for each in impressions).items():
            self._under(self.sources, source, variant).inc(count)

    def cached(self, name: str, hit: bool) -> None:
        self._under(self.cache, name, "hit" if hit else "miss").inc()

    def serves(self, name: str, created: float, before: str | None = None) -> None:
        """This process answers from a snapshot made at `created` (seconds since the epoch), no longer from `before`."""
        if before is not None and before != name:
            self.snapshot.labels(before).set(0)
        self.snapshot.labels(name).set(1)
        self.created.set(created)

    def text(self) -> str:
        """Of all workers where they count together, else of this process."""
        registry = self.registry
        if TOGETHER in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry).decode()


def _histogram(
    name: str, what: str, labels: list[str], bounds: tuple[float, ...], registry: CollectorRegistry
) -> Histogram:
    return Histogram(name, what, labels, registry=registry, buckets=bounds)


def _gauge(name: str, what: str, labels: list[str], registry: CollectorRegistry) -> Gauge:
    """Of each process that lives: the worst of two workers must not hide behind the other."""
    mode: Literal["liveall"] = "liveall"
    return Gauge(name, what, labels, registry=registry, multiprocess_mode=mode)


def _forget_dead(folder: Path) -> None:
    """Gauges of workers that were killed; their counts stay."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, 0)
            continue
        mark_process_dead(pid)  # type: ignore[no-untyped-call]
