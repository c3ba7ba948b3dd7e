"""Rows moved only where they are touched: the moves of SparseAdam, and an average as if all were moved each step."""

from __future__ import annotations

import numpy as np
import pytest

from palate.models.checkpoint import State

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from palate.models.optimiser import Optimiser  # noqa: E402

ROWS, AVERAGE, RATE = 20, 0.9, 0.05


class Table(nn.Module):
    """The squared distance of looked-up rows from 1, through a plain layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rows, self.out = nn.Embedding(ROWS, 4), nn.Linear(4, 1)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return (self.out(self.rows(numbers)) - 1).square().mean()


def optimiser_of(network: nn.Module, lazy: int | None, clip: float = 1e9) -> Optimiser:
    return Optimiser(network, RATE, 0, 0.0, clip, AVERAGE, lazy)


def draws(steps: int) -> list[torch.Tensor]:
    rng = np.random.default_rng(1)
    return [torch.from_numpy(rng.integers(0, ROWS, 3)) for _ in range(steps)]


def learn(network: Table, optimiser: Optimiser, batches: list[torch.Tensor]) -> None:
    for batch in batches:
        optimiser.clear()
        network(batch).backward()
        optimiser.step()


def test_touched_rows_move_as_in_sparse_adam_and_the_average_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palate.models.optimiser.EPSILON", 1e-14)  # SparseAdam adds it before the correction
    network, plain = Table().double(), Table().double()
    plain.rows.sparse = True
    optimiser = optimiser_of(network, lazy=0)
    sparse = torch.optim.SparseAdam([plain.rows.weight], lr=RATE, eps=1e-14)
    dense = torch.optim.AdamW(plain.out.parameters(), lr=RATE, weight_decay=0.0, eps=1e-14)
    mean = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    for step, batch in enumerate(draws(40), 1):
        learn(network, optimiser, [batch])
        plain.zero_grad()
        plain(batch).backward()
        sparse.step()
        dense.step()
        past = min(AVERAGE, step / (step + 10))
        for name, weight in plain.state_dict().items():
            mean[name].lerp_(weight, 1 - past)
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], weight, atol=1e-6, rtol=0)
        torch.testing.assert_close(optimiser.averaged()[name], mean[name], atol=1e-6, rtol=0)


def test_untouched_rows_stay() -> None:
    network = Table()
    before = network.rows.weight.detach().clone()
    learn(network, optimiser_of(network, lazy=0), [torch.tensor([3, 4, 4])] * 5)
    moved = (network.rows.weight.detach() != before).any(1)
    assert moved.nonzero()[:, 0].tolist() == [3, 4]


@pytest.mark.parametrize("lazy", [None, 0])
def test_goes_on_from_its_parts(lazy: int | None) -> None:
    batches = draws(20)
    whole, half = Table(), Table()
    optimiser, first = optimiser_of(whole, lazy), optimiser_of(half, lazy)
    learn(whole, optimiser, batches)
    learn(half, first, batches[:9])
    arrays = {f"{part}/{n}": t.numpy().copy() for part, tensors in first.parts().items() for n, t in tensors.items()}
    resumed = Table()
    resumed.load_state_dict(half.state_dict())
    second = optimiser_of(resumed, lazy)
    second.take_up(State(arrays), first.steps)
    learn(resumed, second, batches[9:])
    for name, weight in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], weight)
        assert torch.equal(second.averaged()[name], optimiser.averaged()[name])


@pytest.mark.parametrize("lazy", [None, 0])
def test_bounds_the_norm_over_all(lazy: int | None) -> None:
    network = Table()
    optimiser = optimiser_of(network, lazy, clip=0.01)
    network(torch.tensor([1, 2, 2])).backward()
    free = Table()
    free(torch.tensor([1, 2, 2])).backward()
    expected = float(torch.cat([p.grad.flatten() for p in free.parameters()]).norm())
    assert optimiser.step() == pytest.approx(expected, rel=1e-5)
    bounded = [p.grad.to_dense().flatten() for p in network.parameters()]
    assert float(torch.cat(bounded).norm()) == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("lazy", [None, 0])
def test_nothing_moves_by_what_is_not_finite(lazy: int | None) -> None:
    network = Table()
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    optimiser = optimiser_of(network, lazy)
    (network(torch.tensor([1])) * float("inf")).backward()
    assert not np.isfinite(optimiser.step())
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())
