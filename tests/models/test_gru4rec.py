"""GRU4Rec: the contract, its size, and the recurrence written by hand."""

from __future__ import annotations

import numpy as np
import pytest
from recommender_contract import RetrieverContract, dataset_of, query_of, random_dataset

torch = pytest.importorskip("torch")
from palate.models.gru4rec import Gru4Rec, Gru4RecConfig, Network  # noqa: E402
from palate.models.sequence_retriever import ItemTable  # noqa: E402

SMALL = Gru4RecConfig(dimensions=8, units=12, length=8, dropout=0.1, batch_targets=64, epochs=3, warmup=5, threads=1)


class TestGru4Rec(RetrieverContract):
    @classmethod
    def model(cls) -> Gru4Rec:
        return Gru4Rec(SMALL)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_number_of_parameters(layers: int) -> None:
    network = Network(ItemTable(20, 8), SMALL.model_copy(update={"layers": layers}))
    d, h = 8, 12
    expected = 22 * d + 3 * (d * h + h * h + 2 * h) + (layers - 1) * 3 * (2 * h * h + 2 * h) + h * d + d
    assert sum(p.numel() for p in network.parameters()) == expected


def test_a_forward_pass_by_hand() -> None:
    torch.manual_seed(0)
    network = Network(ItemTable(20, 8), SMALL).eval()
    w = {name: value.numpy().astype(np.float64) for name, value in network.state_dict().items()}
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    state, expected = np.zeros(12), []
    for token in (3, 1, 4, 1, 5):
        read = w["gru.weight_ih_l0"] @ w["items.rows.weight"][token] + w["gru.bias_ih_l0"]
        kept = w["gru.weight_hh_l0"] @ state + w["gru.bias_hh_l0"]
        (r, z), n = sigmoid((read + kept)[:24]).reshape(2, 12), slice(24, 36)
        state = (1 - z) * np.tanh(read[n] + r * kept[n]) + z * state
        expected.append(w["out.weight"] @ state + w["out.bias"])
    with torch.no_grad():
        hidden = network.hidden(torch.tensor([[3, 1, 4, 1, 5]]), torch.zeros(1, 6, dtype=torch.long))
    np.testing.assert_allclose(hidden[0].numpy(), expected, atol=1e-5)


def test_every_weight_learns() -> None:
    data = random_dataset()
    model = Gru4Rec(SMALL)
    network = Network(ItemTable(25, 8), SMALL)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 22, (4, 6)))
    model.loss(network, data.item_counts)(tokens, torch.zeros(4, 7, dtype=torch.long), tokens.roll(-1, 1)).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_overfits_32_sequences() -> None:
    rng = np.random.default_rng(0)
    histories = [rng.permutation(40)[:6].tolist() for _ in range(32)]
    more = {"dropout": 0.0, "epochs": 60, "learning_rate": 0.01, "warmup": 0, "label_smoothing": 0.0}
    model = Gru4Rec(Gru4RecConfig(dimensions=32, units=64, length=8, threads=1, **more)).fit(dataset_of(histories, 40))
    best = model.score([query_of(*history[:-1]) for history in histories]).argmax(1)
    assert (best == [history[-1] for history in histories]).mean() > 0.9
