"""`DELETE /v1/items/{id}`: gone everywhere at once, after a restart, in the next snapshot; PUT brings it back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from test_live_api import UNHURRIED, WordEncoder
from tiny_snapshot import TOPICS, tiny_parts

from palate.serving.api import create_app
from palate.serving.arrivals import Arrival
from palate.serving.live import Live
from palate.serving.load import load_snapshot
from palate.serving.snapshot import SnapshotParts, build_snapshot
from palate.serving.state import State, open_state
from palate.serving.versions import current, use


def told(parts: SnapshotParts) -> SnapshotParts:
    texts = WordEncoder().encode(parts.items["categories"].list.join(" ").to_list())
    return replace(parts, text_vectors=texts, text_encoder="words")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("snapshots")
    use(folder, build_snapshot(folder, told(tiny_parts())).name)
    return folder


@pytest.fixture
def state(address: str) -> Iterator[State]:
    opened = open_state(address)
    yield opened
    opened.close()


def client_of(folder: Path, state: State) -> TestClient:
    return TestClient(create_app(folder, None, UNHURRIED, state, encoder=WordEncoder()))


def shown(client: TestClient, **params: object) -> set[str]:
    """All that anybody can be shown: with and without a history, restricted, and similar items."""
    found: set[str] = set()
    for user in ("u0", "nobody"):
        for restrict in (None, f"category in ({', '.join(TOPICS)})", "not seen"):
            asked = {"n": 200} if restrict is None else {"n": 200, "restrict": restrict}
            answer = client.get(f"/v1/recommend/{user}", params=asked).json()
            found |= {item["item_id"] for item in answer["items"]}
    for item in ("i2", "i11"):
        found |= {each["item_id"] for each in client.get(f"/v1/items/{item}/similar?n=200").json()["items"]}
    return found


@pytest.mark.slow
def test_gone_at_once_and_for_good(folder: Path, state: State, address: str) -> None:
    client = client_of(folder, state)
    client.put("/v1/items", json={"items": [{"item_id": "n1", "title": "Fresh war story", "categories": ["war"]}]})
    assert {"i3", "i42", "n1"} <= shown(client)
    assert client.delete("/v1/items/i3").json() == {"item_id": "i3", "was_served": True}
    assert client.delete("/v1/items/n1").json()["was_served"] is True
    assert client.delete("/v1/items/n1").json()["was_served"] is False
    left = shown(client)
    assert not {"i3", "n1"} & left and "i42" in left
    assert client.get("/v1/items/i3").status_code == client.get("/v1/items/i3/similar").status_code == 404
    assert "n1" not in state.queued()
    again = client_of(folder, open_state(address))  # another process, or a restart
    assert not {"i3", "n1"} & shown(again)
    assert client.put("/v1/items", json={"items": [{"item_id": "n1", "title": "War"}]}).json()["changed"] == 1
    assert client.put("/v1/items", json={"items": [{"item_id": "i3", "title": "x"}]}).json()["in_snapshot"] == ["i3"]
    assert {"i3", "n1"} <= shown(client)
    again.app.state.live.look()  # type: ignore[attr-defined]
    assert {"i3", "n1"} <= shown(again)
    assert client.get("/v1/items/i3").json()["title"] == "Romance story 3"  # as the snapshot learned it


def said(client: TestClient, title: str, path: str) -> bool:
    return re.search(rf"{title}(?!\d)", client.get(path).text) is not None


def test_a_history_does_not_speak_of_it(folder: Path, state: State) -> None:
    client = client_of(folder, state)
    history = client.get("/v1/users/u3").json()["history"]
    last = history[0]["item_id"]
    title = history[0]["title"]
    assert said(client, title, "/v1/recommend/u3")
    client.delete(f"/v1/items/{last}")
    assert not said(client, title, "/v1/recommend/u3?n=50")
    assert not said(client, title, "/v1/users/u3")
    answer = client.post("/v1/recommend", json={"history": [last, "i8"], "n": 5}).json()
    assert answer["unknown_items"] == [last]
    client.post("/v1/events", json={"events": [{"event_id": f"about {last}", "user_id": "u4", "item_id": last}]})
    assert not said(client, title, "/v1/recommend/u4?n=50")
    client.put("/v1/items", json={"items": [{"item_id": last, "title": "back"}]})
    assert said(client, title, "/v1/recommend/u3")


def test_the_next_snapshot_does_not_have_it_either(folder: Path, state: State, tmp_path: Path) -> None:
    """Whether it was built before the item was deleted, or has the item that was new then."""
    client = client_of(folder, state)
    client.put("/v1/items", json={"items": [{"item_id": "i240", "title": "War", "categories": ["war"]}]})
    client.delete("/v1/items/i5")
    client.delete("/v1/items/i240")
    next_one = build_snapshot(tmp_path, told(tiny_parts(n_items=248)))
    live: Live = client.app.state.live  # type: ignore[attr-defined]
    live.swap(load_snapshot(next_one))
    found = shown(client)
    assert not {"i5", "i240"} & found and {"i6", "i241"} <= found
    live.swap(load_snapshot(current(folder)))
    assert not {"i5", "i240"} & shown(client)


@pytest.mark.parametrize("item_id", ["a/b", "\u00e9\u4e2d", "x" * 200])
def test_odd_ids(folder: Path, state: State, item_id: str) -> None:
    client = client_of(folder, state)
    client.put("/v1/items", json={"items": [{"item_id": item_id, "title": "War"}]})
    assert client.delete(f"/v1/items/{item_id}").json()["was_served"] is True


@pytest.mark.parametrize("path", ["", "x" * 201, "a%00b", "%07"])
def test_ids_that_none_can_have(folder: Path, state: State, path: str) -> None:
    answer = client_of(folder, state).delete(f"/v1/items/{path}")
    assert answer.status_code in (404, 405, 422)


def test_a_new_item_costs_nothing_of_the_catalogue(folder: Path, tmp_path: Path) -> None:
    """The big lists are shared, not made again."""
    state = open_state(f"sqlite:{tmp_path / 'state.sqlite'}")
    built = load_snapshot(current(folder))
    live = Live(built, state, encoder=WordEncoder())
    before = (built.item_ids, built.item_nums, built.titles, built.user_nums)
    for name in ("a", "b"):
        live.put([_arrival(name)])
        grown = live.snapshot
        assert grown.item_ids.first is before[0] and grown.item_nums.built is before[1]  # type: ignore[attr-defined]
        assert grown.titles.first is before[2] and grown.user_nums is before[3]  # type: ignore[attr-defined]
        assert grown.index.main is built.index.main
        num = grown.item_nums[name]
        assert (grown.item_ids[num], grown.titles[num], grown.item_ids[-1]) == (name, "War", name)
    assert {*grown.item_nums} == {*grown.item_ids} and len(grown.item_nums) == len(grown.item_ids)
    assert grown.item_ids[built.n_built - 1 :] == [built.item_ids[-1], *grown.item_ids.more]  # type: ignore[attr-defined]
    assert np.array_equal(grown.popularity[: built.n_built], built.popularity)


def _arrival(name: str) -> Arrival:
    return Arrival(item_id=name, title="War")
