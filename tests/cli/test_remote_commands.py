"""`palate snapshot push` and `pull`, and the folder that `palate serve --snapshots` answers from."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))
from tiny_snapshot import tiny_snapshot

from palate.cli.serving import local_snapshots
from palate.serving.versions import current


@pytest.fixture
def project(tmp_path: Path) -> Path:
    tiny_snapshot(tmp_path / "a" / ".palate" / "snapshots", 60, 3)
    return tmp_path / "a"


def test_from_one_project_to_another(palate, project: Path, tmp_path: Path) -> None:
    url, name = f"file://{tmp_path / 'share'}", current(project / ".palate" / "snapshots").name
    sent = palate("snapshot", "push", url, "--project", project, "--json")
    assert sent[0] == 0 and json.loads(sent[1]) == {"snapshot": name, "at": url}
    got = palate("snapshot", "pull", url, "--project", tmp_path / "b", "--json")
    assert got[0] == 0 and json.loads(got[1]) == {"snapshot": name, "from": url}
    assert palate("snapshot", "verify", "--project", tmp_path / "b")[0] == 0
    served = local_snapshots(tmp_path / "c", url)
    assert served == tmp_path / "c" / ".palate" / "fetched" and current(served).name == name


def test_what_cannot_be_reached_is_named(palate, project: Path, tmp_path: Path) -> None:
    code, _, err = palate("snapshot", "pull", f"file://{tmp_path / 'nothing'}", "--project", project)
    assert code == 2 and "cannot be read" in err and "nothing" in err
    code, _, err = palate("snapshot", "push", "nowhere://x", "--project", project)
    assert code == 2 and "pip install s3fs" in err
    assert local_snapshots(project, None) == project / ".palate" / "snapshots"
    assert local_snapshots(project, "elsewhere") == Path("elsewhere")
