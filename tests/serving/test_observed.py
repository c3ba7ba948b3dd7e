"""The log, the counts and the traces of requests."""

from __future__ import annotations

import json
import logging
import logging.config
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tiny_snapshot import TOPICS

from palate.serving import tracing
from palate.serving.api import create_app
from palate.serving.crew import Crew
from palate.serving.metering import Meter
from palate.serving.observed import JsonLines, logging_config
from palate.serving.opened import Snapshot
from palate.serving.sampling import Sampler
from palate.serving.stages import Stage, Steps
from palate.serving.state import open_state, unavailable


@pytest.fixture
def client(snapshot_folder: Path) -> TestClient:
    return TestClient(create_app(snapshot_folder))


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def lines() -> Iterator[list[str]]:
    handler, logger = Lines(), logging.getLogger("palate")
    logger.addHandler(handler)
    before = logger.level
    logger.setLevel(logging.INFO)
    yield handler.lines
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_a_request_is_one_line_with_its_id(client: TestClient, lines: list[str], snapshot: Snapshot) -> None:
    answer = client.get(
        "/v1/recommend/anna@example.org", params={"restrict": "attr:funny"}, headers={"X-Request-ID": "r-7"}
    )
    assert answer.headers["X-Request-ID"] == answer.json()["request_id"] == "r-7"
    (line,) = lines
    told = json.loads(line)
    assert {name: told[name] for name in ("event", "request_id", "method", "route", "status", "snapshot")} == {
        "event": "request",
        "request_id": "r-7",
        "method": "GET",
        "route": "/v1/recommend/{user_id}",
        "status": 200,
        "snapshot": snapshot.name,
    }
    assert told["ms"] > 0 and "anna" not in line and "funny" not in line


def test_an_id_is_made_where_none_came(client: TestClient, lines: list[str]) -> None:
    answer = client.get("/v1/recommend/u0")
    assert answer.headers["X-Request-ID"] == answer.json()["request_id"] == json.loads(lines[0])["request_id"]
    assert client.get("/v1/recommend/u0").headers["X-Request-ID"] != answer.headers["X-Request-ID"]


@pytest.mark.parametrize("nasty", ["a b", "x\x1b[31m", "\xe9", "x" * 201, '"}{"'])
def test_nothing_that_is_sent_can_forge_a_line(client: TestClient, lines: list[str], nasty: str) -> None:
    client.get("/v1/recommend/u0", headers={"X-Request-ID": nasty.encode("latin-1")})  # type: ignore[dict-item]
    client.request("GET", "/v1/no%0d%0awhere/" + "%1b[0m")
    for line in lines:
        assert line.isascii() and line.isprintable()
        assert json.loads(line)["event"] == "request"


def test_a_failure_of_ours_is_a_500_that_the_log_explains(
    client: TestClient, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("cannot\nbe")

    monkeypatch.setattr("palate.serving.describe.interests", broken)
    answer = client.get("/v1/interests", headers={"X-Request-ID": "r-9"})
    assert answer.status_code == 500 and answer.json()["request_id"] == "r-9" and "cannot" not in answer.text
    failed, request = map(json.loads, lines)
    assert failed["request_id"] == "r-9" and "RuntimeError: cannot\nbe" in failed["error"]
    assert request["status"] == 500
    assert 'palate_requests_total{route="/v1/interests",status="500"} 1.0' in client.get("/metrics").text


def test_uvicorn_logs_as_we_do() -> None:
    config = logging_config(each_request=False)
    assert config["loggers"]["palate.requests"]["level"] == "WARNING"
    assert config["loggers"]["uvicorn"]["handlers"] == ["stderr"]
    configured = logging.config.DictConfigurator(config)
    formatter = configured.configure_formatter(configured.config["formatters"]["json"])
    assert isinstance(formatter, JsonLines)


def test_what_is_counted(snapshot_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = open_state(f"sqlite:{tmp_path / 's.sqlite'}")
    client = TestClient(create_app(snapshot_folder, state=state))
    slate = client.get("/v1/recommend/u0", params={"n": 10}).json()["items"]

    def away(user_id: str) -> None:
        raise unavailable("here", "gone")

    with monkeypatch.context() as patched:
        patched.setattr(state, "recent", away)
        client.get("/v1/recommend/someone")
    text = client.get("/metrics").text
    assert "palate_state_away 1.0" in text
    client.app.state.live._away_until = 0.0  # type: ignore[attr-defined]
    client.app.state.live.past("u0")  # type: ignore[attr-defined]
    assert "palate_state_away 0.0" in client.get("/metrics").text
    state.close()
    for source in {item["source"] for item in slate} - {"popular"}:
        count = sum(item["source"] == source for item in slate)
        assert f'palate_items_shown_total{{source="{source}",variant="default"}} {count}.0' in text
    assert 'palate_stage_seconds_count{stage="state"} 2.0' in text
    assert 'palate_stage_seconds_count{stage="slate"} 2.0' in text
    assert 'palate_degraded_total{what="state"} 1.0' in text
    assert "palate_snapshot_created_timestamp_seconds 1." in text
    assert "_created{" not in text
    client.get("/v1/state")
    for _ in range(3):
        client.get("/v1/recommend/u0", params={"restrict": "attr:funny"})
    text = client.get("/metrics").text
    assert 'palate_requests_total{route="/v1/state",status="200"} 1.0' in text
    assert 'palate_cache_total{cache="restrict",result="miss"} ' in text
    assert 'palate_cache_total{cache="restrict",result="hit"} ' in text


def test_a_sample_tells_selectivity_and_recall(snapshot: Snapshot) -> None:
    meter = Meter()
    sampler = Sampler(meter, 1.0)
    sampler.start()
    sampler.offer(snapshot, "u0", "category = war")
    sampler.close()
    for user, restrict in (("u1", None), ("nobody", "not seen"), ("u1", "not seen and attr:funny")):
        sampler.look(snapshot, user, restrict)
    text = meter.text()
    assert "palate_restrict_selectivity_count 3.0" in text
    share = 1 / len(TOPICS)
    assert f'palate_restrict_selectivity_bucket{{le="{next(b for b in (0.1, 0.3) if b >= share)}"}}' in text
    assert "palate_retrieval_recall_count 3.0" in text and "palate_retrieval_recall_sum 3.0" in text


def test_traces(client: TestClient) -> None:
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = memory.InMemorySpanExporter()
    assert tracing.start_tracing() is False  # nobody asked for it
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    try:
        assert tracing.start_tracing(exporter)
        client.get("/v1/recommend/u0", headers={"traceparent": parent, "X-Request-ID": "r-1"})
    finally:
        tracing.stop_tracing()
    client.get("/v1/recommend/u0")
    spans: dict[str, Any] = {span.name: span for span in exporter.get_finished_spans()}
    root = spans["GET /v1/recommend/{user_id}"]
    assert {*spans} == {root.name, "state", "slate"}
    assert (
        f"{root.context.trace_id:032x}" == parent.split("-")[1]
        and f"{root.parent.span_id:016x}" == parent.split("-")[2]
    )
    assert all(spans[name].parent.span_id == root.context.span_id for name in ("state", "slate"))
    assert root.attributes["http.response.status_code"] == 200 and root.attributes["palate.request_id"] == "r-1"


def test_a_span_may_end_in_another_thread_than_it_began(caplog: pytest.LogCaptureFixture) -> None:
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter, meter, let_go = memory.InMemorySpanExporter(), Meter(), threading.Event()

    def steps() -> Steps[set[int]]:
        before = threading.get_ident()
        with meter.stage("slate"):
            in_time = yield Stage(10, lambda: bool(let_go.wait(30)) or None)
        assert not in_time
        return {before, threading.get_ident()}

    try:
        tracing.start_tracing(exporter)
        assert len(Crew().run(steps())) == 2
    finally:
        tracing.stop_tracing()
        let_go.set()
    assert [span.name for span in exporter.get_finished_spans()] == ["slate"]
    assert not caplog.records  # OpenTelemetry logs a context that is left where it was not entered


def test_a_span_of_what_failed_is_an_error() -> None:
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = memory.InMemorySpanExporter()
    try:
        tracing.start_tracing(exporter)
        with pytest.raises(ValueError, match="no"), Meter().stage("state"):
            raise ValueError("no")
    finally:
        tracing.stop_tracing()
    (span,) = exporter.get_finished_spans()
    assert not span.status.is_ok and [event.name for event in span.events] == ["exception"]


def test_traces_that_are_asked_for_need_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    from palate.errors import InputError

    monkeypatch.setenv(tracing.ENDPOINT, "http://127.0.0.1:4318")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="OpenTelemetry"):
        tracing.start_tracing()
