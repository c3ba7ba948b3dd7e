from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))
from tiny_snapshot import tiny_snapshot


@pytest.fixture
def project(tmp_path):
    """A folder with two snapshots, the second in use."""
    names = [tiny_snapshot(tmp_path / ".palate" / "snapshots", 240, 3, seed).name for seed in range(2)]
    return tmp_path, names


def test_use_rollback_and_list(palate, project):
    folder, names = project
    assert palate("snapshot", "use", names[0], "--project", folder)[:2] == (0, f"current: {names[0]}\n")
    assert palate("snapshot", "rollback", "--project", folder)[:2] == (0, f"current: {names[1]}\n")
    listed = json.loads(palate("snapshot", "list", "--project", folder, "--json")[1])
    assert listed == {"snapshots": names, "current": names[1]}


def test_a_damaged_snapshot_is_not_used(palate, project):
    folder, names = project
    (folder / ".palate" / "snapshots" / names[0] / "codes.npy").write_bytes(b"")
    code, _, err = palate("snapshot", "use", names[0], "--project", folder)
    assert code == 2 and "codes.npy" in err
    assert json.loads(palate("snapshot", "list", "--project", folder, "--json")[1])["current"] == names[1]
    assert palate("snapshot", "verify", names[0], "--project", folder)[0] == 2


def test_a_restrict_is_tried_and_explained(palate, project):
    folder, _ = project
    tried = ("snapshot", "restrict", "attr:funny and year >= 1990", "--project", folder, "--json")
    answer = json.loads(palate(*tried)[1])
    assert 0 < answer["allowed"] < 30 and answer["of"] == 240
    assert all("Comedy" in title or "Bold" in title for title in answer["most_popular"])
    fields = json.loads(palate("snapshot", "restrict", "--project", folder, "--json")[1])
    assert fields["attr"] == {"slow-burn": 60, "funny": 30}
    assert fields["category"]["war"] == 30 and fields["year"] == "1970 to 2019"
    code, _, err = palate("snapshot", "restrict", "attr:funny adn year >= 1990", "--project", folder)
    assert code == 2 and "character 12" in err
    code, _, err = palate("snapshot", "restrict", "attr:fun", "--project", folder)
    assert code == 2 and "funny" in err
