"""Every adapter: counted, computed by hand, learning, and usable in a ranking model."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from palate.errors import InputError  # noqa: E402
from palate.models.adapters.adapter import Sided  # noqa: E402
from palate.models.adapters.contrastive import Contrastive, info_nce  # noqa: E402
from palate.models.adapters.discrete import Codebook, Discrete, DiscreteConfig, collisions  # noqa: E402
from palate.models.adapters.precomputed import Precomputed, precompute  # noqa: E402
from palate.models.adapters.registry import adapter, fitted  # noqa: E402
from palate.models.adapters.similarity import digits, n_digits, quantised  # noqa: E402

B, D, WIDTH = 40, 6, 4


def vectors(seed: int = 0, n: int = B, width: int = D) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)


def made(name: str, **params):
    """The adapter and what it reads of the made-up users and items."""
    torch.manual_seed(0)
    make, users, items = fitted(name, vectors(1), vectors(2), np.arange(B), params)
    return make(users.shape[1], items.shape[1], WIDTH), torch.from_numpy(users), torch.from_numpy(items)


def mlp_size(n: int, hidden: int, out: int) -> int:
    return n * hidden + hidden + hidden * out + out


COUNTS = {
    "mlp": 2 * mlp_size(D, 128, WIDTH),
    "contrastive": 2 * mlp_size(D, 128, WIDTH),
    "hybrid-expert": (2 + 5 + 5) * mlp_size(D, 128, WIDTH) + 2 * D * 7,
    "similarity": (2 * 10 + 3 * 7 + 10 * 3) * WIDTH,  # 999 has 10 binary, 7 ternary and 3 decimal digits
    "discrete": 2 * (1 + 2 * 64) * WIDTH,
    "cold-gate": 2 * mlp_size(D, 128, WIDTH) + 2,
}
FIELDS = {"similarity": 3, "discrete": 4}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_as_many_as_the_formula_says_and_all_learn(name):
    module, users, items = made(name)
    assert sum(p.numel() for p in module.parameters()) == COUNTS[name]
    fields = module(users, items)
    assert fields.shape == (B, FIELDS.get(name, 2), WIDTH)
    (fields * torch.randn(fields.shape)).sum().backward()
    for label, parameter in module.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.abs().sum() > 0, label


def test_hybrid_experts_by_hand():
    module, users, items = made("hybrid-expert", shared=1, dedicated=2, hidden=3)
    weights = {name: p.detach().numpy().astype(np.float64) for name, p in module.named_parameters()}

    def experts(prefix: str, n: int, x: np.ndarray) -> list[np.ndarray]:
        inner = np.maximum(x @ weights[f"{prefix}.first.weight"].T + weights[f"{prefix}.first.bias"], 0)
        inner = inner.reshape(len(x), n, 3)
        return [
            np.maximum(inner[:, e] @ weights[f"{prefix}.second"][e] + weights[f"{prefix}.bias"][e], 0) for e in range(n)
        ]

    for place, (side, given) in enumerate((("user", users), ("item", items))):
        x = given.numpy().astype(np.float64)
        logits = x @ weights[f"gates.{side}.weight"].T
        shares = np.exp(logits - logits.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        found = [*experts("shared", 1, x), *experts(f"own.{side}", 2, x)]
        wanted = sum(shares[:, [e]] * out for e, out in enumerate(found))
        np.testing.assert_allclose(module(users, items)[:, place].detach().numpy(), wanted, atol=1e-5)


def test_plain_mlp_by_hand():
    module, users, items = made("mlp", hidden=3)
    for place, (side, x) in enumerate((("user", users), ("item", items))):
        first, _, second, _ = module.maps[side]
        inner = np.maximum(x.numpy() @ first.weight.detach().numpy().T + first.bias.detach().numpy(), 0)
        wanted = np.maximum(inner @ second.weight.detach().numpy().T + second.bias.detach().numpy(), 0)
        np.testing.assert_allclose(module(users, items)[:, place].detach().numpy(), wanted, atol=1e-5)


def test_the_gate_closes_on_what_was_met_often():
    module, users, items = made("cold-gate", half=20.0)
    counts = torch.tensor([0.0, 20.0, 1000.0])
    slope = np.log1p(np.exp(module.slope.item()))
    wanted = 1 / (1 + np.exp(-(np.log1p(20.0) - slope * np.log1p(counts.numpy()))))
    np.testing.assert_allclose(module.gate(counts).detach().numpy(), wanted, rtol=1e-4)
    assert abs(module.gate(torch.tensor([20.0])).item() - 0.5) < 1e-3
    often, seldom = items.clone(), items.clone()
    often[:, -1], seldom[:, -1] = 1000.0, 0.0
    ratio = module(users, seldom)[:, 1].detach().norm() / module(users, often)[:, 1].detach().norm()
    assert ratio > 10
    torch.testing.assert_close(module(users, seldom)[:, 0], module(users, often)[:, 0])


def test_digits_write_the_number():
    numbers = torch.arange(1000)
    for base in (2, 3, 10):
        places = n_digits(999, base)
        assert base ** (places - 1) <= 999 < base**places
        back = (digits(numbers, base, places) * base ** torch.arange(places)).sum(1)
        torch.testing.assert_close(back, numbers)


def test_similarity_by_hand():
    module, users, items = made("similarity")
    users[3] = 0  # nothing known
    u, i = users.numpy().astype(np.float64), items.numpy().astype(np.float64)
    with np.errstate(invalid="ignore"):
        cosines = (u * i).sum(1) / np.linalg.norm(u, axis=1) / np.linalg.norm(i, axis=1)
    found = module(users, items).detach().numpy()
    for row in (0, 1, 2, 4):
        number = round((cosines[row] + 1) / 2 * 999)
        for place, base in enumerate((2, 3, 10)):
            table, wanted = module.tables[place].weight.detach().numpy(), np.zeros(WIDTH)
            for k in range(n_digits(999, base)):
                wanted = wanted + table[k * base + number // base**k % base]
            np.testing.assert_allclose(found[row, place], wanted, atol=1e-6)
    assert not found[3].any()
    assert quantised(torch.tensor([-1.5, -1.0, 1.0, 2.0]), 1000).tolist() == [0, 0, 999, 999]


def test_info_nce_by_hand_leaves_twins_and_the_unknown_out():
    k, z = torch.from_numpy(vectors(3, 5)), torch.from_numpy(vectors(4, 5))
    z[3] = z[1]  # the same item twice
    there = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])
    a, b = k.numpy()[:4].astype(np.float64), z.numpy()[:4].astype(np.float64)
    a, b = a / np.linalg.norm(a, axis=1, keepdims=True), b / np.linalg.norm(b, axis=1, keepdims=True)
    scores = np.exp(a @ b.T / 0.2)
    scores[1, 3] = scores[3, 1] = 0
    wanted = -np.log(scores.diagonal() / scores.sum(1)).mean()
    assert info_nce(k, z, there, 0.2).item() == pytest.approx(wanted, rel=1e-5)
    assert info_nce(k, z, torch.zeros(5), 0.2).item() == 0.0


def test_the_contrastive_term_draws_knowledge_to_behaviour():
    module, users, items = made("contrastive", weight=1.0)
    assert isinstance(module, Contrastive)
    behaviour = torch.from_numpy(vectors(5, B, WIDTH)).abs()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    terms = []
    for _ in range(60):
        optimizer.zero_grad()
        module(users, items)
        module.beside(behaviour, behaviour)
        term = module.auxiliary()
        terms.append(term.item())
        term.backward()
        optimizer.step()
    assert terms[-1] < 0.7 * terms[0]
    module(users, items)
    assert module.auxiliary().item() == 0.0  # without behaviour there is nothing to be drawn to


def test_residual_codes_say_more_than_plain_ones_and_collide_less():
    rows = np.concatenate([vectors(6, 300), np.zeros((1, D), np.float32)])
    one, two = (Codebook(rows, DiscreteConfig(clusters=8, levels=levels)) for levels in (1, 2))
    codes = two.codes(rows)
    assert codes[-1].tolist() == [0, 0]
    assert codes[:-1].min() == 1
    assert codes.max() <= 8

    def left(book: Codebook) -> float:
        told = sum(level[book.codes(rows)[:-1, k] - 1] for k, level in enumerate(book.centres))
        return float(((rows[:-1] - told) ** 2).sum())

    assert left(two) < left(one) < float((rows**2).sum())
    few, many = collisions(one.codes(rows)), collisions(codes)
    assert few.entities == many.entities == 300
    assert many.codes > few.codes == 8
    assert few.share == 1.0
    assert collisions(Codebook(rows, DiscreteConfig(clusters=16, levels=3)).codes(rows)).share < 0.5
    assert many.largest < few.largest


def test_codes_are_fields_of_their_own():
    module, users, items = made("discrete", clusters=5)
    assert isinstance(module, Discrete)
    found = module(users, items).detach().numpy()
    row = users[0].long().tolist()
    np.testing.assert_array_equal(found[0, 0], module.tables["user"].weight[row[0]].detach().numpy())
    np.testing.assert_array_equal(found[0, 1], module.tables["user"].weight[5 + row[1]].detach().numpy())


@pytest.mark.parametrize("name", [name for name in COUNTS if name != "similarity"])
def test_what_is_precomputed_is_what_the_live_adapter_says(name):
    module, users, items = made(name)
    assert isinstance(module, Sided)
    small_users, small_items = precompute(module, users.numpy(), items.numpy())
    rows = torch.tensor([5, 0, 39, 7]), torch.tensor([1, 39, 3, 7])
    served = Precomputed(WIDTH)(torch.from_numpy(small_users)[rows[0]], torch.from_numpy(small_items)[rows[1]])
    torch.testing.assert_close(served, module(users[rows[0]], items[rows[1]]))


def test_what_belongs_to_a_pair_cannot_be_precomputed():
    module, users, items = made("similarity")
    with pytest.raises(InputError, match="cannot be made beforehand"):
        precompute(module, users.numpy(), items.numpy())


@pytest.mark.parametrize("name", ["mlp", "hybrid-expert", "discrete", "contrastive"])
def test_one_side_alone_is_enough(name):
    make, users, items = fitted(name, np.zeros((B, 0), np.float32), vectors(2), np.arange(B))
    module = make(users.shape[1], items.shape[1], WIDTH)
    fields = module(torch.from_numpy(users), torch.from_numpy(items))
    assert fields.shape == (B, 2 if name == "discrete" else 1, WIDTH)
    small_users, _ = precompute(module, users, items)
    assert small_users.shape == (B, 0)


@pytest.mark.parametrize("name", ["similarity", "hybrid-expert"])
def test_sides_of_different_spaces_are_refused(name):
    make, *_ = fitted(name, vectors(1), vectors(2, width=5), np.arange(B))
    with pytest.raises(InputError, match="one space"):
        make(D, 5, WIDTH)


def test_bad_names_and_parameters_are_said():
    with pytest.raises(InputError, match="no such adapter") as error:
        adapter("transformer")
    assert "hybrid-expert" in str(error.value)
    with pytest.raises(InputError, match="do not fit"):
        fitted("mlp", vectors(), vectors(), np.arange(B), {"hidden": 0})
    make, *_ = fitted("mlp", vectors(), vectors(), np.arange(B))
    with pytest.raises(InputError, match="users, of items"):
        make(0, 0, WIDTH)
