"""The step `interests` over days: items come, nodes stay."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import yaml
from tiny_project import make_project

from palate.cli.options import open_run
from palate.project.model_steps import tree_of


def built(folder: Path) -> tuple[dict[str, int], dict]:
    """The leaf of each item, and what the step reports."""
    with open_run(folder, quiet=True) as run:
        made = run.interests
        tree = tree_of(made)
        leaves = tree.node_of_items(tree.depth).tolist()
        return dict(zip(run.project.dataset.item_ids, leaves, strict=True)), made.detail


@pytest.mark.slow
def test_new_items_leave_the_others_where_they_are(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "p", None)
    before, first = built(folder)
    assert "moved" not in first
    items = pl.read_parquet(folder / "items.parquet")
    more = items.head(4).with_columns(pl.col("item_id") + "-again")
    pl.concat([more, items]).write_parquet(folder / "items.parquet")  # new ones first: numbers of items shift
    after, second = built(folder)
    assert second["moved"]["items added"] == 4
    same = sum(after[item] == leaf for item, leaf in before.items())
    assert same >= 0.95 * len(before)
    assert set(after) - set(before) == set(more["item_id"])


@pytest.mark.slow
def test_another_shape_or_a_wish_cuts_afresh(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "p", None)
    built(folder)
    config = yaml.safe_load((folder / "palate.yaml").read_text())
    config["interests"]["branching"] = [2, 4]
    (folder / "palate.yaml").write_text(yaml.safe_dump(config))
    assert "moved" not in built(folder)[1]
    config["interests"]["keep"] = False
    (folder / "palate.yaml").write_text(yaml.safe_dump(config))
    assert "moved" not in built(folder)[1]


@pytest.mark.slow
def test_settings_that_cut_nothing_keep_the_tree(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "p", None)
    before, _ = built(folder)
    config = yaml.safe_load((folder / "palate.yaml").read_text())
    config["interests"] |= {"level": 2, "titles": "judged"}
    (folder / "palate.yaml").write_text(yaml.safe_dump(config))
    with open_run(folder, quiet=True) as run:
        assert run.interests.state == "kept"
    assert built(folder)[0] == before
