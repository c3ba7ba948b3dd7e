from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_snapshot import tiny_parts

from palate.errors import InputError
from palate.interests.tree import InterestTree, TreeConfig, build_tree
from palate.llm.encoders import MiniLMEncoder
from palate.serving.snapshot import build_snapshot
from palate.serving.text_map import fit_text_map, placed
from palate.serving.versions import use

D = 5


def made(n: int, rng: np.random.Generator, noise: float = 0.05) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texts, vectors that depend on them linearly, and probabilities whose logits do."""
    texts = rng.normal(size=(n, 8)).astype(np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    weights = np.random.default_rng(1).normal(size=(8, D + 1))
    found = texts @ weights + 0.3
    vectors = (found[:, :D] + noise * rng.normal(size=(n, D))).astype(np.float32)
    return texts, vectors, 1 / (1 + np.exp(-2 * found[:, D]))


def tree_of(texts: np.ndarray) -> InterestTree:
    return build_tree(texts, np.ones(len(texts)), TreeConfig(branching=(3, 2)))


def test_what_was_never_seen_lies_where_its_text_says() -> None:
    texts, vectors, calm = made(500, np.random.default_rng(0))
    text_map = fit_text_map(texts, vectors, {"calm": calm}, tree_of(texts), np.full(500, 30))
    assert text_map.shape == (9, D + 1 + 6)
    texts, vectors, calm = made(100, np.random.default_rng(2))
    where = placed(text_map, texts, D, tree_of(made(500, np.random.default_rng(0))[0]), 3.0)
    found, probabilities = where.vectors, where.probabilities
    assert np.allclose(np.linalg.norm(found, axis=1), 3.0, atol=1e-4)
    cosines = (found * vectors).sum(axis=1) / 3.0 / np.linalg.norm(vectors, axis=1)
    assert cosines.min() > 0.9 and np.median(cosines) > 0.99
    assert np.abs(probabilities[:, 0] - calm).max() < 0.15


def test_certain_labels_and_no_labels() -> None:
    texts, vectors, calm = made(50, np.random.default_rng(0))
    tree, nobody = tree_of(texts), np.zeros(50)
    sure = fit_text_map(texts, vectors, {"calm": (calm > 0.5).astype(np.float64)}, tree, nobody)
    assert np.isfinite(sure).all()
    where = placed(fit_text_map(texts, vectors, {}, tree, nobody), texts, D, tree, 1.0)
    assert where.probabilities.shape == (50, 0)
    assert np.allclose(np.linalg.norm(where.vectors, axis=1), 1, atol=1e-5)  # without an event all count alike


def test_a_leaf_is_the_one_of_the_nearest_texts() -> None:
    texts, vectors, _ = made(400, np.random.default_rng(0))
    tree = tree_of(texts)
    text_map = fit_text_map(texts, vectors, {}, tree, np.ones(400))
    where = placed(text_map, texts, D, tree, 1.0)
    assert np.mean(where.leaves == tree.node_of_items(tree.depth)) > 0.7


def test_vectors_nobody_shaped_do_not_count() -> None:
    texts, vectors, _ = made(400, np.random.default_rng(0))
    events = np.where(np.arange(400) < 200, 40, 0)
    spoiled = np.where(events[:, None] > 0, vectors, np.float32(9))
    maps = [fit_text_map(texts, own, {}, tree_of(texts), events)[:, :D] for own in (vectors, spoiled)]
    assert np.array_equal(*maps)


def test_texts_of_other_items_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one row an item"):
        build_snapshot(tmp_path, replace(tiny_parts(), text_vectors=np.ones((3, 4), dtype=np.float32)))


@pytest.mark.slow
def test_minilm_places_an_item_in_a_server_without_torch(tmp_path: Path) -> None:
    parts, encoder = tiny_parts(), MiniLMEncoder()
    texts = [f"{title}\nCategories: {own[0]}" for title, own in parts.items.select("title", "categories").iter_rows()]
    parts = replace(parts, text_vectors=encoder.encode(texts), text_encoder=encoder.name)
    use(tmp_path / "s", build_snapshot(tmp_path / "s", parts).name)
    code = f"""
import sys
from pathlib import Path
from fastapi.testclient import TestClient
from palate.serving.api import create_app
from palate.serving.state import open_state
client = TestClient(create_app(Path({str(tmp_path / "s")!r}), state=open_state({f"sqlite:{tmp_path / 'state'}"!r})))
item = {{"item_id": "n", "title": "Battles of a long winter", "categories": ["war"]}}
assert client.put("/v1/items", json={{"items": [item]}}).json()["changed"] == 1
print({{other["categories"][0] for other in client.get("/v1/items/n/similar").json()["items"]}}, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "{'war'} False", done.stderr
