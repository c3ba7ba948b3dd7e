from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient
from state_stores import RedisServer
from tiny_snapshot import TOPICS, tiny_parts

from palate.data.dataset import EVENT_SCHEMA, FloatArray
from palate.data.query import Query
from palate.errors import StorageError
from palate.serving import live, state_sqlite
from palate.serving.api import create_app
from palate.serving.live import Live
from palate.serving.opened import Snapshot
from palate.serving.pipeline_config import BudgetConfig, PipelineConfig
from palate.serving.snapshot import build_snapshot
from palate.serving.state import State, open_state
from palate.serving.versions import use

SURROGATE = b'{"events": [{"event_id": "\\ud800", "user_id": "u", "item_id": "i"}]}'
UNHURRIED = PipelineConfig(budget=BudgetConfig(candidates=None, rank=None))


class WordEncoder:
    """A text's topics, counted: what a sentence encoder would know of the tiny catalogue."""

    name, width = "words", len(TOPICS)

    def encode(self, texts: Sequence[str]) -> FloatArray:
        counts = np.array([[text.lower().count(topic) for topic in TOPICS] for text in texts], dtype=np.float32)
        return (counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("snapshots")
    parts = tiny_parts()
    texts = WordEncoder().encode(parts.items["categories"].list.join(" ").to_list())
    use(folder, build_snapshot(folder, replace(parts, text_vectors=texts, text_encoder="words")).name)
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = open_state(f"sqlite:{tmp_path / 'state.sqlite'}")
    yield opened
    opened.close()


@pytest.fixture
def client(folder: Path, state: State, tmp_path: Path) -> TestClient:
    # However long it takes: what a busy machine leaves out is tested elsewhere.
    app = create_app(folder, None, UNHURRIED, state, tmp_path / "landing", WordEncoder())
    return TestClient(app)


def event(number: int | str, item_id: str = "i0", user_id: str = "u0", **more: object) -> dict[str, object]:
    return {"event_id": f"e{number}", "user_id": user_id, "item_id": item_id, **more}


def ids(client: TestClient, user_id: str = "u0", **params: object) -> list[str]:
    answer = client.get(f"/v1/recommend/{user_id}", params=params, headers={"X-Request-ID": "r"})
    assert answer.status_code == 200
    return [item["item_id"] for item in answer.json()["items"]]


def test_an_event_changes_the_next_recommendation(client: TestClient) -> None:
    before = ids(client)
    sent = client.post("/v1/events", json={"events": [event(1, before[0]), event(2, before[1], event_type="skip")]})
    assert sent.json() == {"new": 2, "replayed": 0, "unknown_items": []}
    after = ids(client)
    assert after != before and not {*before[:2]} & {*after}


def test_someone_new_is_known_after_one_event(client: TestClient, folder: Path) -> None:
    assert client.get("/v1/recommend/newcomer").json()["known_user"] is False
    client.post("/v1/events", json={"events": [event(1, "i2", "newcomer", event_type="click")]})
    answer = client.get("/v1/recommend/newcomer").json()
    assert answer["known_user"] is True
    assert {item["source"] for item in answer["items"]} >= {"sequence"}
    told = [item for item in answer["items"] if item["source"] == "sequence"]
    assert all("War story 2" in item["reasons"][0] for item in told)


def test_a_replay_changes_nothing(client: TestClient, state: State) -> None:
    body = {"events": [event(1, "i8"), event(1, "i9"), event(2, "i16")]}
    assert client.post("/v1/events", json=body).json()["replayed"] == 1
    before, kept = ids(client), state.recent("u0")
    assert client.post("/v1/events", json=body).json() == {"new": 0, "replayed": 3, "unknown_items": []}
    assert state.recent("u0") == kept and ids(client) == before


def test_what_the_snapshot_has_learned_counts_once(folder: Path, client: TestClient) -> None:
    """An event that was landed and trained upon is in both."""
    built: Snapshot = client.app.state.live.built  # type: ignore[attr-defined]
    last, when = built.history("u1")[-1], int(built.histories.times_of(1)[-1])
    stamp = pl.Series([when]).cast(pl.Datetime("us", "UTC")).dt.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00")[0]
    before = ids(client, "u1")
    client.post("/v1/events", json={"events": [event(1, built.item_ids[last], "u1", timestamp=stamp)]})
    assert ids(client, "u1") == before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"event_type": "stare"}, "event_type"),
        ({"event_id": ""}, "event_id"),
        ({"user_id": "a\x00b"}, "user_id"),
        ({"item_id": "x" * 201}, "item_id"),
        ({"value": "much"}, "value"),
        ({"timestamp": "2020-01-01T00:00:00"}, "timestamp"),
        ({"timestamp": "2999-01-01T00:00:00Z"}, "timestamp"),
        ({"mood": 1}, "mood"),
    ],
)
def test_a_bad_event_is_refused_with_all_of_its_request(
    client: TestClient, state: State, change: dict[str, object], field: str
) -> None:
    answer = client.post("/v1/events", json={"events": [event(1), {**event(2), **change}]})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["field"].endswith(field)
    assert state.memory()["rows"]["events"] == 0


@pytest.mark.parametrize("body", [b"\xff\xfe", b'{"events": [' + b"[" * 5000, b"[]", b'{"events": []}', SURROGATE])
def test_bodies_that_are_none_are_refused(client: TestClient, body: bytes) -> None:
    assert client.post("/v1/events", content=body, headers={"content-type": "application/json"}).status_code in (
        400,
        422,
    )


def test_a_new_item_is_served_at_once(client: TestClient, state: State, folder: Path, tmp_path: Path) -> None:
    items = [
        {"item_id": f"n{k}", "title": f"Fresh {topic} story", "categories": [topic], "year": 2024}
        for k, topic in enumerate(TOPICS)
    ]
    assert client.put("/v1/items", json={"items": items}).json() == {"changed": 8, "unchanged": 0, "in_snapshot": []}
    found = client.get("/v1/items/n1").json()
    assert found["title"] == "Fresh comedy story" and found["categories"] == ["comedy"]
    assert {label["name"]: label["fits"] for label in found["labels"]} == {"slow-burn": False, "funny": True}
    assert {other["categories"][0] for other in client.get("/v1/items/n1/similar").json()["items"]} == {"comedy"}
    built: Snapshot = client.app.state.live.built  # type: ignore[attr-defined]
    leaf = found["interests"][-1]["node"]
    own = [built.items["categories"][int(num)][0] for num in built.tree.items_of(leaf)]
    assert own.count("comedy") > len(own) / 2
    allowed = {"restrict": "category = comedy and attr:funny and year = 2024", "n": 5}
    assert ids(client, "u0", **allowed) == ["n1"]
    assert state.queued() == [f"n{k}" for k in range(8)]
    again = TestClient(create_app(folder, state=state, encoder=WordEncoder()))  # a restart
    assert ids(again, "u0", **allowed) == ["n1"]


def test_putting_again(client: TestClient, state: State) -> None:
    item = {"item_id": "n1", "title": "Fresh war story", "categories": ["war"]}
    client.put("/v1/items", json={"items": [item]})
    state.asked(["n1"])
    assert client.put("/v1/items", json={"items": [item]}).json()["unchanged"] == 1
    assert state.queued() == []
    client.put("/v1/items", json={"items": [{**item, "title": "A comedy", "categories": ["comedy"]}]})
    assert client.get("/v1/items/n1").json()["title"] == "A comedy" and state.queued() == ["n1"]
    own = client.put("/v1/items", json={"items": [{"item_id": "i0", "title": "Another"}]}).json()
    assert own["in_snapshot"] == ["i0"] and client.get("/v1/items/i0").json()["title"] == "Crime story 0"


def test_a_chosen_new_item_is_not_shown_again(client: TestClient) -> None:
    sent = client.post("/v1/events", json={"events": [event(1, "n1")]})
    assert sent.json()["unknown_items"] == ["n1"]
    client.put("/v1/items", json={"items": [{"item_id": "n1", "title": "x", "vector": [1.0] * 16}]})
    restrict = "not category in (" + ", ".join(TOPICS) + ")"
    assert ids(client, "u1", restrict=restrict) == ["n1"]
    assert ids(client, "u0", restrict=restrict) == []
    assert ids(client, "u0", restrict="seen", n=50).count("n1") == 1


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"item_id": "n", "vector": [1.0]}, "vector"),
        ({"item_id": "n", "vector": [1e39] + [1.0] * 15}, "items.0.vector.0"),
        ({"item_id": "n"}, "items"),
        ({"item_id": "n", "title": "x" * 1001}, "items.0.title"),
    ],
)
def test_an_item_that_cannot_be_placed_is_refused(client: TestClient, item: dict[str, object], field: str) -> None:
    answer = client.put("/v1/items", json={"items": [item]})
    assert answer.status_code == 422 and answer.json()["detail"][0]["field"] == field


def test_a_snapshot_without_texts_says_so(snapshot_folder: Path, state: State) -> None:
    client = TestClient(create_app(snapshot_folder, state=state, encoder=WordEncoder()))
    answer = client.put("/v1/items", json={"items": [{"item_id": "n", "title": "War"}]})
    assert answer.status_code == 422 and "cannot place" in answer.json()["detail"][0]["what"]


def test_events_and_impressions_land(folder: Path, state: State, tmp_path: Path) -> None:
    app = create_app(folder, state=state, landing=tmp_path / "landing")
    with TestClient(app) as client:
        shown = ids(client, n=4)
        client.post("/v1/events", json={"events": [event(1, shown[0], request_id="r", value=2.0)]})
    events = pl.read_parquet(tmp_path / "landing" / "events" / "*.parquet")
    assert dict(events.select(list(EVENT_SCHEMA)).schema) == EVENT_SCHEMA
    assert events.select("event_id", "item_id", "request_id", "value").row(0) == ("e1", shown[0], "r", 2.0)
    impressions = pl.read_parquet(tmp_path / "landing" / "impressions" / "*.parquet")
    assert impressions["item_id"].to_list() == shown and impressions["position"].to_list() == [0, 1, 2, 3]
    assert impressions["variant"].unique().to_list() == ["default"] and 0 < impressions["propensity"].min() <= 1


def test_a_flush_that_was_killed_is_done_again_alike(state: State, client: TestClient, tmp_path: Path) -> None:
    """Killed after the part file and before the state knows: the same file, the same rows."""
    client.post("/v1/events", json={"events": [event(n) for n in range(3)]})
    marked = state.landed
    state.landed = lambda batch: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        live.land(state, tmp_path / "landing")
    state.landed = marked  # type: ignore[method-assign]
    client.post("/v1/events", json={"events": [event(9)]})
    assert live.land(state, tmp_path / "landing") == 4
    events = pl.read_parquet(tmp_path / "landing" / "events" / "*.parquet")
    assert sorted(events["event_id"]) == ["e0", "e1", "e2", "e9"]


def test_a_full_disk_keeps_the_events(state: State, client: TestClient, tmp_path: Path) -> None:
    client.post("/v1/events", json={"events": [event(1)]})
    (tmp_path / "landing").write_text("in the way")
    with pytest.raises(StorageError, match="part file could not be written"):
        live.land(state, tmp_path / "landing")
    assert state.batch("events", 9) is not None


def test_a_locked_state_is_a_503(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = sqlite3.connect(tmp_path / "state.sqlite", isolation_level=None)
    client.app.state.live.state._db.execute("PRAGMA busy_timeout=50")  # type: ignore[attr-defined]
    other.execute("BEGIN IMMEDIATE")
    answer = client.post("/v1/events", json={"events": [event(1)]})
    assert answer.status_code == 503 and "locked" in json.dumps(answer.json())
    assert str(tmp_path) not in answer.text and answer.headers["Retry-After"] == "1"
    assert ids(client)  # reading goes on
    other.execute("ROLLBACK")
    assert client.post("/v1/events", json={"events": [event(1)]}).json()["new"] == 1
    other.close()


def test_a_full_state_is_a_503_and_keeps_nothing(client: TestClient, state: State) -> None:
    assert isinstance(state, state_sqlite.SqliteState)
    pages = state._db.execute("PRAGMA page_count").fetchone()[0]
    state._db.execute(f"PRAGMA max_page_count={pages}")
    many = {"events": [event(n, "i" * 200) for n in range(1000)]}
    answer = client.post("/v1/events", json=many)
    assert answer.status_code == 503 and "full" in json.dumps(answer.json())
    state._db.execute("PRAGMA max_page_count=1000000")
    assert client.post("/v1/events", json=many).json()["new"] == 1000


def test_redis_stops_and_starts(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_LOOK", 0.0)
    server = RedisServer(tmp_path)
    state = open_state(server.address)
    client = TestClient(create_app(folder, state=state, encoder=WordEncoder()))
    client.post("/v1/events", json={"events": [event(1, "i2", "ann")]})
    healthy = client.get("/v1/recommend/ann", headers={"X-Request-ID": "r"})
    assert "X-Palate-Degraded" not in healthy.headers
    server.stop()
    degraded = client.get("/v1/recommend/ann", headers={"X-Request-ID": "r"})
    assert degraded.headers["X-Palate-Degraded"] == "state" and degraded.json() == healthy.json()
    unknown = client.get("/v1/recommend/someone")
    assert unknown.headers["X-Palate-Degraded"] == "state"
    assert {item["source"] for item in unknown.json()["items"]} == {"popular"}
    refused = client.post("/v1/events", json={"events": [event(2, "i8", "ann")]})
    assert refused.status_code == 503
    server.start()
    healed = client.get("/v1/recommend/ann", headers={"X-Request-ID": "r"})
    assert "X-Palate-Degraded" not in healed.headers and healed.json() == healthy.json()
    assert client.post("/v1/events", json={"events": [event(1, "i2", "ann"), event(2, "i8", "ann")]}).json()["new"] == 1
    state.close()
    server.stop()


def test_the_state_is_guarded_and_reported(folder: Path, state: State) -> None:
    client = TestClient(create_app(folder, "secret", state=state))
    assert client.post("/v1/events", json={"events": [event(1)]}).status_code == 401
    assert client.put("/v1/items", json={"items": [{"item_id": "n"}]}).status_code == 401
    report = client.get("/v1/state", headers={"X-API-Key": "secret"}).json()
    assert report["rows"]["events"] == 0 and report["bytes"] > 0


def test_without_a_state_nothing_is_taken(snapshot_folder: Path) -> None:
    client = TestClient(create_app(snapshot_folder))
    assert client.post("/v1/events", json={"events": [event(1)]}).status_code == 404


def test_items_of_another_snapshot_are_placed_anew_by_their_texts(
    folder: Path, state: State, client: TestClient, snapshot_folder: Path
) -> None:
    items = [{"item_id": "a", "title": "War"}, {"item_id": "b", "vector": [1.0] * 16}]
    client.put("/v1/items", json={"items": items})
    elsewhere = [replace(kept, snapshot="another", vector=[1.0, 2.0], leaf=9999) for kept in state.items()[1]]
    state.put_items(elsewhere)
    found = Live(client.app.state.live.built, state, encoder=WordEncoder())  # type: ignore[attr-defined]
    assert found.snapshot.item_ids[found.built.n_built :] == ["a"] and found.unplaced == ["b"]
    report = TestClient(create_app(snapshot_folder, state=state, encoder=WordEncoder())).get("/v1/state").json()
    assert report["new_items"] == 0 and report["unplaced_items"] == ["a", "b"]


def test_another_process_finds_the_item(folder: Path, state: State, client: TestClient) -> None:
    with TestClient(create_app(folder, state=state, encoder=WordEncoder())) as other:
        client.put("/v1/items", json={"items": [{"item_id": "a", "title": "War"}]})
        deadline = time.monotonic() + 20
        while other.get("/v1/items/a").status_code == 404:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_history_is_encoded_once(folder: Path, state: State, client: TestClient) -> None:
    built = client.app.state.live.built  # type: ignore[attr-defined]

    class Counting:
        calls = 0

        def encode(self, queries: Sequence[Query]) -> FloatArray:
            self.calls += 1
            return np.ones((len(queries), 16), dtype=np.float32)

    counting = Counting()
    served = Live(replace(built, encoder=counting), state)
    history, query = built.history("u0"), Query("u0", built.history("u0"))
    for _ in range(3):
        encode = served.encoding("u0", served.snapshot, served.past("u0"))
        assert encode is not None and encode(query).tolist() == [[1.0] * 16]
        served.write_behind()
    assert counting.calls == 1
    encode(replace(query, history=history[:-1]))
    assert counting.calls == 2
