from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from state_stores import RedisServer
from tiny_snapshot import tiny_snapshot

from palate.serving.load import load_snapshot
from palate.serving.opened import Snapshot
from palate.serving.versions import current


@pytest.fixture(scope="session")
def snapshot_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("snapshots")
    tiny_snapshot(folder)
    return folder


@pytest.fixture(scope="session")
def snapshot(snapshot_folder: Path) -> Snapshot:
    return load_snapshot(current(snapshot_folder))


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a state: of each store in turn."""
    folder = tmp_path_factory.mktemp("state")
    if request.param == "sqlite":
        yield f"sqlite:{folder / 'state.sqlite'}"
        return
    server = RedisServer(folder)
    yield server.address
    server.stop()
