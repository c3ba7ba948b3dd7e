"""Windows predict each event once, after the events before it, with its time, in batches of like length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data.dataset import Histories

torch = pytest.importorskip("torch")
from palate.models.windows import IGNORED, Windows  # noqa: E402

N = 50


def histories_of(sizes: list[int]) -> Histories:
    """Items and times drawn so that a place can be told from its neighbours."""
    rng = np.random.default_rng(len(sizes))
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    total = int(offsets[-1])
    return Histories(offsets, rng.integers(0, N, total).astype(np.int32), np.arange(total, dtype=np.int64) * 10 + 7)


@given(
    st.lists(st.integers(0, 23), max_size=12), st.integers(2, 9), st.integers(1, 30), st.integers(0, 9), st.booleans()
)
def test_each_event_is_predicted_once_from_those_before(
    sizes: list[int], length: int, batch_targets: int, seed: int, some: bool
) -> None:
    histories = histories_of(sizes)
    labels = np.random.default_rng(seed).random(len(histories.items)) < 0.5 if some else None
    epoch = Windows(histories, N, length, batch_targets, labels)(np.random.default_rng(seed))
    predicted = []
    for number in range(len(epoch)):
        tokens, times, targets = (part.numpy() for part in epoch[number])
        assert tokens.shape == targets.shape == (times.shape[0], times.shape[1] - 1)
        assert tokens.shape[1] <= length
        for row, column in np.argwhere(targets != IGNORED):
            place = (times[row, column + 1] - 7) // 10
            predicted.append(place)
            assert targets[row, column] == histories.items[place]
            begin = place in histories.offsets[:-1]
            assert tokens[row, column] == (N + 1 if begin else histories.items[place - 1])
            assert times[row, column] == histories.times[place - (not begin)]
    wanted = np.arange(len(histories.items)) if labels is None else np.flatnonzero(labels)
    np.testing.assert_array_equal(np.sort(predicted), wanted)


def test_little_is_padding() -> None:
    rng = np.random.default_rng(0)
    histories = histories_of(rng.geometric(0.1, 3000).tolist())
    epoch = Windows(histories, N, 50, 512)(rng)
    cells = sum(epoch[i].tokens.numel() for i in range(len(epoch)))
    assert len(histories.items) / cells > 0.9


def test_epochs_differ_and_repeat() -> None:
    windows = Windows(histories_of([30] * 20), N, 8, 64)
    one, again, other = (windows(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(one[2].tokens, again[2].tokens)
    assert not torch.equal(one[2].targets.flatten()[:20], other[2].targets.flatten()[:20])


def test_reads_mapped_files(tmp_path: Path) -> None:
    whole = histories_of([5, 0, 12, 3])
    for name in ("items", "times"):
        np.save(tmp_path / f"{name}.npy", getattr(whole, name))
    items, times = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("items", "times"))
    mapped = Windows(Histories(whole.offsets, items, times), N, 4, 6)(np.random.default_rng(3))
    plain = Windows(whole, N, 4, 6)(np.random.default_rng(3))
    assert len(mapped) == len(plain)
    for number in range(len(plain)):
        for a, b in zip(mapped[number], plain[number], strict=True):
            assert torch.equal(a, b)
