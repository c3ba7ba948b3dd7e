"""SASRec learns, stops, resumes, looks only back, and serves without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from recommender_contract import RetrieverContract, dataset_of, query_of, random_dataset

from palate.data.event_log import write_log
from palate.data.query import Query
from palate.data.splits import Holdout
from palate.errors import InputError, StorageError
from palate.models.checkpoint import FileCheckpoint, State
from palate.models.judging import mean_ndcg
from palate.models.sequence_encoder import OnnxSequenceEncoder, tokens_of

torch = pytest.importorskip("torch")
from palate.models.sasrec import SasRec, SasRecConfig  # noqa: E402

SMALL = SasRecConfig(
    dimensions=16, blocks=1, heads=2, length=8, dropout=0.1, batch_targets=64, epochs=3, warmup=5, threads=1
)


class KilledError(Exception):
    pass


def holdout_of(*pairs: tuple[list[int], int]) -> Holdout:
    return Holdout([query_of(*history) for history, _ in pairs], [np.array([t], np.int32) for _, t in pairs])


class TestSasRec(RetrieverContract):
    @classmethod
    def model(cls) -> SasRec:
        return SasRec(SMALL)


class TestSasRecWithSampledSoftmax(RetrieverContract):
    @classmethod
    def model(cls) -> SasRec:
        return SasRec(SMALL.model_copy(update={"full_softmax": 5, "negatives": 10}))


@pytest.mark.slow
@pytest.mark.parametrize("full_softmax", [1000, 5])
def test_learns_a_planted_pattern(full_softmax: int) -> None:
    """The next item depends on the last but one: a first-order chain cannot know it."""
    rng, n = np.random.default_rng(0), 12
    histories = []
    for _ in range(150):
        history = rng.integers(0, n, 2).tolist()
        while len(history) < 10:
            history.append((history[-2] + 5) % n)
        histories.append(history)
    config = SasRecConfig(
        dimensions=32, blocks=1, length=12, dropout=0.0, batch_targets=128, epochs=20, learning_rate=5e-3,
        warmup=10, full_softmax=full_softmax, negatives=20, threads=1,
    )  # fmt: skip
    model = SasRec(config).fit(dataset_of(histories, n))
    queries = [query_of(a, b, (a + 5) % n, (b + 5) % n) for a, b in rng.integers(0, n, (40, 2)).tolist()]
    best = model.score(queries).argmax(axis=1)
    right = [(int(query.history[-2]) + 5) % n for query in queries]
    assert (best == right).mean() > 0.9


def test_stops_early_and_keeps_the_best_epoch() -> None:
    held = holdout_of(([1, 2, 3], 4), ([5, 6], 7), ([2], 9))
    config = SMALL.model_copy(update={"epochs": 60, "patience": 2, "average": 0.0})
    model = SasRec(config).fit(random_dataset(), validation=held)
    assert len(model.curve) < 60
    assert int(np.argmax(model.curve)) == len(model.curve) - 3
    assert mean_ndcg(model, held) == pytest.approx(max(model.curve))


@pytest.mark.parametrize("killed_at", [1, 4, 7])
@pytest.mark.parametrize("full_softmax", [1000, 5])
def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path, killed_at: int, full_softmax: int) -> None:
    changes = {"epochs": 4, "dropout": 0.3, "full_softmax": full_softmax, "checkpoint_minutes": 0.0}
    data, config = random_dataset(), SMALL.model_copy(update=changes)
    held = holdout_of(([1, 2, 3], 4), ([5, 6], 7))
    whole = SasRec(config).fit(data, validation=held)
    calls = 0

    def die(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == killed_at:
            raise KilledError

    checkpoint = FileCheckpoint(tmp_path / "state.safetensors")
    with pytest.raises(KilledError):
        SasRec(config, checkpoint=checkpoint, on_progress=die).fit(data, validation=held)
    resumed = SasRec(config, checkpoint=checkpoint).fit(data, validation=held)
    assert resumed.curve == whole.curve
    np.testing.assert_array_equal(resumed.item_vectors, whole.item_vectors)
    np.testing.assert_array_equal(resumed.score([query_of(1, 2)]), whole.score([query_of(1, 2)]))


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    steps: list[int] = []
    checkpoint = FileCheckpoint(tmp_path / "state.safetensors")
    for _ in range(2):
        model = SasRec(SMALL, checkpoint=checkpoint, on_progress=lambda *a: steps.append(a[1]))
        model.fit(random_dataset())
    assert len(steps) == len(set(steps))


def test_a_checkpoint_of_other_data_is_not_gone_on_from(tmp_path: Path) -> None:
    checkpoint = FileCheckpoint(tmp_path / "state.safetensors")
    SasRec(SMALL, checkpoint=checkpoint).fit(random_dataset(seed=1))
    again = SasRec(SMALL, checkpoint=checkpoint).fit(random_dataset(seed=2))
    np.testing.assert_array_equal(again.item_vectors, SasRec(SMALL).fit(random_dataset(seed=2)).item_vectors)


def test_progress_says_how_far_it_is() -> None:
    calls: list[tuple[str, int, int, dict[str, float]]] = []
    SasRec(SMALL, on_progress=lambda *call: calls.append(call)).fit(random_dataset())
    name, done, total, figures = calls[-1]
    assert (name, done) == ("sasrec", total)
    assert [call[1] for call in calls] == list(range(1, total + 1))
    assert {"epoch", "loss"} <= figures.keys()


def test_looks_only_back() -> None:
    model = SasRec(SMALL).fit(random_dataset())
    network = model._fitted()
    one = torch.tensor([[1, 2, 3, 4, 5]])
    other = torch.tensor([[1, 2, 3, 9, 8]])
    with torch.no_grad():
        a, b = (network.hidden(tokens, torch.zeros(1, 6, dtype=torch.int64)) for tokens in (one, other))
    torch.testing.assert_close(a[:, :3], b[:, :3], rtol=0, atol=0)
    assert not torch.allclose(a[:, 3:], b[:, 3:])


def test_unseen_items_share_the_vector_of_rare_ones() -> None:
    data = random_dataset(unseen=3)
    vectors = SasRec(SMALL).fit(data).item_vectors
    np.testing.assert_array_equal(vectors[22], vectors[24])
    rare = data.item_counts == data.item_counts[data.item_counts > 0].min()
    np.testing.assert_allclose(vectors[24], vectors[rare].mean(axis=0), atol=1e-6)


def test_another_seed_is_another_model() -> None:
    data = random_dataset()
    other = SasRec(SMALL.model_copy(update={"seed": 1})).fit(data)
    assert not np.allclose(other.item_vectors, SasRec(SMALL).fit(data).item_vectors)


def test_training_leaves_torch_as_it_was() -> None:
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    SasRec(SMALL).fit(random_dataset())
    assert torch.equal(before, torch.get_rng_state())
    assert threads == torch.get_num_threads()


def test_state_brings_the_model_back(tmp_path: Path) -> None:
    model = SasRec(SMALL).fit(random_dataset())
    checkpoint = FileCheckpoint(tmp_path / "model.safetensors")
    checkpoint.save(model.state())
    state = checkpoint.load()
    assert state is not None
    queries = [query_of(), query_of(1, 2)]
    np.testing.assert_array_equal(SasRec.from_state(state).score(queries), model.score(queries))


def test_tokens_are_begin_and_history_padded_behind() -> None:
    queries = [query_of(), query_of(4), query_of(1, 2, 3), query_of(1, 2, 3, 4)]
    np.testing.assert_array_equal(tokens_of(queries, 3, 10), [[11, 10, 10], [11, 4, 10], [1, 2, 3], [2, 3, 4]])


@pytest.mark.parametrize("item", [-1, 10, 11, 12])
def test_an_unknown_item_is_named(item: int) -> None:
    with pytest.raises(InputError, match="does not know") as caught:
        tokens_of([query_of(1), query_of(item)], 3, 10)
    assert caught.value.where == "query 1"
    assert "0 to 9" in str(caught.value)


class TestOnnx:
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> SasRec:
        return SasRec(SMALL.model_copy(update={"blocks": 2})).fit(random_dataset())

    @pytest.fixture
    def path(self, model: SasRec, tmp_path: Path) -> Path:
        model.export_onnx(tmp_path / "encoder.onnx")
        return tmp_path / "encoder.onnx"

    def test_equals_torch(self, model: SasRec, path: Path) -> None:
        rng = np.random.default_rng(0)
        queries = [Query(None, rng.integers(0, 25, size).astype(np.int32)) for size in [0, 1, 2, 7, 8, 9, 40] * 3]
        encoder = OnnxSequenceEncoder(path)
        vectors = encoder.encode(queries)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, model.encode(queries), atol=1e-5)
        for query in queries[:7]:
            np.testing.assert_allclose(encoder.encode([query]), model.encode([query]), atol=1e-5)
        assert encoder.encode([]).shape == (0, 16)

    def test_reads_a_shorter_history_if_told(self, model: SasRec, path: Path) -> None:
        encoder = OnnxSequenceEncoder(path, max_length=2)
        np.testing.assert_allclose(encoder.encode([query_of(1, 2, 3)]), encoder.encode([query_of(9, 2, 3)]), atol=0)

    def test_leaves_one_file(self, path: Path) -> None:
        assert [file.name for file in path.parent.iterdir()] == ["encoder.onnx"]

    def test_serves_without_torch(self, path: Path) -> None:
        code = (
            "import sys, numpy as np\n"
            "from palate.data.query import Query\n"
            "from palate.models.sequence_encoder import OnnxSequenceEncoder\n"
            f"v = OnnxSequenceEncoder({str(path)!r}).encode([Query(None, np.array([1, 2], np.int32))])\n"
            "assert v.shape == (1, 16) and 'torch' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    @pytest.mark.parametrize("content", [None, b"", b"not a graph"])
    def test_says_what_is_wrong_with_a_file(self, tmp_path: Path, content: bytes | None) -> None:
        path = tmp_path / "broken.onnx"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(StorageError, match="cannot be read") as caught:
            OnnxSequenceEncoder(path)
        assert caught.value.where == str(path)


class TestFileCheckpoint:
    def test_nothing_yet(self, tmp_path: Path) -> None:
        assert FileCheckpoint(tmp_path / "none").load() is None

    def test_gives_back_what_it_was_given(self, tmp_path: Path) -> None:
        checkpoint = FileCheckpoint(tmp_path / "deep" / "state")
        rng = np.random.default_rng(0)
        kinds = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
        arrays = {
            f"{kind}/{shape}": rng.normal(size=shape).astype(kind) for kind in kinds for shape in ((), (0, 3), (3, 5))
        }
        arrays["turned"] = arrays["float32/(3, 5)"].T
        checkpoint.save(State(arrays, {"x": [1, None], "y": -np.inf}))
        state = checkpoint.load()
        assert state is not None
        assert state.arrays.keys() == arrays.keys()
        for name, array in arrays.items():
            assert (state.arrays[name].dtype, state.arrays[name].shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(state.arrays[name], array)
        assert state.facts == {"x": [1, None], "y": -np.inf}
        assert [file.name for file in checkpoint.path.parent.iterdir()] == ["state"]

    def test_a_failed_write_leaves_the_old_state(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        checkpoint = FileCheckpoint(tmp_path / "state")
        checkpoint.save(State({}, {"n": 1}))

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(StorageError, match="cannot be written") as caught:
            checkpoint.save(State({}, {"n": 2}))
        assert "No space left" in str(caught.value)
        assert "free some space" in str(caught.value)
        state = checkpoint.load()
        assert state is not None
        assert state.facts == {"n": 1}
        assert len(list(tmp_path.iterdir())) == 1

    def test_says_that_a_file_is_broken(self, tmp_path: Path) -> None:
        (tmp_path / "state").write_bytes(b"1234567890")
        with pytest.raises(StorageError, match="cannot be read") as caught:
            FileCheckpoint(tmp_path / "state").load()
        assert "train again" in str(caught.value)


def test_only_labelled_events_are_predicted() -> None:
    """Everybody goes 0, 1, 2, 3 ...; only the steps to 3 are labels, so that 3 is what is always expected."""
    data = dataset_of([[0, 1, 2, 3, 4, 5]] * 40, 6)
    config = SasRecConfig(dimensions=16, blocks=1, epochs=30, dropout=0.0, warmup=0, learning_rate=0.01)
    labels = data.events["item_num"].to_numpy() == 3
    taught = SasRec(config, labels=labels).fit(data)
    plain = SasRec(config).fit(data)
    queries = [query_of(0, 1, 2), query_of(0, 1), query_of(0, 1, 2, 3, 4)]
    assert taught.score(queries).argmax(axis=1).tolist() == [3, 3, 3]
    assert plain.score(queries).argmax(axis=1).tolist() == [3, 2, 5]


@pytest.mark.parametrize("loss", ["full", "sampled", "shared", "bce", "bpr"])
def test_very_little_data_is_enough(loss: str) -> None:
    """One item; people without history; fewer events than a batch has."""
    config = SMALL.model_copy(update={"loss": loss})
    for data in (dataset_of([[0]], 1), dataset_of([[], [0, 0, 0], [], [0]], 1), dataset_of([[0, 1], []], 4)):
        scores = SasRec(config).fit(data).score([query_of(), query_of(0)])
        assert scores.shape == (2, data.n_items)
        assert np.isfinite(scores).all()


def test_a_log_on_disk_gives_the_same_weights(tmp_path: Path) -> None:
    data = random_dataset()
    events = data.events.select("user_num", "item_num", times=pl.col("timestamp").dt.epoch("us"))
    parts = [
        tuple(events[at : at + 50][name].to_numpy() for name in events.columns) for at in range(0, len(events), 50)
    ]
    log = write_log(lambda: parts, tmp_path / "log", data.n_users, data.n_items)
    np.testing.assert_array_equal(SasRec(SMALL).fit(log).item_vectors, SasRec(SMALL).fit(data).item_vectors)


def test_a_log_has_no_columns_to_go_by(tmp_path: Path) -> None:
    log = write_log(lambda: [(np.array([0]), np.array([0]), np.array([0]))], tmp_path / "log", 1, 2)
    with pytest.raises(InputError, match="log of numbers"):
        SasRec(SMALL.model_copy(update={"novel_by": "genre"})).fit(log)
