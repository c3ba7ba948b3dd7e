"""The loop: goes on after any kill, stops where it diverges, sums tasks, and is one run in any number of processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palate.errors import InputError, PalateError
from palate.models.checkpoint import FileCheckpoint, State

torch = pytest.importorskip("torch")
from together import main  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from palate.models.trainer import Batch, Trainer, TrainerConfig  # noqa: E402

SCRIPT = Path(__file__).parent / "together.py"
CONFIG = TrainerConfig(epochs=4, warmup=2, threads=1)


class KilledError(Exception):
    pass


def batches(rng: np.random.Generator) -> list[Batch]:
    inputs = [torch.from_numpy(rng.normal(size=(6, 3)).astype(np.float32)) for _ in range(5)]
    return [(x, x.sum(1, keepdim=True)) for x in inputs]


class Small:
    """A network and the trainer's arguments around it."""

    def __init__(self, config: TrainerConfig = CONFIG, hidden: int = 4, **parts: Any) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(3, hidden), nn.Dropout(0.2), nn.ReLU(), nn.Linear(hidden, 1))
        self.spoiled_at: int | None = None
        self.calls = 0
        self.trainer = Trainer("small", self.network, batches, self.loss, parts.pop("validate", None), config, **parts)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        right = nn.functional.mse_loss(self.network(x), y)
        return right * float("nan") if self.calls == self.spoiled_at else right

    def weights(self) -> dict[str, np.ndarray]:
        return {name: tensor.numpy().copy() for name, tensor in self.network.state_dict().items()}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("killed_at", [1, 3, 5, 6, 13, 20])
def test_goes_on_within_and_between_epochs(tmp_path: Path, killed_at: int) -> None:
    config = CONFIG.model_copy(update={"checkpoint_minutes": 0.0})
    whole = Small(config)
    whole.trainer.run()

    def die(name: str, done: int, *_: object) -> None:
        if done == killed_at:
            raise KilledError

    checkpoint = FileCheckpoint(tmp_path / "state")
    with pytest.raises(KilledError):
        Small(config, checkpoint=checkpoint, on_progress=die).trainer.run()
    resumed = Small(config, checkpoint=checkpoint)
    resumed.trainer.run()
    assert same(resumed.weights(), whole.weights())
    assert resumed.calls == 20 - (killed_at - 1)  # the step at which it died was not yet kept


def test_seeds_decide() -> None:
    runs = [Small(CONFIG.model_copy(update={"seed": seed})) for seed in (0, 0, 1)]
    for run in runs:
        run.trainer.run()
    assert same(runs[0].weights(), runs[1].weights())
    assert not same(runs[0].weights(), runs[2].weights())


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_stops_where_it_diverges(tmp_path: Path, average: float) -> None:
    config = CONFIG.model_copy(update={"checkpoint_minutes": 0.0, "average": average})
    checkpoint = FileCheckpoint(tmp_path / "state")
    figures = iter([0.5, 0.4, 0.3, 0.2])
    run = Small(config, checkpoint=checkpoint, validate=lambda: next(figures))
    run.spoiled_at = 13
    with pytest.raises(PalateError, match="diverged") as caught:
        run.trainer.run()
    assert caught.value.where == "small, epoch 3, batch 3 of 5"
    assert "loss nan" in str(caught.value)
    state = checkpoint.load()
    assert state is not None
    assert (state.facts["epoch"], state.facts["step"]) == (2, 2)
    assert all(np.isfinite(array).all() for array in state.arrays.values())
    best = {name.removeprefix("best/"): a for name, a in state.arrays.items() if name.startswith("best/")}
    assert same(run.weights(), best)


def test_a_gradient_without_bound_stops_it_too() -> None:
    run = Small()
    with torch.no_grad():
        for parameter in run.network.parameters():
            parameter.fill_(1e25)
    with pytest.raises(PalateError, match="diverged") as caught:
        run.trainer.run()
    assert "epoch 1, batch 1 of 5" in str(caught.value)


def test_a_checkpoint_of_other_shapes_is_named(tmp_path: Path) -> None:
    checkpoint = FileCheckpoint(tmp_path / "state")
    Small(checkpoint=checkpoint).trainer.run()
    with pytest.raises(InputError, match="do not fit") as caught:
        Small(hidden=7, checkpoint=checkpoint).trainer.run()
    assert caught.value.where == "checkpoint, tensor 0.weight"
    assert (caught.value.got, caught.value.allowed) == ([4, 3], [7, 3])


def test_a_checkpoint_without_a_tensor_is_named(tmp_path: Path) -> None:
    checkpoint = FileCheckpoint(tmp_path / "state")
    Small(checkpoint=checkpoint).trainer.run()
    state = checkpoint.load()
    assert state is not None
    del state.arrays["network/3.bias"]
    checkpoint.save(State(state.arrays, state.facts))
    with pytest.raises(InputError) as caught:
        Small(checkpoint=checkpoint).trainer.run()
    assert "3.bias" in str(caught.value)
    assert caught.value.got == "no such tensor"


def test_tasks_are_summed_by_their_weights() -> None:
    network, told = nn.Linear(3, 2), []

    def losses(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        out = network(x)
        return {"click": (out[:, 0] - y[:, 0]).square().mean(), "stay": (out[:, 1] + y[:, 0]).square().mean()}

    config = TrainerConfig(epochs=80, learning_rate=0.05, task_weights={"stay": 0.0}, average=0.0)
    before = network.weight.detach().clone()
    Trainer("two", network, batches, losses, None, config, on_progress=lambda *call: told.append(call[3])).run()
    assert told[-1]["click"] < 0.01
    torch.testing.assert_close(network.weight[1], before[1], rtol=0, atol=0)
    assert told[0]["loss"] == pytest.approx(told[0]["click"])


def test_learns_with_half_precision() -> None:
    told: list[dict[str, float]] = []
    config = CONFIG.model_copy(update={"precision": "bfloat16", "epochs": 60, "learning_rate": 0.02})
    run = Small(config, hidden=16, on_progress=lambda *call: told.append(call[3]))
    run.network[1].p = 0.0
    run.trainer.run()
    assert told[-1]["loss"] < told[0]["loss"] / 4
    assert all(parameter.dtype == torch.float32 for parameter in run.network.parameters())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config, "compile_threads", 1)  # a pool of processes, each with a torch of its own
    runs = [Small(CONFIG.model_copy(update={"compile": compiled})) for compiled in (False, True)]
    for run in runs:
        run.network[1].p = 0.0  # a compiled dropout draws otherwise
        run.trainer.run()
    for name, weight in runs[0].weights().items():
        np.testing.assert_allclose(runs[1].weights()[name], weight, atol=1e-5)


@pytest.mark.slow
def test_a_killed_process_is_gone_on_from(tmp_path: Path) -> None:
    """SIGKILL in the middle of the third epoch."""
    killed = subprocess.run([sys.executable, str(SCRIPT), tmp_path / "x", tmp_path / "state", "10"], check=False)
    assert killed.returncode == -signal.SIGKILL
    main(str(tmp_path / "resumed"), str(tmp_path / "state"), 99)
    main(str(tmp_path / "whole"), str(tmp_path / "other"), 99)
    resumed, whole = (FileCheckpoint(tmp_path / f"{name}-alone").load() for name in ("resumed", "whole"))
    assert resumed is not None
    assert whole is not None
    assert same(resumed.arrays, whole.arrays)


@pytest.mark.slow
def test_two_processes_are_one_with_batches_twice_as_large(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29511"]
    subprocess.run([*run, str(SCRIPT), tmp_path / "w", tmp_path / "two"], check=True, capture_output=True)
    main(str(tmp_path / "w"), str(tmp_path / "one"))
    zero, one, alone = (FileCheckpoint(tmp_path / f"w-{rank}").load() for rank in ("0", "1", "alone"))
    assert zero is not None
    assert one is not None
    assert alone is not None
    assert same(zero.arrays, one.arrays)
    for name, array in alone.arrays.items():
        np.testing.assert_allclose(zero.arrays[name], array, atol=1e-6)
