"""What the short way answers is what FastAPI answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from palate.serving import plain
from palate.serving.api import create_app
from palate.serving.pipeline_config import PipelineConfig

ORDINARY = [
    "",
    "n=3",
    "explain=false&n=5",
    "restrict=attr%3Afunny",
    "restrict=node+%3D+1&n=2",
    "restrict=nonsense(",
    "restrict=%20",
]
OTHER = [
    "n=0", "n=200", "n=201", "n=+3", "n=3.0", "n=x", "n=", "n=1&n=2", "explain=1", "explain=yes", "explain=maybe",
    "restrict=", "x=1", "n=%D9%A3", f"restrict={'(' * 3000}", "restrict=a&restrict=b",
]  # fmt: skip
HEADERS: list[dict[str, str]] = [{}, {"X-Palate-Variant": "bold"}, {"X-Palate-Variant": "absent"}]


@pytest.fixture(scope="module")
def client(snapshot_folder: Path) -> TestClient:
    bold = PipelineConfig(variants={"bold": {"sources": {"exploration": 1.0}}})
    return TestClient(create_app(snapshot_folder, pipeline=bold))


@pytest.mark.parametrize("query", [*ORDINARY, *OTHER])
def test_both_ways_answer_alike(client: TestClient, monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    taken: list[bool] = []

    def noting(*asked, own=plain.ordinary):  # type: ignore[no-untyped-def]
        given = own(*asked)
        taken.append(given is not None)
        return given

    for person in ("u0", "nobody%20%2541"):
        for headers in HEADERS:
            asked = {"url": f"/v1/recommend/{person}?{query}", "headers": {"X-Request-ID": "r1", **headers}}
            monkeypatch.setattr(plain, "ordinary", noting)
            short = client.get(**asked)
            monkeypatch.setattr(plain, "ordinary", lambda *asked: None)
            full = client.get(**asked)
            assert (short.status_code, short.content, short.headers) == (full.status_code, full.content, full.headers)
    assert set(taken) == {query in ORDINARY}


def test_headers_that_come_twice_or_are_none_are_not_ordinary(client: TestClient) -> None:
    asked = {"url": "/v1/recommend/u0"}
    assert client.get(**asked, headers=[("X-Palate-Variant", "bold"), ("X-Palate-Variant", "absent")]).json()["variant"]
    assert client.get(**asked, headers={"X-Palate-Variant": "x" * 300}).status_code == 422


@pytest.mark.parametrize("path", ["/v1/recommend/", "/v1/recommend/a/b", "/v1/recommend", "/v1/recommend/a%2Fb"])
def test_other_paths_are_the_routers(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in (404, 405)


def test_both_ways_are_counted_under_the_route(client: TestClient) -> None:
    client.get("/v1/recommend/u0")
    client.get("/v1/recommend/u0?n=3.0")
    counted = client.get("/metrics").text
    for status in (200, 422):
        assert f'palate_requests_total{{route="/v1/recommend/{{user_id}}",status="{status}"}}' in counted
