"""The item side: rows, known vectors, and the gate between them by coldness."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from recommender_contract import RecommenderContract, dataset_of, random_dataset

from palate.data.dataset import Dataset, FloatArray
from palate.data.folder import read_folder
from palate.data.query import Query
from palate.data.splits import split_global_time
from palate.errors import InputError
from palate.evaluation.ranking import mask_seen, recall, top_n
from palate.knowledge.controls import raw_text
from palate.knowledge.tables import Knowledge

torch = pytest.importorskip("torch")
from palate.models.gru4rec import Gru4Rec, Gru4RecConfig  # noqa: E402
from palate.models.hstu import Hstu, HstuConfig  # noqa: E402
from palate.models.item_side import ItemVectors, known_vectors  # noqa: E402
from palate.models.sasrec import SasRec, SasRecConfig  # noqa: E402
from palate.models.sequence_retriever import SequenceRetriever  # noqa: E402
from palate.models.two_tower import TwoTower, TwoTowerConfig  # noqa: E402

SIZES = {"dimensions": 8, "epochs": 2, "warmup": 5, "threads": 1}
SMALL = {**SIZES, "length": 8, "batch_targets": 64}
MODELS = [(SasRec, SasRecConfig), (Hstu, HstuConfig), (Gru4Rec, Gru4RecConfig)]


def known(dataset: Dataset, width: int = 5, seed: int = 0) -> Knowledge:
    vectors = np.random.default_rng(seed).normal(size=(dataset.n_items, width)).astype(np.float32)
    return raw_text(dataset.item_ids, vectors, "some encoder")


def side_of(sides: str, n_items: int = 6, silent: int | None = None) -> ItemVectors:
    torch.manual_seed(0)
    vectors = np.random.default_rng(0).normal(size=(n_items, 5)).astype(np.float32)
    if silent is not None:
        vectors[silent] = 0
    return ItemVectors(n_items, 4, sides, vectors, counts=np.array([0, 1, 5, 50, 500, 5000]))  # type: ignore[arg-type]


def test_the_gate_opens_for_the_row_as_events_come_in() -> None:
    gate = side_of("both", silent=2).eval().gate().tolist()
    assert gate[0] == 0.0
    assert gate[2] == 1.0  # nothing is known of it: only its row is left
    assert gate[1] < gate[3] < gate[4] < gate[5] < 1


def test_both_is_the_mixture_written_by_hand() -> None:
    side = side_of("both").eval()
    w = {name: value.numpy().astype(np.float64) for name, value in side.state_dict().items()}
    read = w["vectors"] @ w["read.weight"].T
    read = (read - read.mean(1, keepdims=True)) / np.sqrt(read.var(1, keepdims=True) + 1e-5)
    read = read * w["norm.weight"] + w["norm.bias"]
    share = 1 / (1 + np.exp(-(w["slope"] * w["events"] - w["offset"])))
    share[0] = 0
    expected = share[:, None] * w["rows.weight"][:6] + (1 - share[:, None]) * read
    with torch.no_grad():
        np.testing.assert_allclose(side.table().numpy(), expected, atol=1e-6)
        np.testing.assert_array_equal(side(torch.tensor([6, 7])).numpy(), side.rows.weight[6:].numpy())


def test_the_number_of_parameters() -> None:
    d, k, n = 4, 5, 6
    sizes = {sides: sum(p.numel() for p in side_of(sides).parameters()) for sides in ("vector", "both")}
    assert sizes == {"vector": 2 * d + k * d + 2 * d, "both": (n + 2) * d + k * d + 2 * d + 2}


def test_some_rows_are_hidden_in_training_only() -> None:
    side = side_of("both")
    drawn = torch.stack([side.train().gate() for _ in range(200)])[:, 1:]
    assert 0.1 < (drawn == 0).float().mean() < 0.3
    assert (side.eval().gate()[1:] > 0).all()


def test_vectors_come_newest_first_of_unit_length_and_by_name() -> None:
    data = dataset_of([[0, 1]], 3)
    one = known(data).tables["vector"]
    two = one.with_columns(name=pl.lit("other"), vector=pl.Series([[3.0, 4.0]] * 3, dtype=one.schema["vector"]))
    knowledge = Knowledge({"vector": pl.concat([one, two.head(2)])})
    vectors = known_vectors(data, knowledge, "other")
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0.6, 0.8], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(known_vectors(data, knowledge, "text"), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    "bad", [np.zeros((6, 5)), np.ones((5, 5)), np.ones(6), np.full((6, 5), np.nan), np.full((6, 5), np.inf)]
)
def test_vectors_that_do_not_fit_are_refused(bad: FloatArray) -> None:
    with pytest.raises(InputError, match="vector"):
        ItemVectors(6, 4, "both", bad.astype(np.float32))


@pytest.mark.parametrize("knowledge", [None, Knowledge()])
def test_without_vectors_it_says_what_to_do(knowledge: Knowledge | None) -> None:
    with pytest.raises(InputError, match="No vector is known") as caught:
        SasRec(SasRecConfig(**SMALL, sides="both")).fit(random_dataset(), knowledge)
    assert "fit" in str(caught.value.hint)


@pytest.mark.parametrize("sides", ["vector", "both"])
@pytest.mark.parametrize(("kind", "config"), MODELS)
def test_a_model_with_known_vectors_tells_unseen_items_apart_and_comes_back(kind, config, sides: str) -> None:
    data = random_dataset(unseen=3)
    model: SequenceRetriever = kind(config(**SMALL, sides=sides)).fit(data, known(data))
    assert not np.allclose(model.item_vectors[22], model.item_vectors[24])
    queries = [Query(), Query(None, np.array([1, 24], np.int32))]
    again = kind.from_state(model.state())
    np.testing.assert_array_equal(again.score(queries), model.score(queries))
    other = kind(config(**SMALL, sides=sides)).fit(data, known(data, seed=1))
    assert not np.allclose(other.score(queries), model.score(queries))


@pytest.mark.parametrize("sides", ["vector", "both"])
def test_every_weight_learns(sides: str) -> None:
    side = side_of(sides)
    side(torch.arange(8)).pow(2).sum().backward()
    assert [name for name, p in side.named_parameters() if p.grad is None or not p.grad.any()] == []


class TestTwoTowerWithBothSides(RecommenderContract):
    """Through the contract, with knowledge slipped into `fit`."""

    @classmethod
    def model(cls) -> TwoTower:
        class Knowing(TwoTower):
            def fit(self, dataset, knowledge=None, validation=None):  # type: ignore[no-untyped-def]
                return super().fit(dataset, known(dataset), validation)

        return Knowing(TwoTowerConfig(**SIZES, sides="both"))


def cold_split(folder: Path, cold: float = 0.1) -> tuple[Dataset, list[Query], list[np.ndarray]]:
    """The training events without a drawn tenth of the items, and the test queries whose target is one of them."""
    data = read_folder(folder)
    split = split_global_time(data)
    hidden = np.random.default_rng(0).random(data.n_items) < cold
    train = split.train.with_events(split.train.events.filter(pl.Series(~hidden[split.train.events["item_num"]])))
    asked = [(q, t) for q, t in zip(split.test.queries, split.test.targets, strict=True) if hidden[t[0]]]
    return train, [q for q, _ in asked], [t for _, t in asked]


@pytest.mark.slow
def test_cold_items_are_found_by_their_text(shared_data: Path) -> None:
    """Items that nobody met in training: their titles' words against a row that never learnt anything."""
    from palate.llm.encoders import MiniLMEncoder

    train, queries, targets = cold_split(shared_data / "movielens-100k")
    texts = train.items.select(pl.concat_str(["title", pl.col("categories").list.join(", ")], separator=". "))
    text = raw_text(train.item_ids, MiniLMEncoder(max_tokens=32).encode(texts.to_series().to_list()), "MiniLM")
    config = {"epochs": 2, "length": 50, "temperature": 0.05, "threads": 1}
    found = {}
    for sides in ("id", "vector", "both"):
        model = SasRec(SasRecConfig(**config, sides=sides)).fit(train, text)
        scores = mask_seen(model.score(queries), [query.history for query in queries])
        found[sides] = float(recall(top_n(scores, 50), targets, 50).mean())
    assert found["vector"] > found["id"]
    assert found["both"] > found["id"]


def test_what_happens_after_the_cut_changes_no_vector() -> None:
    """The items of all later events are shuffled; what was learnt before must be the same to the bit."""
    rng = np.random.default_rng(0)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    rows = [(f"u{rng.integers(20)}", f"i{rng.integers(25)}", start + timedelta(minutes=t)) for t in range(300)]
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Datetime("us", "UTC")}
    items = pl.DataFrame({"item_id": [f"i{i}" for i in range(25)]})
    users = pl.DataFrame({"user_id": [f"u{i}" for i in range(20)]})
    true = pl.DataFrame(rows, schema=schema, orient="row")
    late = true["item_id"].to_numpy().copy()
    late[240:] = rng.permutation(late[240:])
    shuffled = true.with_columns(item_id=pl.Series(late))
    assert not shuffled.equals(true)
    for kind, config in MODELS:
        vectors, states = [], []
        for events in (true, shuffled):
            split = split_global_time(Dataset.from_tables(items, events, users), 0.1, 0.1)
            model = kind(config(**SMALL, sides="both")).fit(split.train, known(split.train))
            early = [
                Query(None, split.train.histories.of(u), times=split.train.histories.times_of(u)) for u in range(5)
            ]
            vectors.append(model.item_vectors)
            states.append(model.encode(early))
        np.testing.assert_array_equal(*vectors)
        np.testing.assert_array_equal(*states)
