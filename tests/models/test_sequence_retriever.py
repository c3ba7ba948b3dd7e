"""What sequence models share: times reach the network in training, asking and serving; item sides can be put in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recommender_contract import RetrieverContract, random_dataset

from palate.data.query import Query
from palate.models.checkpoint import FileCheckpoint
from palate.models.sequence_encoder import OnnxSequenceEncoder, times_of, tokens_of

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

from palate.models.sequence_retriever import (  # noqa: E402
    ItemTable,
    SequenceConfig,
    SequenceNetwork,
    SequenceRetriever,
)

CONFIG = SequenceConfig(dimensions=8, length=6, epochs=2, batch_targets=64, threads=1, temperature=None)
MINUTE = 60_000_000


class Fading(SequenceNetwork):
    """The mean of the items so far, each weighted by how soon the next one came."""

    def __init__(self, items: nn.Module, config: SequenceConfig) -> None:
        super().__init__(items)
        self.rate = nn.Parameter(torch.zeros(()))

    def hidden(self, tokens: Tensor, times: Tensor) -> Tensor:
        gaps = (times[:, 1:] - times[:, :-1]).float() / MINUTE
        weights = (1 + self.rate.exp() * gaps).reciprocal()
        steps = torch.arange(1, tokens.shape[1] + 1)
        return (self.items(tokens) * weights[:, :, None]).cumsum(1) / steps[None, :, None]

    def targets(self, vectors: Tensor) -> Tensor:
        return nn.functional.normalize(vectors, dim=-1)


class FadingMean(SequenceRetriever[SequenceConfig]):
    name = "fading-mean"
    config_kind = SequenceConfig

    def network(self, items: nn.Module) -> Fading:
        return Fading(items, self.config)


class TestASmallModel(RetrieverContract):
    @classmethod
    def model(cls) -> FadingMean:
        return FadingMean(CONFIG)


def timed_queries(n: int) -> list[Query]:
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, 22, size).astype(np.int32) for size in rng.integers(0, 9, n)]
    times = [np.sort(rng.integers(0, 99 * MINUTE, len(history))) for history in histories]
    return [Query(None, h, 100 * MINUTE, times=t) for h, t in zip(histories, times, strict=True)]


def test_times_count_and_are_served(tmp_path: Path) -> None:
    model = FadingMean(CONFIG).fit(random_dataset())
    queries = timed_queries(20)
    model.export_onnx(tmp_path / "encoder.onnx")
    np.testing.assert_allclose(
        OnnxSequenceEncoder(tmp_path / "encoder.onnx").encode(queries), model.encode(queries), atol=1e-5
    )
    timeless = [Query(None, query.history, query.as_of) for query in queries]
    assert not np.allclose(model.encode(queries), model.encode(timeless))


def test_the_vectors_are_those_that_states_are_multiplied_with() -> None:
    vectors = FadingMean(CONFIG).fit(random_dataset()).item_vectors
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_another_item_side_is_trained_and_kept(tmp_path: Path) -> None:
    class Doubled(ItemTable):
        def table(self) -> Tensor:
            return self(torch.arange(self.n_items))

        def forward(self, tokens: Tensor) -> Tensor:
            return 2 * super().forward(tokens)

    model = FadingMean(CONFIG, items=Doubled).fit(random_dataset())
    FileCheckpoint(tmp_path / "model").save(model.state())
    state = FileCheckpoint(tmp_path / "model").load()
    assert state is not None
    queries = timed_queries(5)
    np.testing.assert_array_equal(FadingMean.from_state(state, items=Doubled).score(queries), model.score(queries))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(2, 6), st.booleans())
def test_each_token_has_its_time_and_the_answer_has_as_of(sizes: list[int], length: int, asked: bool) -> None:
    items = [np.arange(size, dtype=np.int32) for size in sizes]
    queries = [Query(None, i, 1000 if asked else None, times=i.astype(np.int64) * 10 + 5) for i in items]
    tokens, times = tokens_of(queries, length, 20), times_of(queries, length)
    assert times.shape == (len(sizes), tokens.shape[1] + 1)
    for row, size in enumerate(sizes):
        last = 1000 if asked else max(size * 10 - 5, 0)
        events = [token * 10 + 5 for token in tokens[row] if token < 20]
        begin = [events[0] if events else last] * int((tokens[row] == 21).sum())
        expected = begin + events
        assert times[row].tolist() == expected + [last] * (times.shape[1] - len(expected))
