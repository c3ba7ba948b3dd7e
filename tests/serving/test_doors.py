"""Who is let in, how often, and with how much."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from palate.console.pages import add_console
from palate.errors import InputError
from palate.serving.api import create_app
from palate.serving.doors import DEEPEST, Buckets, is_deep, right_for
from palate.serving.keys import Scope, new_key
from palate.serving.operations import Operations, may_listen
from palate.serving.state import State, open_state

EVENT = {"event_id": "e", "user_id": "u0", "item_id": "i0"}
CALLS: dict[str, list[tuple[str, str, Any]]] = {
    "read": [
        ("GET", "/v1/recommend/u0", None),
        ("POST", "/v1/recommend", {"history": ["i0"]}),
        ("GET", "/v1/items/i0", None),
        ("GET", "/v1/users/u0", None),
        ("GET", "/v1/interests", None),
    ],
    "events": [("POST", "/v1/events", {"events": [EVENT]})],
    "items": [
        ("PUT", "/v1/items", {"items": [{"item_id": "n", "vector": [1.0] * 16}]}),
        ("DELETE", "/v1/items/n", None),
    ],
    "admin": [("GET", "/v1/state", None)],
}
SCOPES: tuple[Scope, ...] = ("read", "events", "items", "admin")
MADE = {scope: new_key(f"for-{scope}", [scope]) for scope in SCOPES}
KEYS = tuple(entry for _, entry in MADE.values())


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = open_state(f"sqlite:{tmp_path / 'state.sqlite'}")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def guarded(snapshot_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    state = open_state(f"sqlite:{tmp_path_factory.mktemp('state') / 's.sqlite'}")
    app = create_app(snapshot_folder, "the-old-key", state=state, operations=Operations(keys=KEYS, max_body=50_000))
    add_console(app, app.state.live)
    return TestClient(app)


def status(client: TestClient, call: tuple[str, str, Any], key: str | None = None) -> int:
    method, path, body = call
    headers = {} if key is None else {"X-API-Key": key}
    return client.request(method, path, json=body, headers=headers).status_code


@pytest.mark.parametrize("needed", CALLS)
def test_a_key_opens_what_its_scopes_say(guarded: TestClient, needed: str) -> None:
    for call in CALLS[needed]:
        assert status(guarded, call) == 401
        assert status(guarded, call, "wrong") == 401
        assert status(guarded, call, "the-old-key") == 200
        for scope, (key, _) in MADE.items():
            assert status(guarded, call, key) == (200 if scope in (needed, "admin") else 403), (call, scope)


def test_a_route_nobody_thought_of_is_for_administrators() -> None:
    assert right_for("DELETE", "/v1/recommendations") == "admin"
    assert right_for("PATCH", "/v1/x") == "admin"
    assert right_for("DELETE", "/v1/items/i0") == "items"
    assert right_for("POST", "/v1/itemsx") == "admin"


@pytest.mark.parametrize(
    "path", ["/v1/../v1/state", "/V1/state", "//v1/state", "/v1//state", "/v1/%2e%2e/metrics", "/v1%2fstate"]
)
def test_no_spelling_of_a_path_goes_round_the_doors(guarded: TestClient, path: str) -> None:
    assert guarded.get(path).status_code in (401, 404)
    assert guarded.get(path, headers={"X-API-Key": MADE["read"][0]}).status_code in (401, 403, 404)


def test_health_metrics_and_documentation_ask_for_no_key(guarded: TestClient) -> None:
    for path in ("/health/live", "/health/ready", "/metrics", "/docs", "/openapi.json"):
        assert guarded.get(path).status_code == 200
    assert "X-API-Key" in guarded.get("/openapi.json").text


def test_the_console_asks_for_the_key_as_a_password(guarded: TestClient) -> None:
    answer = guarded.get("/console/person?id=u3")
    assert answer.status_code == 401 and answer.headers["WWW-Authenticate"].startswith("Basic ")
    for key, wanted in ((MADE["read"][0], 200), ("wrong", 401), (MADE["events"][0], 403)):
        assert guarded.get("/console/person?id=u3", auth=("anyone", key)).status_code == wanted
    for words in ("Basic !", "Basic", "Basic " + base64.b64encode(b"\xff").decode()):
        assert guarded.get("/console/", headers={"Authorization": words}).status_code == 401
    basic = {"Authorization": "Basic " + base64.b64encode(f"a:{MADE['admin'][0]}".encode()).decode()}
    assert (
        guarded.post("/v1/events", json={"events": [EVENT]}, headers=basic).status_code == 401
    )  # what browsers send alone


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_not_taken(guarded: TestClient, chunked: bool) -> None:
    content = json.dumps({"events": [{**EVENT, "request_id": "x" * 60_000}]}).encode()
    body: Any = (content[at : at + 1000] for at in range(0, len(content), 1000)) if chunked else content
    headers = {"X-API-Key": "the-old-key", "Content-Type": "application/json"}
    answer = guarded.post("/v1/events", content=body, headers=headers)
    assert answer.status_code == 413 and "50000 bytes" in answer.json()["detail"]
    assert ("content-length" in answer.request.headers) is not chunked


@pytest.mark.parametrize("length", ["-1", "9" * 5000, "1e3", "²"])
def test_a_length_that_is_none_is_refused(guarded: TestClient, length: str) -> None:
    headers = {"X-API-Key": "the-old-key", "Content-Length": length.encode()}
    assert guarded.post("/v1/events", content=b"{}", headers=headers).status_code == 413  # type: ignore[arg-type]


def test_a_stranger_is_turned_away_before_a_body_is_read(guarded: TestClient) -> None:
    read = []

    def body() -> Iterator[bytes]:
        read.append(1)
        yield b"{}"

    assert guarded.post("/v1/events", content=body()).status_code == 401


def test_deep_json_is_refused(guarded: TestClient) -> None:
    for body in ("[" * 20 + "]" * 20, "[" * 40_000, '{"a":' * 17 + "1" + "}" * 17):
        headers = {"X-API-Key": "the-old-key", "Content-Type": "application/json"}
        answer = guarded.post("/v1/events", content=body, headers=headers)
        assert answer.status_code == 422 and "deep" in answer.json()["detail"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


def depth(value: Any) -> int:
    if isinstance(value, dict | list):
        return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)
    return 0


@given(value=JSON, more=st.integers(0, 20), most=st.integers(1, 20), ascii_=st.booleans())
def test_depth_is_counted_outside_of_texts(value: Any, more: int, most: int, ascii_: bool) -> None:
    for _ in range(more):
        value = [value]
    assert is_deep(json.dumps(value, ensure_ascii=ascii_).encode("utf-8", "surrogatepass"), most) == (
        depth(value) > most
    )


def test_brackets_of_titles_are_no_depth() -> None:
    assert not is_deep(json.dumps({"items": [{"title": "[" * 500 + '\\"[['}] * 3}).encode(), DEEPEST)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_fills_again() -> None:
    clock = Clock()
    buckets = Buckets(2.0, clock, most=3)
    assert [buckets.wait("a") for _ in range(5)] == [0, 0, 0, 0, 0.5]
    assert buckets.wait("b") == 0
    clock.now = 0.5
    assert [buckets.wait("a"), buckets.wait("a")] == [0, 0.5]
    clock.now = 1000
    assert [buckets.wait("a") == 0 for _ in range(5)] == [True] * 4 + [False]
    assert [buckets.wait("c", 0.1) for _ in range(2)] == [0, 10]
    for number in range(10):
        buckets.wait(f"address {number}")
    assert len(buckets._left) == 3


def test_too_many_requests(snapshot_folder: Path) -> None:
    slow = new_key("slow", ["read"], 0.5)
    quick = new_key("quick", ["read"], 1000)
    operations = Operations(keys=(slow[1], quick[1]), rate=2)
    client = TestClient(create_app(snapshot_folder, operations=operations))

    def many(key: str) -> list[int]:
        return [client.get("/v1/items/i0", headers={"X-API-Key": key}).status_code for _ in range(8)]

    assert many(slow[0]) == [200] + [429] * 7
    assert many(quick[0]) == [200] * 8
    assert many("wrong")[:4] == [401] * 4 and many("wrong")[-1] == 429
    answer = client.get("/v1/items/i0", headers={"X-API-Key": slow[0]})
    assert 1 <= int(answer.headers["Retry-After"]) <= 2
    assert client.get("/health/live").status_code == 200
    text = client.get("/metrics").text
    assert 'palate_refused_total{key="slow",reason="rate"} 8.0' in text


def test_pages_elsewhere_may_not_call_unless_listed(snapshot_folder: Path) -> None:
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    closed = TestClient(create_app(snapshot_folder, "k"))
    assert "access-control-allow-origin" not in closed.options("/v1/recommend", headers=asked).headers
    opened = TestClient(create_app(snapshot_folder, "k", operations=Operations(origins=("https://shop.example",))))
    answer = opened.options("/v1/recommend", headers=asked)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://shop.example")
    other = opened.options("/v1/recommend", headers={**asked, "Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers
    refused = opened.get("/v1/items/i0", headers={"Origin": "https://shop.example"})
    assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == "https://shop.example"


def test_a_replay_is_a_replay_for_every_key(guarded: TestClient) -> None:
    body = {"events": [{**EVENT, "event_id": "again"}]}
    answers = [
        guarded.post("/v1/events", json=body, headers={"X-API-Key": key}).json()
        for key in ("the-old-key", MADE["events"][0])
    ]
    assert [answer["replayed"] for answer in answers] == [0, 1]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1"])
def test_writes_without_a_key_are_refused_at_the_start(host: str) -> None:
    with pytest.raises(InputError, match="Without a key"):
        may_listen(host, keys=False, writes=True, opened=False)
    for keys, writes, opened in ((True, True, False), (False, False, False), (False, True, True)):
        may_listen(host, keys, writes, opened)
    may_listen("127.0.0.1", keys=False, writes=True, opened=False)


def test_secrets_are_nowhere_to_be_read(
    snapshot_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret, entry = new_key("shop", ["read"])
    file = tmp_path / "keys.yaml"
    file.write_text(json.dumps({"keys": [entry.model_dump()]}))
    app = create_app(snapshot_folder, "plain-SECRET-of-old", operations=Operations(keys_file=file))
    add_console(app, app.state.live)
    client = TestClient(app)
    seen = []
    with caplog.at_level(logging.DEBUG):
        for given in (secret, "plain-SECRET-of-old", "guessed-SECRET"):
            for path in ("/v1/items/i0", "/v1/state", "/v1/recommend/u0?n=0", "/console/", "/v1/nowhere"):
                answer = client.get(path, headers={"X-API-Key": given}, auth=("x", given))
                seen.append(answer.text + str(answer.headers))
        file.write_text(json.dumps({"keys": [{"name": "shop", "sha256": secret, "scopes": ["read"]}]}))
        app.state.running.look_at_keys()
    assert client.get("/v1/items/i0", headers={"X-API-Key": secret}).status_code == 200  # the keys before stay
    seen += [client.get("/metrics").text, caplog.text, *[str(record.__dict__) for record in caplog.records]]
    assert "keys refused" in caplog.text and "sha256" in str([record.__dict__ for record in caplog.records])
    for each in (secret, entry.sha256, "SECRET"):
        assert not any(each in text for text in seen)


def test_a_key_file_is_read_again(snapshot_folder: Path, tmp_path: Path) -> None:
    (first, one), (second, two) = new_key("one", ["read"]), new_key("two", ["read"])
    file = tmp_path / "keys.yaml"
    file.write_text(json.dumps({"keys": [one.model_dump()]}))
    app = create_app(snapshot_folder, operations=Operations(keys_file=file))
    client = TestClient(app)

    def opens() -> list[bool]:
        return [client.get("/v1/items/i0", headers={"X-API-Key": key}).status_code == 200 for key in (first, second)]

    assert opens() == [True, False]
    file.write_text(json.dumps({"keys": [two.model_dump()]}) + "\n")
    app.state.running.look_at_keys()
    assert opens() == [False, True]
    file.unlink()
    app.state.running.look_at_keys()
    assert opens() == [False, True]
