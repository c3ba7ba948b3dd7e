from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import yaml
from tiny_project import make_project

from palate.project.item_vectors import tree_vectors
from palate.project.project import Project


def opened(folder: Path, weights: dict[str, float] | None = None, *, text: bool = True) -> Project:
    make_project(folder, None)
    if not text:
        items = pl.read_parquet(folder / "items.parquet").select("item_id", title=pl.lit(""))
        items.write_parquet(folder / "items.parquet")
    if weights is not None:
        config = yaml.safe_load((folder / "palate.yaml").read_text())
        config["interests"]["vectors"] = {"weights": weights}
        (folder / "palate.yaml").write_text(yaml.safe_dump(config))
    return Project(folder)


def test_without_any_text_what_people_chose_makes_the_vectors_and_it_is_said(tmp_path: Path) -> None:
    found = tree_vectors(opened(tmp_path / "p", text=False), np.ones((80, 6), dtype=np.float32))
    assert found.used == {"collaborative": 1.0}
    assert found.left_out == dict.fromkeys(("text", "media"), "there is none for any item")
    near = found.vectors @ found.vectors.T
    assert near[::2, ::2].mean() > near[::2, 1::2].mean() + 0.1  # people of this project like even or odd items


def test_parts_are_joined_as_configured(tmp_path: Path) -> None:
    text = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)
    assert tree_vectors(opened(tmp_path / "text"), text).used == {"text": 1.0}
    both = tree_vectors(opened(tmp_path / "both", {"text": 1.0, "media": 0.0, "collaborative": 0.5}), text)
    assert both.used == {"text": 1.0, "collaborative": 0.5}
