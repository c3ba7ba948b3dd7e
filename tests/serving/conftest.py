from __future__ import annotations

from pathlib import Path

import pytest
from tiny_snapshot import tiny_snapshot

from palate.serving.load import Snapshot, load_snapshot
from palate.serving.versions import current


@pytest.fixture(scope="session")
def snapshot_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("snapshots")
    tiny_snapshot(folder)
    return folder


@pytest.fixture(scope="session")
def snapshot(snapshot_folder: Path) -> Snapshot:
    return load_snapshot(current(snapshot_folder))
