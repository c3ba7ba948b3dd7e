"""The loss equals torch's own, in value and gradient; sampling estimates it."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from palate.models.softmax import CatalogueLoss  # noqa: E402

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
    loss = CatalogueLoss(table, COUNTS, smoothing, full=100, negatives=3)(states, wanted)
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
    loss = CatalogueLoss(table, COUNTS, 0.1, full=100, negatives=3)(states * 1e4, wanted)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(states.grad).all()


def test_many_sampled_negatives_come_near_the_whole() -> None:
    table, states, wanted = parts()
    torch.manual_seed(0)
    with torch.no_grad():
        whole = CatalogueLoss(table, COUNTS, 0.0, full=100, negatives=1)(states, wanted)
        sampled = CatalogueLoss(table, COUNTS, 0.0, full=1, negatives=20_000)(states, wanted)
    torch.testing.assert_close(sampled, whole, atol=0.02, rtol=0)
