"""LEARN: the loss written by hand, one tower for both sides, and items that nobody met."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from recommender_contract import RetrieverContract, dataset_of, query_of, random_dataset

from palate.data.dataset import Dataset
from palate.data.query import Query
from palate.data.samples import clicked_samples
from palate.knowledge.controls import raw_text
from palate.knowledge.tables import Knowledge

torch = pytest.importorskip("torch")
from palate.models.adapters.learn import LearnAdapter  # noqa: E402
from palate.models.adapters.learn import LearnConfig as LearnAdapterConfig  # noqa: E402
from palate.models.adapters.registry import fitted  # noqa: E402
from palate.models.item_side import ItemVectors  # noqa: E402
from palate.models.learn import Learn, LearnConfig, Network, _drawn, dense_all_action  # noqa: E402
from palate.models.ranking.features import Features, FeaturesConfig  # noqa: E402
from palate.models.ranking.ranker import Ranker, RankerConfig, SideVectors  # noqa: E402

SMALL = LearnConfig(
    dimensions=8, blocks=1, heads=2, length=8, dropout=0.1, batch_targets=64, epochs=3, warmup=5, threads=1
)


def known(dataset: Dataset, width: int = 5) -> Knowledge:
    vectors = np.random.default_rng(0).normal(size=(dataset.n_items, width)).astype(np.float32)
    return raw_text(dataset.item_ids, vectors, "some encoder")


class Knowing(Learn):
    """With knowledge slipped into `fit`, for the contract."""

    def fit(self, dataset, knowledge=None, validation=None):  # type: ignore[no-untyped-def]
        return super().fit(dataset, known(dataset), validation)


class TestLearn(RetrieverContract):
    @classmethod
    def model(cls) -> Learn:
        return Knowing(SMALL)


class TestLearnByCatalogue(RetrieverContract):
    @classmethod
    def model(cls) -> Learn:
        return Knowing(SMALL.model_copy(update={"objective": "catalogue"}))


def network_of(config: LearnConfig = SMALL) -> Network:
    torch.manual_seed(0)
    vectors = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    network = Network(ItemVectors(20, config.dimensions, "vector", vectors), config)
    network.unit = True
    return network


def test_the_dense_loss_is_the_paper_s() -> None:
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(7, 4)), rng.normal(size=(9, 4))
    of_user, of_item = np.array([0, 0, 1, 1, 1, 2, 2]), np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
    ids = np.array([5, 6, 7, 5, 8, 1, 2, 3, 7])
    terms = []
    for j, i in enumerate(of_user):
        own = set(ids[of_item == i])
        others = sum(np.exp(users[j] @ items[k]) for k in range(9) if of_item[k] != i and ids[k] not in own)
        for k in np.flatnonzero(of_item == i):
            good = np.exp(users[j] @ items[k])
            terms.append(-np.log(good / (good + others)))
    loss = dense_all_action(*(torch.from_numpy(x) for x in (users, items, of_user, of_item, ids)))
    assert float(loss) == pytest.approx(np.mean(terms), abs=1e-9)


def test_one_window_alone_has_nothing_to_be_told_from() -> None:
    users = torch.randn(2, 4, requires_grad=True)
    nothing = torch.zeros(2, dtype=torch.long)
    loss = dense_all_action(users, torch.randn(2, 4), nothing, nothing, torch.tensor([1, 2]))
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(users.grad).all()


def test_histories_come_before_targets() -> None:
    torch.manual_seed(0)
    events = torch.arange(9) < torch.tensor([1, 2, 5, 9])[:, None]
    for _ in range(50):
        history, later, first = _drawn(events, 3)
        assert (history.sum(1) >= 1).all()
        assert (later.sum(1) >= 1).all()
        assert (history.sum(1) <= 3).all()
        assert (later.sum(1) <= 3).all()
        assert not (history & ~events).any()
        assert not (later & ~events).any()
        for row in range(4):
            assert history[row].nonzero().max() <= first[row] <= later[row].nonzero().min()


def test_the_number_of_parameters() -> None:
    d, k = 8, 5
    block = 4 * (d * d + d) + 2 * 4 * d * d + 4 * d + d + 2 * 2 * d
    expected = (2 * d + k * d + 2 * d) + SMALL.length * d + block + 2 * d + d * d + d
    assert sum(p.numel() for p in network_of().parameters()) == expected


def test_an_item_is_a_history_of_its_own() -> None:
    network = network_of().eval()
    with torch.no_grad():
        table = network.targets(network.items.table())
        alone = network.pointing(network.hidden(torch.tensor([[3]]), torch.zeros(1, 2)))[0, 0]
        torch.testing.assert_close(table[3], alone)
        torch.testing.assert_close(table.norm(dim=1), torch.ones(20))


def test_looks_only_back() -> None:
    network = network_of().eval()
    with torch.no_grad():
        one, other = (network.hidden(torch.tensor([tokens]), torch.zeros(1, 6)) for tokens in ([1, 2, 3], [1, 2, 9]))
    torch.testing.assert_close(one[:, :2], other[:, :2])
    assert not torch.allclose(one[:, 2], other[:, 2])


@pytest.mark.parametrize("objective", ["dense", "catalogue"])
def test_every_weight_learns(objective: str) -> None:
    config = SMALL.model_copy(update={"objective": objective})
    network = network_of(config)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 20, (6, 8)))
    tokens[:, 0] = 21
    loss = Learn(config).loss(network, np.ones(20, np.int64))
    loss(tokens, torch.zeros(6, 9, dtype=torch.long), tokens.roll(-1, 1).clamp(max=19)).backward()
    frozen = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert frozen == []


@pytest.mark.slow
def test_overfits_32_sequences() -> None:
    rng = np.random.default_rng(0)
    histories = [[2 * u, 2 * u + 1] for u in range(32)]
    data = dataset_of(histories, 64)
    vectors = rng.normal(size=(64, 48)).astype(np.float32)
    config = LearnConfig(
        dimensions=16, blocks=1, length=4, dropout=0.0, epochs=150, learning_rate=0.01, warmup=0, threads=1, average=0.9
    )
    model = Learn(config).fit(data, raw_text(data.item_ids, vectors, "some encoder"))
    scores = model.score([query_of(h[0]) for h in histories])
    scores[np.arange(32), [h[0] for h in histories]] = -np.inf
    assert (scores.argmax(1) == [h[1] for h in histories]).mean() > 0.9


def test_an_item_nobody_met_is_encoded_by_what_is_known_of_it() -> None:
    data = random_dataset(unseen=3)
    vectors = Learn(SMALL).fit(data, known(data)).item_vectors
    assert not np.allclose(vectors[22], vectors[24])


def test_the_adapter_joins_both_vectors_and_learns_from_the_labels_by_itself() -> None:
    torch.manual_seed(0)
    adapter = LearnAdapter(6, 5, 4, LearnAdapterConfig(hidden=7, weight=0.5))
    user, item, labels = torch.randn(9, 6), torch.randn(9, 5), torch.arange(9).remainder(2).float()[:, None]
    fields = adapter(user, item)
    assert fields.shape == (9, 3, 4)
    assert adapter.auxiliary().item() == 0  # nothing came of these rows yet
    w = {name: value.detach().numpy() for name, value in adapter.named_parameters()}
    hidden = np.maximum(np.concatenate([user, item], 1) @ w["joint.0.weight"].T + w["joint.0.bias"], 0)
    joint = np.maximum(hidden @ w["joint.2.weight"].T + w["joint.2.bias"], 0)
    np.testing.assert_allclose(fields[:, 2].detach().numpy(), joint, atol=1e-5)
    np.testing.assert_allclose(
        fields[:, 1].detach().numpy(), item.numpy() @ w["sides.item.weight"].T + w["sides.item.bias"], atol=1e-5
    )
    adapter.labelled(labels)
    chance = 1 / (1 + np.exp(-(joint @ w["head.weight"].T + w["head.bias"])[:, 0]))
    truth = labels[:, 0].numpy()
    expected = -0.5 * np.mean(truth * np.log(chance) + (1 - truth) * np.log(1 - chance))
    assert adapter.auxiliary().item() == pytest.approx(expected, abs=1e-5)
    (adapter.auxiliary() + fields.sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in adapter.parameters())
    assert sum(p.numel() for p in adapter.parameters()) == (6 + 5) * 4 + 2 * 4 + (11 * 7 + 7) + (7 * 4 + 4) + (4 + 1)


def test_a_ranker_takes_the_adapter_and_its_loss() -> None:
    data = random_dataset()
    data = data.with_events(data.events.with_columns(value=pl.lit(None, pl.Float32)))
    model = Learn(SMALL).fit(data, known(data))
    users = model.encode([Query(None, data.histories.of(user)) for user in range(data.n_users)])
    samples = clicked_samples(data)
    make, users, items = fitted("learn", users, model.item_vectors, data.item_counts)
    ranker = Ranker(config=RankerConfig(epochs=2, width=8), adapter=make, vectors=SideVectors(users, items)).fit(
        Features(data, samples, FeaturesConfig(history=4)), samples
    )
    predicted = ranker.predict(samples)
    assert predicted.shape == (len(samples),)
    assert ((predicted > 0) & (predicted < 1)).all()
    assert len(np.unique(predicted)) > 1
