"""The loss equals torch's own, in value and gradient; sampling estimates it."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from palate.models.softmax import CatalogueLoss, LossConfig, _equal  # noqa: E402

COUNTS = np.array([3, 0, 1, 2, 5, 0, 1, 1])
MET = np.flatnonzero(COUNTS)


def parts() -> tuple[nn.Embedding, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    table = nn.Embedding(8, 5)
    table.weight.data = torch.randn(8, 5, generator=generator)
    states = torch.randn(40, 5, generator=generator).requires_grad_()
    return table, states, torch.from_numpy(MET)[torch.randint(len(MET), (40,), generator=generator)]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_is_cross_entropy_over_the_items_met(smoothing: float) -> None:
    table, states, wanted = parts()
    loss = CatalogueLoss(table, COUNTS, LossConfig(label_smoothing=smoothing))(states, wanted)
    loss.backward()
    own = states.grad, table.weight.grad
    states.grad = table.weight.grad = None
    place = torch.from_numpy(np.searchsorted(MET, wanted.numpy()))
    expected = F.cross_entropy(states @ table.weight[MET].T, place, label_smoothing=smoothing)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(own[0], states.grad)
    torch.testing.assert_close(own[1], table.weight.grad)


def test_large_scores_do_not_overflow() -> None:
    table, states, wanted = parts()
    loss = CatalogueLoss(table, COUNTS, LossConfig())(states * 1e4, wanted)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(states.grad).all()


def loss_of(table: nn.Embedding, states: torch.Tensor, wanted: torch.Tensor, **params: object) -> torch.Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        return CatalogueLoss(table, COUNTS, LossConfig(label_smoothing=0.0, **params))(states, wanted)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_many_sampled_negatives_come_near_the_whole(power: float) -> None:
    whole = loss_of(*parts(), loss="full")
    sampled = loss_of(*parts(), loss="sampled", negatives=30_000, negative_power=power)
    torch.testing.assert_close(sampled, whole, atol=0.02, rtol=0)


def test_shared_negatives_are_corrected_for_popularity() -> None:
    """With targets drawn as the counts say, the others of a large step stand for the whole catalogue."""
    table, states, _ = parts()
    rng = np.random.default_rng(0)
    wanted = torch.from_numpy(rng.choice(8, 4000, p=COUNTS / COUNTS.sum()))
    states = states[torch.from_numpy(rng.integers(0, 40, 4000))]
    whole, shared = (loss_of(table, states, wanted, loss=kind) for kind in ("full", "shared"))
    torch.testing.assert_close(shared, whole, atol=0.03, rtol=0)


def test_shared_is_the_formula() -> None:
    table, states, wanted = parts()
    s, w, v = states.detach().double().numpy(), wanted.numpy(), table.weight.detach().double().numpy()
    shares, total = COUNTS / COUNTS.sum(), 0.0
    for i in range(len(w)):
        others = sum(np.exp(s[i] @ v[w[j]]) / (39 * shares[w[j]]) for j in range(len(w)) if w[j] != w[i])
        own = np.exp(s[i] @ v[w[i]])
        total += np.log((own + others) / own)
    assert float(loss_of(table, states, wanted, loss="shared")) == pytest.approx(total / len(w), rel=1e-5)


@pytest.mark.parametrize("kind", ["sampled", "shared"])
def test_gradients_of_drawn_softmax_are_autograds(kind: str) -> None:
    """Against a plain `cross_entropy` over the same draws, every draw that is the target itself left out."""
    table, states, wanted = parts()
    catalogue = CatalogueLoss(table, COUNTS, LossConfig(loss=kind, negatives=30, negative_power=1.0))
    torch.manual_seed(3)
    catalogue(states, wanted).backward()
    own = states.grad, table.weight.grad
    states.grad = table.weight.grad = None
    torch.manual_seed(3)
    drawn = wanted if kind == "shared" else catalogue.met[catalogue._draw(30)]
    draws = len(wanted) - 1 if kind == "shared" else 30
    chance = torch.from_numpy(COUNTS / COUNTS.sum()).float()[drawn]
    others = (states @ table(drawn).T - (chance * draws).log()).masked_fill(drawn == wanted[:, None], -torch.inf)
    scores = torch.cat([(states * table(wanted)).sum(1, keepdim=True), others], 1)
    F.cross_entropy(scores, torch.zeros(len(wanted), dtype=torch.long)).backward()
    torch.testing.assert_close(own[0], states.grad)
    torch.testing.assert_close(own[1], table.weight.grad)


def test_pairs_are_the_formulas() -> None:
    table, states, wanted = parts()
    catalogue = CatalogueLoss(table, COUNTS, LossConfig(loss="bce", negatives_each=3))
    torch.manual_seed(0)
    drawn = catalogue.met[catalogue._draw(120)].view(40, 3).numpy()
    s, w, v = states.detach().double().numpy(), wanted.numpy(), table.weight.detach().double().numpy()
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    own, others = (s * v[w]).sum(1), np.einsum("nd,nkd->nk", s, v[drawn])
    bce = -np.log(sigmoid(own)) - (np.log(1 - sigmoid(others)) * (drawn != w[:, None])).sum(1)
    assert float(loss_of(table, states, wanted, loss="bce", negatives_each=3)) == pytest.approx(bce.mean(), rel=1e-5)
    bpr = -np.log(sigmoid(own[:, None] - others))
    assert float(loss_of(table, states, wanted, loss="bpr", negatives_each=3)) == pytest.approx(bpr.mean(), rel=1e-5)


@pytest.mark.parametrize("kind", ["full", "sampled", "shared", "bce", "bpr"])
def test_one_item_and_one_event_are_enough(kind: str) -> None:
    table = nn.Embedding(1, 4)
    loss = CatalogueLoss(table, np.array([3]), LossConfig(loss=kind))(
        torch.ones(1, 4), torch.zeros(1, dtype=torch.long)
    )
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(table.weight.grad).all()


def test_equal_pairs_are_found() -> None:
    one, other = torch.tensor([5, 1, 9, 1]), torch.tensor([1, 5, 5, 2, 1])
    pairs = set(map(tuple, _equal(one, other).T.tolist()))
    assert pairs == set(map(tuple, np.argwhere(one.numpy()[:, None] == other.numpy()).tolist()))
