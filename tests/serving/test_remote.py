"""Snapshots on fsspec addresses: whole or not at all, and taken over by who follows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from tiny_snapshot import tiny_snapshot

from palate.errors import InputError, StorageError
from palate.serving import remote
from palate.serving.load import load_snapshot
from palate.serving.remote import Follower, RemoteSnapshots
from palate.serving.snapshot import content_hash
from palate.serving.versions import current, list_snapshots


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two snapshots; the second is in use."""
    folder = tmp_path_factory.mktemp("built")
    for seed in range(2):
        tiny_snapshot(folder, 60, 5, seed)
    return folder


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Where a server of S3's protocol listens."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["memory", "file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path / 'there'}"
    elif request.param == "memory":
        yield "memory://bucket/feed"
        fsspec.filesystem("memory").store.clear()
    else:
        monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3"))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "tests")
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket/feed"
        fsspec.filesystem("s3").rm("bucket", recursive=True)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PAUSE", 0.0)


def at(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    found: tuple[fsspec.AbstractFileSystem, str] = fsspec.core.url_to_fs(url)
    return found


def test_what_is_pushed_is_pulled_and_served(built: Path, url: str, tmp_path: Path) -> None:
    old, new = list_snapshots(built)
    there, here = RemoteSnapshots(url), tmp_path / "here"
    assert there.push(built / old) == old and there.current() == old
    assert there.pull(here) == old
    assert there.push(built / new) == new and there.push(built / new) == new
    assert RemoteSnapshots(url).pull(here) == new
    found = load_snapshot(current(here))
    assert found.name == new and found.item_ids == load_snapshot(built / new).item_ids
    there.push(built / old)  # back to it: nothing is sent but the choice
    assert there.pull(here) == old and there.pull(here, new) == new


@pytest.mark.parametrize("damage", ["cut short", "flipped", "missing"])
def test_what_came_in_part_is_refused_and_tried_again(
    built: Path, url: str, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = list_snapshots(built)
    there, here = RemoteSnapshots(url), tmp_path / "here"
    there.push(built / old)
    there.pull(here)
    there.push(built / new)
    files, root = at(url)
    path = f"{root}/{new}/vectors.npy"
    whole = files.cat_file(path)
    if damage == "missing":
        files.rm(path)
    else:
        files.pipe_file(path, whole[:-7] if damage == "cut short" else whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(StorageError) as caught:
        there.pull(here)
    assert caught.value.retryable
    assert current(here).name == old and list_snapshots(here) == [old]
    assert not [*here.glob(".building-*")]
    tries = []

    def mended(self: RemoteSnapshots, there: str, *rest: object) -> None:
        tries.append(there)
        if tries.count(f"{new}/vectors.npy") == 2:
            files.pipe_file(path, whole)  # the second try gets it whole
        get(self, there, *rest)

    get = RemoteSnapshots._get
    monkeypatch.setattr(RemoteSnapshots, "_get", mended)
    assert there.pull(here) == new and tries.count(f"{new}/vectors.npy") == 2
    load_snapshot(current(here))


def test_half_a_push_is_no_snapshot(built: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = list_snapshots(built)
    there, send = RemoteSnapshots(url), RemoteSnapshots._send
    there.push(built / old)

    def dies(self: RemoteSnapshots, here: Path, to: str) -> None:
        if here.name == "users.parquet":
            raise KeyboardInterrupt
        send(self, here, to)

    monkeypatch.setattr(RemoteSnapshots, "_send", dies)
    with pytest.raises(KeyboardInterrupt):
        there.push(built / new)
    assert there.pull(tmp_path / "here") == old
    with pytest.raises(StorageError):
        there.pull(tmp_path / "here", new)
    monkeypatch.setattr(RemoteSnapshots, "_send", send)
    there.push(built / new)
    assert there.pull(tmp_path / "here") == new


def test_names_from_there_lead_nowhere_else(built: Path, url: str, tmp_path: Path) -> None:
    _, new = list_snapshots(built)
    there, here = RemoteSnapshots(url), tmp_path / "here"
    there.push(built / new)
    files, root = at(url)
    files.pipe_file(f"{root}/current", b"../../etc")
    with pytest.raises(StorageError, match="No snapshot is in use"):
        there.pull(here)
    with pytest.raises(InputError, match="no such name"):
        there.pull(here, "../x")
    manifest = json.loads(files.cat_file(f"{root}/{new}/manifest.json"))
    manifest["files"]["../../escaped"] = {"bytes": 1, "sha256": ""}
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    manifest["sha256"] = content_hash(rest)
    files.pipe_file(f"{root}/{new}/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(StorageError, match="a name that none may have"):
        there.pull(here, new)
    assert not (tmp_path / "escaped").exists() and list_snapshots(here) == []


def test_a_follower_takes_over_and_keeps_what_it_has(
    built: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = list_snapshots(built)
    there, here = RemoteSnapshots(url), tmp_path / "here"
    with pytest.raises(StorageError):
        Follower(there, here).start()  # nothing there, nothing here
    there.push(built / old)
    follower = Follower(there, here, 0.01).start()
    assert current(here).name == old
    there.push(built / new)
    for _ in range(1000):
        if current(here).name == new:
            break
        follower._stop.wait(0.01)
    assert current(here).name == new and follower.problem == ""
    files, root = at(url)
    files.pipe_file(f"{root}/current", b"gone-away\n")
    for _ in range(1000):
        if follower.problem:
            break
        follower._stop.wait(0.01)
    follower.close()
    assert "where:" in follower.problem and current(here).name == new
    restarted = Follower(there, here, 60.0).start()  # the address is broken: what was fetched is served
    assert restarted.problem and current(here).name == new
    restarted.close()


@pytest.mark.parametrize("url", ["nowhere://x", "hdfs2://y"])
def test_an_address_of_no_kind(url: str) -> None:
    with pytest.raises(InputError, match="cannot be reached"):
        RemoteSnapshots(url)
