"""HSTU against a forward pass written by hand, one-by-one scoring, and the clock."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recommender_contract import RetrieverContract, dataset_of, query_of, random_dataset

from palate.data.query import Query
from palate.errors import PalateError

torch = pytest.importorskip("torch")
from palate.models.hstu import Hstu, HstuConfig, Network, shortened, steps_between  # noqa: E402
from palate.models.sequence_retriever import ItemTable  # noqa: E402
from palate.models.windows import IGNORED, SequenceBatch  # noqa: E402

SMALL = HstuConfig(
    dimensions=16, blocks=2, heads=2, length=8, dropout=0.1, batch_targets=64, epochs=3, warmup=5, threads=1
)
MINUTE = 60_000_000


class TestHstu(RetrieverContract):
    @classmethod
    def model(cls) -> Hstu:
        return Hstu(SMALL)


class TestHstuWithAllThatCanBeSwitchedOn(RetrieverContract):
    @classmethod
    def model(cls) -> Hstu:
        more = {"places": True, "alpha": 1.2, "candidates": 4, "temperature": None, "time_bias": False}
        return Hstu(SMALL.model_copy(update=more))


def network_of(config: HstuConfig, n_items: int = 20) -> Network:
    torch.manual_seed(0)
    network = Network(ItemTable(n_items, config.dimensions), config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # far from 0, so that nothing hides
    return network.eval()


def batch_of(rng: np.random.Generator, b: int, t: int) -> tuple[torch.Tensor, torch.Tensor]:
    times = np.sort(rng.integers(0, 10**9, (b, t + 1)) * 1_000_000, axis=1)
    return torch.from_numpy(rng.integers(0, 20, (b, t))), torch.from_numpy(times)


@pytest.mark.parametrize(("places", "near", "gaps"), [(1, 1, 1), (0, 0, 1), (0, 1, 0)])
def test_the_number_of_parameters(places: int, near: int, gaps: int) -> None:
    config = SMALL.model_copy(
        update={"places": bool(places), "place_bias": bool(near), "time_bias": bool(gaps), "candidates": 1}
    )
    d, n = 16, 8
    block = 4 * d * d + d * d + d + near * (n + 1) + gaps * 129
    expected = (20 + 2) * d + 2 * block + places * (n + 1) * d + d
    assert sum(p.numel() for p in network_of(config).parameters()) == expected


@pytest.mark.parametrize("heads", [1, 2])
def test_a_forward_pass_by_hand(heads: int) -> None:
    rng = np.random.default_rng(1)
    config = SMALL.model_copy(update={"blocks": 1, "heads": heads, "places": True})
    network = network_of(config)
    tokens, times = batch_of(rng, 1, 5)
    w = {name: value.numpy().astype(np.float64) for name, value in network.state_dict().items()}

    def norm(x: np.ndarray) -> np.ndarray:
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)

    def silu(x: np.ndarray) -> np.ndarray:
        return x / (1 + np.exp(-x))

    x = w["items.rows.weight"][tokens[0].numpy()] * 4.0 + w["places"][:5]
    u, v, q, k = np.split(silu(norm(x) @ w["blocks.0.mix.weight"].T), 4, axis=1)
    seconds, width = times[0].numpy() / 1e6, 16 // heads
    read = np.zeros((5, 16))
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        for i in range(5):
            for j in range(i + 1):
                gap = max(abs(seconds[i + 1] - seconds[j]), 1)
                bias = w["blocks.0.near"][i - j] + w["blocks.0.gaps"][min(int(np.log(gap) / 0.301), 128)]
                read[i, own] += silu(q[i, own] @ k[j, own] + bias) / config.length * v[j, own]
    out = x + (u * norm(read)) @ w["blocks.0.out.weight"].T + w["blocks.0.out.bias"]
    with torch.no_grad():
        np.testing.assert_allclose(network.hidden(tokens, times)[0].numpy(), out, atol=1e-4)


def test_a_gap_of_time_falls_into_its_step() -> None:
    asked = torch.tensor([[0, 1, 2, 3600, 10**12]]) * 1_000_000
    steps = steps_between(asked, torch.tensor([[0]]))[0, :, 0].tolist()
    assert steps == [0, 0, 2, 27, 91]


def test_every_weight_learns() -> None:
    config = SMALL.model_copy(update={"places": True, "candidates": 3})
    model = Hstu(config)
    model.fit(random_dataset())
    network = network_of(config, 25).train()
    loss = model.loss(network, random_dataset().item_counts)
    tokens, times = batch_of(np.random.default_rng(0), 6, 8)
    loss(tokens, times, tokens.roll(-1, 1)).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_overfits_32_sequences() -> None:
    rng = np.random.default_rng(0)
    histories = [rng.permutation(40)[:6].tolist() for _ in range(32)]
    config = HstuConfig(
        dimensions=32, length=8, dropout=0.0, epochs=60, learning_rate=0.01, warmup=0, label_smoothing=0.0, threads=1
    )
    model = Hstu(config).fit(dataset_of(histories, 40))
    best = model.score([query_of(*history[:-1]) for history in histories]).argmax(1)
    assert (best == [history[-1] for history in histories]).mean() > 0.9


@pytest.fixture(scope="module")
def judge() -> Hstu:
    return Hstu(SMALL.model_copy(update={"candidates": 4, "places": True})).fit(random_dataset())


@settings(max_examples=15, deadline=None)
@given(
    history=st.lists(st.integers(0, 24), max_size=12),
    items=st.lists(st.integers(0, 24), max_size=9),
    size=st.integers(1, 10),
    gap=st.integers(0, 10**14),
)
def test_candidates_are_judged_as_one_by_one(
    judge: Hstu, history: list[int], items: list[int], size: int, gap: int
) -> None:
    """The candidate itself read as one more event: what M-FALCON must equal."""
    times = np.arange(len(history), dtype=np.int64) * MINUTE
    query = Query(None, np.array(history, np.int32), len(history) * MINUTE + gap, times=times)
    scores = judge.score_candidates(query, np.array(items, np.int32), size)
    network = judge._fitted()
    begin = [25 + 1] if len(history) < SMALL.length else []
    read = torch.tensor([[*begin, *history[-SMALL.length :]]])
    first = times[-SMALL.length :][:1] if len(history) else [query.as_of]
    clock = [*(list(first) if begin else []), *times[-SMALL.length :], query.as_of, query.as_of]
    for item, score in zip(items, scores.tolist(), strict=True):
        tokens = torch.cat([read, torch.tensor([[item]])], 1)
        with torch.no_grad():
            alone = network.judged(network.hidden(tokens, torch.tensor(np.array([clock], np.int64)))[:, -1:])
        assert score == pytest.approx(float(alone), abs=1e-5)


def test_padding_does_not_reach_candidates(judge: Hstu) -> None:
    network = judge._fitted()
    tokens, times = batch_of(np.random.default_rng(3), 2, 6)
    tokens[0, 4:] = 25
    times[0, 5:] = times[0, 4]
    candidates = torch.tensor([[1, 2, 3], [4, 5, 6]])
    with torch.no_grad():
        both = network.beside(tokens, times, candidates, 2)
        alone = network.beside(tokens[:1, :4], times[:1, :5], candidates[:1], 3)
    torch.testing.assert_close(both[:1], alone, atol=1e-5, rtol=0)


def test_without_a_judge_there_are_no_scores_of_candidates() -> None:
    with pytest.raises(PalateError, match="not learned to judge"):
        Hstu(SMALL).fit(random_dataset()).score_candidates(query_of(1), np.array([2], np.int32))


@pytest.mark.slow
def test_candidates_are_told_apart() -> None:
    """Everybody walks the circle 0, 1, ... 9, so that the next item is known."""
    data = dataset_of([[(start + step) % 10 for step in range(6)] for start in range(10)] * 4, 10)
    config = SMALL.model_copy(
        update={"candidates": 8, "epochs": 250, "learning_rate": 0.01, "dropout": 0.0, "batch_targets": 240}
    )
    model = Hstu(config.model_copy(update={"blocks": 1, "time_bias": False})).fit(data)
    every = np.arange(10, dtype=np.int32)
    assert [int(model.score_candidates(query_of(a, a + 1), every).argmax()) for a in range(7)] == [*range(2, 9)]


def test_the_moment_asked_about_counts_only_with_the_clock() -> None:
    history, times = np.array([1, 2, 3], np.int32), np.arange(3, dtype=np.int64) * MINUTE
    early, late = (Query(None, history, 3 * MINUTE + later, times=times) for later in (0, 10**14))
    timed = Hstu(SMALL.model_copy(update={"epochs": 1})).fit(random_dataset())
    assert not np.allclose(timed.encode([early]), timed.encode([late]))
    untimed = Hstu(SMALL.model_copy(update={"epochs": 1, "time_bias": False})).fit(random_dataset())
    np.testing.assert_array_equal(untimed.encode([early]), untimed.encode([late]))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_a_shortened_window_is_part_of_it_in_order(seed: int, sizes: list[int]) -> None:
    """Token i is i, its event's time i seconds, and it predicts i + 1."""
    width = max(sizes)
    order = torch.arange(width + 1)
    ends = torch.tensor(sizes)[:, None]
    tokens = torch.where(order[:-1] < ends, order[:-1], 99)
    whole = SequenceBatch(tokens, torch.minimum(order, ends), torch.where(order[1:] <= ends, order[1:], IGNORED))
    torch.manual_seed(seed)
    short = shortened(whole, 12, 1.2)
    most = int(12**0.6)
    assert short.tokens.shape[1] in (width, min(width, most))
    for row, size in enumerate(sizes):
        kept = (short.targets[row] != IGNORED).sum()
        assert kept == min(size, short.tokens.shape[1])
        targets, read = short.targets[row, :kept], short.tokens[row, :kept]
        assert targets[-1] == size
        assert (torch.diff(read) > 0).all()
        assert (read[1:] == targets[:-1]).all()
        assert (short.times[row, : kept + 1] == torch.cat([read[:1], targets])).all()


def test_looks_only_back() -> None:
    network = network_of(SMALL)
    tokens, times = batch_of(np.random.default_rng(0), 2, 6)
    other, later = tokens.clone(), times.clone()
    other[:, 3:], later[:, 4:] = (other[:, 3:] + 7) % 20, later[:, 4:] + 10**15
    with torch.no_grad():
        a, b = network.hidden(tokens, times), network.hidden(other, later)
    torch.testing.assert_close(a[:, :3], b[:, :3], rtol=0, atol=0)
    assert not torch.allclose(a[:, 3:], b[:, 3:])
