from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_snapshot import has

from palate.serving.api import create_app
from palate.serving.opened import Snapshot
from palate.serving.pipeline_config import PipelineConfig

PIECES = [
    "and",
    "or",
    "not",
    "in",
    "(",
    ")",
    ",",
    "<",
    ">=",
    "=",
    ":",
    "attr:funny",
    "node",
    "seen",
    "3",
    "year",
    "'x'",
]


@pytest.fixture(scope="module")
def client(snapshot_folder: Path) -> TestClient:
    return TestClient(create_app(snapshot_folder))


def test_recommend_a_user(client: TestClient, snapshot: Snapshot) -> None:
    answer = client.get("/v1/recommend/u0", params={"n": 8}, headers={"X-Request-ID": "r1"}).json()
    assert (answer["request_id"], answer["snapshot"], answer["known_user"]) == ("r1", snapshot.name, True)
    assert answer["variant"]
    assert len(answer["items"]) == 8
    for item in answer["items"]:
        assert item["item_id"] in snapshot.item_nums
        assert item["reasons"] and item["source"] in {"sequence", "exploration", "attribute"}
        assert isinstance(item["score"], float)


def test_the_same_request_id_gives_the_same_slate(client: TestClient) -> None:
    slates = [client.get("/v1/recommend/u1", headers={"X-Request-ID": "same"}).json() for _ in range(2)]
    assert slates[0] == slates[1]


def test_an_unknown_user_gets_popular_items(client: TestClient) -> None:
    response = client.get("/v1/recommend/who-is-this")
    assert response.status_code == 200
    answer = response.json()
    assert answer["known_user"] is False
    assert {item["source"] for item in answer["items"]} == {"popular"}
    assert "nothing is known of you yet" in answer["items"][0]["reasons"][0]


def test_explain_off_says_less(client: TestClient) -> None:
    item = client.get("/v1/recommend/u0", params={"explain": "false"}).json()["items"][0]
    assert item["reasons"] == []
    assert "evidence" not in item


def test_recommend_for_a_history(client: TestClient) -> None:
    answer = client.post("/v1/recommend", json={"history": ["i0", "i8", "absent"], "n": 5}).json()
    assert len(answer["items"]) == 5
    assert answer["unknown_items"] == ["absent"]
    assert not {"i0", "i8"} & {item["item_id"] for item in answer["items"]}
    empty = client.post("/v1/recommend", json={"history": []}).json()
    assert {item["source"] for item in empty["items"]} == {"popular"}


def test_a_restrict_holds(client: TestClient, snapshot: Snapshot) -> None:
    leaf = snapshot.tree.at_level(snapshot.tree.depth)[0]
    answer = client.get("/v1/recommend/u0", params={"restrict": f"node:{leaf.node}", "n": 50}).json()
    nums = [snapshot.item_nums[item["item_id"]] for item in answer["items"]]
    assert nums and set(nums) <= set(snapshot.tree.items_of(leaf.node).tolist())
    answer = client.get("/v1/recommend/u0", params={"restrict": "node:0 and attr:funny", "n": 5}).json()
    assert all(has(snapshot, "funny")[snapshot.item_nums[item["item_id"]]] for item in answer["items"])


@pytest.mark.parametrize(
    ("restrict", "holds"),
    [
        ("attr:funny or attr:slow-burn", lambda row: row["categories"][0] in ("comedy", "crime", "western")),
        ("not attr:funny and year >= 2000", lambda row: row["categories"] != ["comedy"] and row["year"] >= 2000),
        ("category in (war, music)", lambda row: row["categories"][0] in ("war", "music")),
        ("attr:funny > 0.9", lambda row: row["categories"] == ["comedy"]),
    ],
)
def test_an_expression_holds_for_every_item(  # type: ignore[no-untyped-def]
    client: TestClient, snapshot: Snapshot, restrict: str, holds
) -> None:
    for path in ("/v1/recommend/u0", "/v1/recommend/nobody", "/v1/items/i0/similar"):
        items = client.get(path, params={"restrict": restrict, "n": 15}).json()["items"]
        assert len(items) == 15
        assert all(holds(snapshot.items.row(snapshot.item_nums[item["item_id"]], named=True)) for item in items)


def test_a_restrict_decides_of_what_was_seen(client: TestClient, snapshot: Snapshot) -> None:
    seen = {snapshot.item_ids[num] for num in snapshot.history("u0")}
    found = client.get("/v1/recommend/u0", params={"restrict": "seen", "n": 100}).json()["items"]
    assert {item["item_id"] for item in found} == seen
    found = client.get("/v1/recommend/u0", params={"restrict": "not seen and category = war", "n": 100}).json()["items"]
    assert found and not seen & {item["item_id"] for item in found}


@settings(deadline=None, max_examples=60)
@given(text=st.one_of(st.text(max_size=80), st.lists(st.sampled_from(PIECES), max_size=30).map(" ".join)))
def test_any_restrict_is_answered_or_refused(client: TestClient, text: str) -> None:
    response = client.get("/v1/recommend/u0", params={"restrict": text, "n": 3})
    assert response.status_code in (200, 422)
    if response.status_code == 422:
        assert response.json()["detail"][0]["field"] == "restrict"
    posted = client.post("/v1/recommend", json={"history": ["i0"], "restrict": text, "n": 3})
    assert posted.status_code == response.status_code


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"n": 0}, "n"),
        ({"n": "many"}, "n"),
        ({"n": 10_000}, "n"),
        ({"restrict": "node:999"}, "restrict"),
        ({"restrict": "node:-1"}, "restrict"),
        ({"restrict": "attr:absent"}, "restrict"),
        ({"restrict": "funny"}, "restrict"),
        ({"restrict": "leaf in (1, 2)"}, "restrict"),
        ({"restrict": "(" * 21 + "seen" + ")" * 21}, "restrict"),
        ({"restrict": " " * 3000}, "restrict"),
        ({"explain": "perhaps"}, "explain"),
    ],
)
def test_bad_input_names_the_field(client: TestClient, params: dict[str, str], field: str) -> None:
    response = client.get("/v1/recommend/u0", params=params)
    assert response.status_code == 422
    assert response.json()["detail"][0]["field"] == field


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"n": 3}, "history"),
        ({"history": [1]}, "history.0"),
        ({"history": [], "k": 1}, "k"),
        ({"history": "i0"}, "history"),
    ],
)
def test_a_bad_body_names_the_field(client: TestClient, body: dict[str, object], field: str) -> None:
    response = client.post("/v1/recommend", json=body)
    assert response.status_code == 422
    assert response.json()["detail"][0]["field"] == field


def test_a_request_id_that_could_forge_a_line_is_refused(client: TestClient) -> None:
    assert client.get("/v1/recommend/u0", headers={"X-Request-ID": "a b"}).status_code == 422


def test_items(client: TestClient, snapshot: Snapshot) -> None:
    item = client.get("/v1/items/i0").json()
    assert item["title"] == "Crime story 0"
    assert {label["name"]: label["fits"] for label in item["labels"]} == {"slow-burn": True, "funny": False}
    assert [node["level"] for node in item["interests"]] == [1, 2]
    assert {row["model"] for row in item["knowledge"]} == {"tiny-teacher-7b"}
    similar = client.get("/v1/items/i0/similar", params={"n": 4}).json()
    assert len(similar["items"]) == 4
    assert "i0" not in {other["item_id"] for other in similar["items"]}
    assert all(other["categories"] == ["crime"] for other in similar["items"])


@pytest.mark.parametrize("path", ["/v1/items/absent", "/v1/items/absent/similar", "/v1/users/absent", "/v1/nowhere"])
def test_what_is_not_there_is_a_404(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_users_interests_and_run(client: TestClient, snapshot: Snapshot) -> None:
    user = client.get("/v1/users/u0").json()
    assert user["n_events"] == len(user["history"]) == len(snapshot.history("u0"))
    assert user["history"][0]["time"] >= user["history"][-1]["time"]
    assert user["profile"][0]["text"].startswith("Likes slow stories")
    interests = client.get("/v1/interests").json()
    assert len(interests["nodes"]) == len(snapshot.tree.nodes)
    assert client.get("/v1/run").json()["run"]["data"]["name"] == "tiny"


def test_health_and_metrics(client: TestClient, snapshot: Snapshot) -> None:
    assert client.get("/health/live").json() == {"status": "ok"}
    assert client.get("/health/ready").json()["snapshot"] == snapshot.name
    client.get("/v1/items/i0")
    text = client.get("/metrics").text
    assert 'palate_requests_total{route="/v1/items/{item_id}",status="200"}' in text
    assert 'palate_request_seconds_bucket{le="+Inf",route="/v1/items/{item_id}"}' in text


def test_a_key_guards_v1_only(snapshot_folder: Path) -> None:
    client = TestClient(create_app(snapshot_folder, api_key="secret"))
    assert client.get("/v1/recommend/u0").status_code == 401
    assert client.get("/v1/recommend/u0", headers={"X-API-Key": "wrong"}).status_code == 401
    assert client.get("/v1/recommend/u0", headers={"X-API-Key": "secret"}).status_code == 200
    assert client.get("/health/live").status_code == 200


@pytest.mark.slow
def test_serving_does_not_load_torch(snapshot_folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from palate.serving.api import create_app; import palate.serving.rank;"
        f"create_app(Path({str(snapshot_folder)!r}));"
        "print([name for name in ('torch', 'xllamacpp', 'palate.llm.engines') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_docs_page_loads_nothing_from_elsewhere(client):
    page = client.get("/docs").text
    assert "http" not in page.replace("http-equiv", "")
    for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', page):
        assert client.get(address).status_code == 200


def test_the_configured_share_is_what_is_explored(snapshot_folder: Path) -> None:
    def sources(**shares: float) -> list[str]:
        client = TestClient(create_app(snapshot_folder, pipeline=PipelineConfig(sources=shares)))
        items = client.get("/v1/recommend/u3", params={"request_id": "r", "n": 10}).json()["items"]
        return [item["source"] for item in items]

    assert sources(sequence=0.6, attribute=0.2).count("exploration") == 0
    assert sources(sequence=0.5, exploration=0.5).count("exploration") == 5
