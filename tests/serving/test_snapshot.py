from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_snapshot import tiny_parts, tiny_snapshot

from palate.data.query import Query
from palate.errors import InputError, StorageError
from palate.serving import snapshot as snapshot_module
from palate.serving.load import load_snapshot
from palate.serving.opened import Snapshot
from palate.serving.pipeline import recommend
from palate.serving.snapshot import build_snapshot
from palate.serving.versions import current, list_snapshots, use


def test_what_went_in_comes_out(snapshot: Snapshot) -> None:
    parts = tiny_parts()
    assert snapshot.item_ids == parts.items["item_id"].to_list()
    assert np.array_equal(snapshot.vectors[snapshot.tree.position], parts.item_vectors)
    assert np.array_equal(snapshot.attributes[0], np.float32(parts.attributes["slow-burn"]))
    assert snapshot.tree.nodes == parts.tree.nodes
    assert np.array_equal(snapshot.history("u3"), parts.histories.of(3))
    assert snapshot.knowledge.height == sum(table.height for table in parts.knowledge.tables.values())
    assert snapshot.run == parts.run
    assert isinstance(snapshot.vectors.base, np.memmap)


def test_the_same_parts_are_the_same_snapshot(tmp_path: Path) -> None:
    assert tiny_snapshot(tmp_path) == tiny_snapshot(tmp_path)
    other = tiny_snapshot(tmp_path, seed=1)
    assert len(list_snapshots(tmp_path)) == 2
    assert current(tmp_path) == other
    assert current(other) == other


def test_use_and_its_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No snapshot is in use"):
        current(tmp_path)
    first = tiny_snapshot(tmp_path)
    tiny_snapshot(tmp_path, seed=1)
    use(tmp_path, first.name)
    assert current(tmp_path) == first
    with pytest.raises(InputError, match="no such snapshot"):
        use(tmp_path, "../elsewhere")


@pytest.fixture(scope="module")
def one_file_a_time(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_snapshot(tmp_path_factory.mktemp("flips"))


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_flipped_bit_is_refused(one_file_a_time: Path, data: st.DataObject) -> None:
    files = sorted(one_file_a_time.iterdir())
    file = data.draw(st.sampled_from(files))
    content = file.read_bytes()
    place = data.draw(st.integers(0, 8 * len(content) - 1))
    flipped = bytearray(content)
    flipped[place // 8] ^= 1 << (place % 8)
    file.write_bytes(flipped)
    try:
        with pytest.raises(StorageError, match="missing or damaged") as caught:
            load_snapshot(one_file_a_time)
        assert file.name in str(caught.value)
    finally:
        file.write_bytes(content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tiny_snapshot(tmp_path)
    (path / "popularity.npy").unlink()
    with pytest.raises(StorageError, match=r"popularity\.npy"):
        load_snapshot(path)


@pytest.mark.parametrize("step", ["_write_files", "_manifest", "_sync"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshot_module, step, full)
    with pytest.raises(StorageError, match="could not be written"):
        build_snapshot(tmp_path, tiny_parts())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_builder_killed_at_any_moment_leaves_no_half_snapshot(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path;"
        "from tiny_snapshot import tiny_snapshot; print('go', flush=True);"
        f"[tiny_snapshot(Path({str(tmp_path)!r}), seed=s) for s in range(1000)]"
    )
    for moment in np.random.default_rng(0).uniform(0.05, 1.0, 4):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(moment)
        process.kill()
        process.wait()
        process.stdout.close()
        for name in list_snapshots(tmp_path):
            load_snapshot(tmp_path / name)
        if (tmp_path / "current").exists():
            assert current(tmp_path).is_dir()


def test_what_a_killed_build_left_is_swept_once_it_is_old(tmp_path: Path) -> None:
    old, young = tmp_path / ".building-old", tmp_path / ".building-young"
    old.mkdir()
    young.mkdir()
    os.utime(old, (1, 1))
    tiny_snapshot(tmp_path)
    assert (old.exists(), young.exists()) == (False, True)


def tiny_encoder(path: Path, vectors: np.ndarray) -> None:
    """A sequence encoder in ONNX: the mean of the tokens' vectors, times 2."""
    onnx = pytest.importorskip("onnx")
    table = np.concatenate([2 * vectors, np.zeros((2, vectors.shape[1]), dtype=np.float32)])
    helper, kinds = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "tokens"], ["rows"]),
            helper.make_node("ReduceMean", ["rows", "axes"], ["vectors"], keepdims=0),
        ],
        "encoder",
        [helper.make_tensor_value_info("tokens", kinds.INT64, ["q", "t"])],
        [helper.make_tensor_value_info("vectors", kinds.FLOAT, ["q", vectors.shape[1]])],
        [onnx.numpy_helper.from_array(table, "table"), onnx.numpy_helper.from_array(np.array([1]), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"n_items": str(len(vectors)), "length": "4"})
    onnx.save(model, str(path))


def test_the_sequence_encoder_travels_with_the_snapshot(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    parts = tiny_parts()
    tiny_encoder(tmp_path / "trained.onnx", parts.item_vectors)
    path = build_snapshot(tmp_path, replace(parts, encoder=tmp_path / "trained.onnx", max_length=3))
    (tmp_path / "trained.onnx").unlink()
    snapshot = load_snapshot(path)
    history = np.array([9, 1, 2, 3], dtype=np.int32)
    encoded = snapshot.encoder.encode([Query(history=history)])
    assert encoded[0] == pytest.approx(2 * parts.item_vectors[[1, 2, 3]].mean(axis=0), abs=1e-5)
    assert {each.source for each in recommend(snapshot, history, 10)} >= {"sequence"}
    for user in snapshot.user_ids:  # what is kept of people is what the encoder says
        own = snapshot.encoder.encode([Query(history=snapshot.history(user))])
        assert snapshot.user_vector(user) == pytest.approx(own, abs=1e-6)
    assert snapshot.user_vector("nobody") is None


def test_a_reader_without_rights_is_told(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    path = tiny_snapshot(tmp_path)
    (path / "vectors.npy").chmod(0)
    with pytest.raises(StorageError, match=r"vectors\.npy"):
        load_snapshot(path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"popularity": np.zeros(3)}, "one row an item"),
        ({"item_vectors": np.full((240, 16), np.nan, dtype=np.float32)}, "finite"),
        ({"user_ids": ["u0"]}, "Histories and users"),
        ({"explore_level": 3}, "no such level"),
        ({"encoder": Path("absent.onnx")}, "sequence encoder is missing"),
        ({"items": pl.DataFrame({"item_id": ["i"] * 240})}, "lack a column"),
    ],
)
def test_parts_that_do_not_fit_are_named(tmp_path: Path, change: dict[str, object], match: str) -> None:
    with pytest.raises(InputError, match=match):
        build_snapshot(tmp_path, replace(tiny_parts(), **change))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
