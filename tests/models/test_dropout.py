"""Keeps the mean, drops the share that was asked for, independently, and only in training."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from palate.models.dropout import Dropout  # noqa: E402


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.99])
@pytest.mark.parametrize("shape", [(4001,), (11, 7, 53)])
def test_drops_the_share_and_keeps_the_mean(p: float, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.ones(shape, requires_grad=True)
    total, dropped = torch.zeros(shape), torch.zeros(shape)
    for _ in range(400):
        out = Dropout(p)(x)
        total, dropped = total + out.detach() / 400, dropped + (out.detach() == 0).float() / 400
    assert float(total.mean()) == pytest.approx(1, abs=0.02)
    assert float(dropped.mean()) == pytest.approx(p, abs=0.003)
    assert float((dropped - p).abs().max()) < 6 * (p * (1 - p) / 400) ** 0.5  # each element alike
    out.sum().backward()
    torch.testing.assert_close(x.grad, out.detach())


def test_neighbours_do_not_know_each_other() -> None:
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(80_000)) > 0).float().view(-1, 8)
    assert float((torch.corrcoef(kept.T) - torch.eye(8)).abs().max()) < 0.05


def test_does_nothing_in_evaluation() -> None:
    x = torch.randn(5, 5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
