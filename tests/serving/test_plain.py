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

    def noting(request, own=plain.ordinary):  # type: ignore[no-untyped-def]
        given = own(request)
        taken.append(given is not None)
        return given

    for person in ("u0", "nobody%20%2541"):
        for headers in HEADERS:
            asked = {"url": f"/v1/recommend/{person}?{query}", "headers": {"X-Request-ID": "r1", **headers}}
            monkeypatch.setattr(plain, "ordinary", noting)
            short = client.get(**asked)
            monkeypatch.setattr(plain, "ordinary", lambda request: None)
            full = client.get(**asked)
            assert (short.status_code, short.content) == (full.status_code, full.content)
    assert set(taken) == {query in ORDINARY}


def test_headers_that_come_twice_or_are_none_are_not_ordinary(client: TestClient) -> None:
    asked = {"url": "/v1/recommend/u0"}
    assert client.get(**asked, headers=[("X-Palate-Variant", "bold"), ("X-Palate-Variant", "absent")]).json()["variant"]
    assert client.get(**asked, headers={"X-Palate-Variant": "x" * 300}).status_code == 422
