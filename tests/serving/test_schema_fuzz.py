"""Whatever fits the published schema of the API, or nearly does, is answered or refused with a reason: never a 5xx."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from test_live_api import WordEncoder

from palate.serving.api import create_app
from palate.serving.state import open_state

schemathesis = pytest.importorskip("schemathesis")
GenerationMode = schemathesis.GenerationMode
EXAMPLES = int(os.environ.get("PALATE_FUZZ", "6"))  # of each operation


@pytest.fixture(scope="module")
def api(snapshot_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    state = open_state(f"sqlite:{tmp_path_factory.mktemp('state') / 'state.sqlite'}")
    return create_app(snapshot_folder, state=state, encoder=WordEncoder())


@pytest.mark.slow
@pytest.mark.parametrize("fits", [True, False], ids=["fits", "nearly fits"])
def test_no_request_is_a_5xx(api: FastAPI, fits: bool) -> None:
    """Every operation of the schema, with values of its types, and with some that break it."""
    mode = GenerationMode.POSITIVE if fits else GenerationMode.NEGATIVE
    seen: Counter[int] = Counter()
    for result in schemathesis.openapi.from_asgi("/openapi.json", api).get_all_operations():
        operation = result.ok()
        if not fits and not operation.body and not operation.query and not operation.path_parameters:
            continue  # nothing of it can be wrong

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            answer = case.call()
            seen[answer.status_code // 100] += 1
            assert answer.status_code < 500, (case.as_curl_command(), answer.text)

        ask()
    assert seen[2 if fits else 4] > 10


BODIES: list[bytes] = [
    b"",
    b"null",
    b"\xff\xfe\x00",
    b'{"events": "\xe9"}',
    b"[" * 100_000,
    b'{"history": [' + b'"i0",' * 6000 + b'"i0"]}',
    b'{"history": ["\\ud800"]}',
    b'{"history": ["i0"], "n": 1e400}',
    b'{"history": ["i0"], "n": ' + b"9" * 5000 + b"}",
    b'{"events": [{"event_id": "e", "user_id": "u", "item_id": "i", "value": NaN}]}',
    b'{"items": [{"item_id": "n", "vector": [' + b"1," * 5000 + b"1]}]}",
    b'{"items": [{"item_id": "n", "title": "\\u0000", "year": 99999999999999999999}]}',
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: f"{body[:20]!r} {len(body)}")
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/recommend"), ("POST", "/v1/events"), ("PUT", "/v1/items")])
def test_bodies_that_fit_nothing_are_refused(api: FastAPI, method: str, path: str, body: bytes) -> None:
    answer = TestClient(api).request(method, path, content=body, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500 and answer.json()["detail"]


TRICKS = [
    "..%2f..%2fetc%2fpasswd",
    "%00",
    "%ff",
    "%ed%a0%80",
    "a%2fb",
    "x" * 5000,
    "i0%0d%0aX-Forged:1",
    "%c0%ae%c0%ae",
    "🎬",
]


@pytest.mark.parametrize("trick", TRICKS)
def test_ids_that_nobody_has(api: FastAPI, trick: str) -> None:
    client = TestClient(api)
    for path in (f"/v1/items/{trick}", f"/v1/items/{trick}/similar", f"/v1/users/{trick}", f"/static/{trick}"):
        answer = client.get(path)
        assert 400 <= answer.status_code < 500 and "x-forged" not in answer.headers
    answer = client.get(f"/v1/recommend/{trick}", params={"n": 3})
    assert answer.status_code in (200, 404, 422)


@pytest.mark.parametrize("n", [0, -1, 201, 10**30, "NaN", "1e3", "", "٣٣٣", "1" * 5000])
def test_huge_and_odd_counts_are_refused(api: FastAPI, n: object) -> None:
    for path in ("/v1/recommend/u0", "/v1/items/i0/similar"):
        answer = TestClient(api).get(path, params={"n": str(n)})
        assert answer.status_code == 422 and answer.json()["detail"][0]["field"] == "n"
