"""Every backbone: parameters by formula, a pass by hand in NumPy, gradients everywhere, 32 rows learned by heart."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")
from palate.models.parts import configured  # noqa: E402
from palate.models.ranking.blocks import BackboneConfig  # noqa: E402
from palate.models.ranking.registry import BACKBONES, backbone  # noqa: E402

Array = npt.NDArray[np.float64]
NINE = [name for name in BACKBONES if name not in ("mmoe", "stem")]
B, F, D, T = 7, 5, 8, 6
HIDDEN = (12, 10)


def inputs(rows: int = B, seed: int = 0) -> tuple[Any, ...]:
    """Fields, history, mask and target; the first row has no history, the others have some."""
    rng = np.random.default_rng(seed)
    lengths = np.concatenate([[0], rng.integers(1, T + 1, rows - 1)])
    mask = np.arange(T) < lengths[:, None]
    history = rng.normal(size=(rows, T, D)) * mask[:, :, None]
    fields, target = rng.normal(size=(rows, F, D)), rng.normal(size=(rows, D))
    return tuple(
        torch.tensor(x, dtype=torch.bool if x is mask else torch.float64) for x in (fields, history, mask, target)
    )


def made(name: str, **params: Any) -> Any:
    torch.manual_seed(0)
    factory = backbone(name)
    config = configured(factory, {"hidden": HIDDEN, "dropout": 0.0, **params})
    return factory(F, D, config).double()


def mlp(*sizes: int) -> int:
    return sum(a * b + b for a, b in pairwise(sizes))


def gru(width: int) -> int:
    return 2 * (3 * width * width + 3 * width)


DEEP = mlp(F * D, *HIDDEN, 1)
LINEAR = F * D + 1
PAIRS = F * (F - 1) // 2
COUNTS = {
    "deepfm": LINEAR + DEEP,
    "dcn": 3 * 2 * F * D + mlp(F * D, *HIDDEN) + (F * D + HIDDEN[-1] + 1),
    "dcnv2": 3 * (2 * F * D * 64 + F * D) + mlp(F * D, *HIDDEN) + (F * D + HIDDEN[-1] + 1),
    "xdeepfm": LINEAR + F * F * 16 + 16 * F * 16 + 32 + DEEP,
    "autoint": 2 * 4 * D * D + LINEAR + DEEP,
    "fibinet": LINEAR + mlp(F, 1, F) + 2 * (F - 1) * D * D + mlp(2 * PAIRS * D, *HIDDEN, 1),
    "fignn": 4 * D * D + 2 * D + 2 * F * D * D + gru(D) + (D + 1) + mlp(F * D, *HIDDEN, F),
    "din": mlp(4 * D, 80, 40, 1) + mlp((F + 3) * D, *HIDDEN, 1),
    "dien": gru(D) + D * D + gru(D) + mlp((F + 2) * D, *HIDDEN, 1),
}


@pytest.mark.parametrize("name", NINE)
def test_parameters(name: str) -> None:
    assert sum(p.numel() for p in made(name).parameters()) == COUNTS[name]


class Weights:
    """The parameters of a network as arrays, by name."""

    def __init__(self, network: Any) -> None:
        self.of = {name: p.detach().numpy() for name, p in network.named_parameters()}

    def linear(self, name: str, x: Array) -> Array:
        return np.asarray(x @ self.of[f"{name}.weight"].T + self.of.get(f"{name}.bias", 0.0))

    def mlp(self, name: str, x: Array, layers: int, last: bool = True) -> Array:
        """`layers` hidden ones at 0, 3, 6 of a Sequential (ReLU and dropout between), then the last."""
        for k in range(layers):
            x = np.maximum(self.linear(f"{name}.layers.{3 * k}", x), 0)
        return self.linear(f"{name}.layers.{3 * layers}", x) if last else x


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def attended(w: Weights, name: str, e: Array, heads: int = 2) -> Array:
    """AutoInt's interacting layer for one row [f, d], head by head."""
    q, k, v, own = (e @ part.T for part in np.split(w.of[f"{name}.project.weight"], 4))
    size = D // heads
    out = np.concatenate(
        [softmax(q[:, s] @ k[:, s].T) @ v[:, s] for s in (slice(h * size, (h + 1) * size) for h in range(heads))], 1
    )
    return np.maximum(out + own, 0)


def by_deepfm(w: Weights, e: Array, h: Array, t: Array) -> float:
    pairs = sum(e[i] @ e[j] for i in range(F) for j in range(i))
    x = e.ravel()
    return float((w.linear("first", x) + pairs + w.mlp("deep", x, 2))[0])


def by_dcn(w: Weights, e: Array, h: Array, t: Array) -> float:
    first = x = e.ravel()
    for k in range(3):
        x = first * (w.of[f"crosses.{k}.weight.weight"][0] @ x) + w.of[f"crosses.{k}.bias"] + x
    return float(w.linear("out", np.concatenate([x, w.mlp("deep", first, 2, last=False)]))[0])


def by_dcnv2(w: Weights, e: Array, h: Array, t: Array) -> float:
    first = x = e.ravel()
    for k in range(3):
        matrix = w.of[f"crosses.{k}.1.weight"] @ w.of[f"crosses.{k}.0.weight"]
        x = first * (matrix @ x + w.of[f"crosses.{k}.1.bias"]) + x
    return float(w.linear("out", np.concatenate([x, w.mlp("deep", first, 2, last=False)]))[0])


def by_xdeepfm(w: Weights, e: Array, h: Array, t: Array) -> float:
    x, sums = e, []
    for k in range(2):
        weight = w.of[f"cin.layers.{k}.weight"].reshape(16, len(x), F)
        x = np.array([sum(m[i, j] * x[i] * e[j] for i in range(len(x)) for j in range(F)) for m in weight])
        sums.append(x.sum(1))
    crossed = np.concatenate(sums) @ w.of["crossed.weight"][0]
    return float((w.linear("first", e.ravel()) + crossed + w.mlp("deep", e.ravel(), 2))[0])


def by_autoint(w: Weights, e: Array, h: Array, t: Array) -> float:
    x = attended(w, "layers.1", attended(w, "layers.0", e))
    return float((w.linear("out", x.ravel()) + w.mlp("deep", e.ravel(), 2))[0])


def by_fibinet(w: Weights, e: Array, h: Array, t: Array) -> float:
    inner = np.maximum(w.linear("senet.squeeze", e.mean(1)), 0)
    weighed = e * np.maximum(w.linear("senet.excite", inner), 0)[:, None]
    crossed = [
        (x[i] @ w.of[f"{name}.weight"][i]) * x[j]
        for name, x in (("plain", e), ("weighted", weighed))
        for i in range(F)
        for j in range(i + 1, F)
    ]
    return float((w.linear("first", e.ravel()) + w.mlp("deep", np.concatenate(crossed), 2))[0])


def gru_step(w: Weights, read: str, recur: str, x: Array, h: Array, attention: float | None = None) -> Array:
    """PyTorch's gates: reset, update, new; h' = (1 − z) n + z h, or with attention (1 − a u) h + a u n."""
    (xr, xz, xn), (hr, hz, hn) = (
        np.split(v @ w.of[f"{name}"].T + w.of[name.replace("weight", "bias")], 3) for name, v in ((read, x), (recur, h))
    )
    z, n = sigmoid(xz + hz), np.tanh(xn + sigmoid(xr + hr) * hn)
    return (1 - z) * n + z * h if attention is None else (1 - attention * z) * h + attention * z * n


def by_fignn(w: Weights, e: Array, h: Array, t: Array) -> float:
    scores = np.array(
        [
            [w.of["edges.listens.weight"][0] @ e[i] + w.of["edges.speaks.weight"][0] @ e[j] for j in range(F)]
            for i in range(F)
        ]
    )
    scores = np.where(scores > 0, scores, 0.01 * scores)
    np.fill_diagonal(scores, -np.inf)
    edges, states = softmax(scores), attended(w, "attention", e)
    for _ in range(2):
        sent = np.array([states[j] @ w.of["send"][j] for j in range(F)])
        heard = [sum(edges[i, j] * sent[j] for j in range(F)) @ w.of["receive"][i] for i in range(F)]
        states = np.array(
            [gru_step(w, "update.weight_ih", "update.weight_hh", heard[i], states[i]) + e[i] for i in range(F)]
        )
    return float(w.mlp("weigh", states.ravel(), 2) @ w.linear("node", states)[:, 0])


def by_din(w: Weights, e: Array, h: Array, t: Array) -> float:
    v = np.zeros(D)
    for event in h:
        v += w.mlp("attention.unit", np.concatenate([event, t, event - t, event * t]), 2)[0] * event
    return float(w.mlp("deep", np.concatenate([e.ravel(), v, t, v * t]), 2)[0])


def by_dien(w: Weights, e: Array, h: Array, t: Array) -> float:
    states, state = [], np.zeros(D)
    for event in h:
        state = gru_step(w, "extract.weight_ih_l0", "extract.weight_hh_l0", event, state)
        states.append(state)
    evolved = np.zeros(D)
    if states:
        weights = softmax(np.array([s @ w.of["near.weight"] @ t for s in states]))
        for a, s in zip(weights, states, strict=True):
            evolved = gru_step(w, "evolve.read.weight", "evolve.recur.weight", s, evolved, float(a))
    return float(w.mlp("deep", np.concatenate([e.ravel(), evolved, t]), 2)[0])


BY_HAND: dict[str, Callable[[Weights, Array, Array, Array], float]] = {
    "deepfm": by_deepfm, "dcn": by_dcn, "dcnv2": by_dcnv2, "xdeepfm": by_xdeepfm, "autoint": by_autoint,
    "fibinet": by_fibinet, "fignn": by_fignn, "din": by_din, "dien": by_dien,
}  # fmt: skip


@pytest.mark.parametrize("name", NINE)
def test_a_pass_by_hand(name: str) -> None:
    network = made(name).eval()
    with torch.no_grad():
        for p in network.parameters():  # biases begin at 0 otherwise
            p.add_(0.1 * torch.randn_like(p))
    fields, history, mask, target = inputs()
    found = network(fields, history, mask, target).detach().numpy()
    weights = Weights(network)
    rows = zip(fields.numpy(), history.numpy(), mask.numpy(), target.numpy(), strict=True)
    expected = [BY_HAND[name](weights, e, h[m], t) for e, h, m, t in rows]
    assert found == pytest.approx(np.array(expected), abs=1e-9)


@pytest.mark.parametrize("name", NINE)
def test_gradients_reach_every_parameter_and_input(name: str) -> None:
    network = made(name).train()
    fields, history, mask, target = inputs(64)
    fields.requires_grad_()
    network(fields, history, mask, target).square().mean().backward()
    for parameter, tensor in (*network.named_parameters(), ("fields", fields)):
        assert tensor.grad is not None and tensor.grad.abs().max() > 0, parameter


@pytest.mark.parametrize("name", NINE)
def test_learns_32_rows_by_heart(name: str) -> None:
    network = made(name, hidden=(32, 16)).float()
    fields, history, mask, target = (x if x.dtype == torch.bool else x.float() for x in inputs(32))
    labels = torch.from_numpy(np.random.default_rng(1).integers(0, 2, 32)).float()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(150):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(fields, history, mask, target), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if float(loss.detach()) < 0.02:
            break
    assert float(loss.detach()) < 0.02


@pytest.mark.parametrize("name", NINE)
def test_as_many_outputs_as_asked_for(name: str) -> None:
    assert made(name, outputs=3)(*inputs()).shape == (B, 3)
    assert made(name)(*inputs()).shape == (B,)


@pytest.mark.parametrize("name", NINE)
def test_what_lies_behind_a_history_changes_nothing(name: str) -> None:
    network = made(name).eval()
    fields, history, mask, target = inputs()
    padded = torch.cat([history, torch.zeros(B, 3, D, dtype=history.dtype)], 1)
    longer = torch.cat([mask, torch.zeros(B, 3, dtype=torch.bool)], 1)
    assert torch.allclose(network(fields, history, mask, target), network(fields, padded, longer, target))


def test_a_full_matrix_of_dcnv2_says_what_its_factors_say() -> None:
    full, low = made("dcnv2", rank=0), made("dcnv2", rank=F * D)
    for a, b in zip(full.crosses, low.crosses, strict=True):
        with torch.no_grad():
            a.weight.copy_(b[1].weight @ b[0].weight)
            a.bias.copy_(b[1].bias)
    full.deep.load_state_dict(low.deep.state_dict())
    full.out.load_state_dict(low.out.state_dict())
    assert torch.allclose(full(*inputs()), low(*inputs()))


def test_configurations_are_described() -> None:
    for name in BACKBONES:
        config = backbone(name).Config
        assert issubclass(config, BackboneConfig)
        assert all(field.description for field in config.model_fields.values()), name
