"""Another snapshot under a server that answers: exchanged, refused, taken back."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from tiny_snapshot import tiny_snapshot

from palate.console.pages import add_console
from palate.serving.api import create_app
from palate.serving.state import State, open_state
from palate.serving.swap import Watcher
from palate.serving.versions import rollback, use

NEW = {"item_id": "n1", "title": "Fresh", "vector": [1.0] * 16}


@pytest.fixture
def folder(snapshot_folder: Path, tmp_path: Path) -> Path:
    """Two snapshots, of 240 and of 200 items; the first is current."""
    folder = tmp_path / "snapshots"
    shutil.copytree(snapshot_folder, folder)
    first = (folder / "current").read_text().split()[0]
    second = tiny_snapshot(folder, n_items=200, seed=1)
    (folder / "current").write_text(first)
    assert second.name != first
    return folder


@pytest.fixture
def second(folder: Path) -> str:
    (name,) = {path.name for path in folder.iterdir() if path.is_dir()} - {(folder / "current").read_text().split()[0]}
    return name


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = open_state(f"sqlite:{tmp_path / 'state.sqlite'}")
    yield opened
    opened.close()


def parts(folder: Path, state: State | None = None) -> tuple[TestClient, Watcher]:
    app = create_app(folder, state=state)
    add_console(app, app.state.live)
    return TestClient(app), app.state.running.watcher


def served(client: TestClient) -> set[str]:
    """The snapshot, as every part of the server names it."""
    slate = client.get("/v1/recommend/u0").json()
    metrics = client.get("/metrics").text.splitlines()
    (info,) = [line for line in metrics if line.startswith("palate_snapshot_info") and line.endswith(" 1.0")]
    page = client.get("/console/").text
    names = [name for name in (slate["snapshot"],) if name in page]
    return {
        *names,
        client.get("/health/ready").json()["snapshot"],
        client.get("/v1/run").json()["snapshot"],
        info.split('"')[1],
    }


def test_another_snapshot_is_served_and_taken_back(folder: Path, second: str) -> None:
    client, watcher = parts(folder)
    (first,) = served(client)
    assert watcher.look() is False
    use(folder, second)
    assert watcher.look() is True and served(client) == {second}
    assert client.get("/v1/items/i239").status_code == 404
    assert rollback(folder) == first
    assert watcher.look() is True and served(client) == {first}
    assert client.get("/v1/items/i239").status_code == 200
    assert 'palate_snapshot_swaps_total{result="swapped"} 2.0' in client.get("/metrics").text


@pytest.mark.parametrize("name", ["vectors.npy", "items.parquet", "manifest.json"])
def test_a_damaged_one_is_refused_and_the_old_one_stays(
    folder: Path, second: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    client, watcher = parts(folder)
    (first,) = served(client)
    file = folder / second / name
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    (folder / "current").write_text(second)
    with caplog.at_level(logging.INFO):
        assert [watcher.look() for _ in range(3)] == [False] * 3
    assert served(client) == {first}
    (told,) = [record for record in caplog.records if record.message == "snapshot refused"]
    assert name in str(told.fields) and told.levelname == "ERROR"  # type: ignore[attr-defined]
    text = client.get("/metrics").text
    assert "palate_snapshot_stale 1.0" in text and 'palate_snapshot_swaps_total{result="refused"} 1.0' in text
    file.write_bytes(whole)
    assert watcher.look() is False  # tried again after a minute, or when told
    watcher.hurry()
    assert watcher.look() is True and served(client) == {second}
    assert "palate_snapshot_stale 0.0" in client.get("/metrics").text


def test_one_that_cannot_answer_is_refused(folder: Path, second: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client, watcher = parts(folder)

    def fails(path: Path) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(watcher, "opened", fails)
    use(folder, second)
    assert watcher.look() is False
    assert client.get("/v1/recommend/u0").status_code == 200


def test_a_choice_of_nothing_changes_nothing(folder: Path) -> None:
    client, watcher = parts(folder)
    for content in (b"", b"nowhere\n", b"\xff\xfe", b"../../etc\n"):
        (folder / "current").write_bytes(content)
        assert watcher.look() is False
    assert client.get("/v1/recommend/u0").status_code == 200


def test_new_items_and_events_live_through_a_swap(folder: Path, second: str, state: State) -> None:
    client, watcher = parts(folder, state)
    client.put("/v1/items", json={"items": [NEW]})
    own = {"event_id": "e1", "user_id": "someone", "item_id": "i239"}
    client.post("/v1/events", json={"events": [own]})
    use(folder, second)
    assert watcher.look()
    # The vector was one of the other snapshot's space, and the item came without a text that could place it anew.
    assert client.get("/v1/state").json()["unplaced_items"] == ["n1"]
    assert client.get("/v1/recommend/someone").json()["known_user"] is True
    client.put("/v1/items", json={"items": [{**NEW, "item_id": "i239"}]})
    assert client.get("/v1/items/i239").json()["title"] == "Fresh"
    rollback(folder)
    assert watcher.look()
    assert client.get("/v1/items/i239").json()["title"] != "Fresh"  # the snapshot's own
    assert client.get("/v1/items/n1").json()["title"] == "Fresh"


def test_items_are_looked_for_again_where_the_state_is_away(
    folder: Path, second: str, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, watcher = parts(folder, state)
    live = watcher.live
    use(folder, second)
    client.put("/v1/items", json={"items": [NEW]})
    with monkeypatch.context() as away:
        away.setattr(type(state), "items", _unavailable)
        assert watcher.look()
    rollback(folder)
    with monkeypatch.context() as away:
        away.setattr(type(state), "items", _unavailable)
        assert watcher.look()
    assert client.get("/v1/items/n1").status_code == 200  # what is known here of the other snapshot's time
    live.look()
    assert client.get("/v1/items/n1").status_code == 200


def _unavailable(self: State, after: int = 0) -> None:
    from palate.serving.state import unavailable

    raise unavailable("here", "gone")


def test_slates_made_during_swaps_are_of_one_snapshot(folder: Path, second: str, state: State) -> None:
    """Item numbers of one snapshot name other items in the other."""
    client, watcher = parts(folder, state)
    ids = {name: set(watcher.opened(folder / name).item_ids) for name in (second, served(client).pop())}
    client.post(
        "/v1/events",
        json={"events": [{"event_id": f"e{k}", "user_id": "u0", "item_id": f"i{k}"} for k in range(200, 240)]},
    )
    stop, wrong = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            for answer in (
                client.get("/v1/recommend/u0"),
                client.post("/v1/recommend", json={"history": ["i230", "i0"]}),
            ):
                body = answer.json()
                if (
                    answer.status_code != 200
                    or not {each["item_id"] for each in body["items"]} <= ids[body["snapshot"]]
                ):
                    wrong.append(answer.text)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        use(folder, second)
        assert watcher.look()
        rollback(folder)
        assert watcher.look()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
