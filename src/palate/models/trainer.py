"""A plain PyTorch loop: seeded epochs, early stop on a validation figure, a checkpoint after each epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from palate.models.checkpoint import Checkpoint, State

Progress = Callable[[str, int, int, dict[str, float]], None]
Batch = tuple[Tensor, ...]


class Batches(Protocol):
    """The batches of an epoch, each made when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Batch: ...


class TrainerConfig(BaseModel):
    """How long and how fast to learn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=20, ge=1, description="most passes over the training events")
    patience: int = Field(default=3, ge=1, description="epochs without a better validation figure before it stops")
    learning_rate: float = Field(default=1e-3, gt=0, description="of AdamW (Loshchilov & Hutter 2019)")
    warmup: int = Field(default=50, ge=0, description="steps in which the learning rate rises from 0")
    weight_decay: float = Field(default=0.0, ge=0, description="of AdamW, on matrices")
    clip: float = Field(default=5.0, gt=0, description="greatest norm of the gradient of a step")
    average: float = Field(
        default=0.998, ge=0, lt=1, description="share of the past in the moving average of weights; 0: none is taken"
    )
    seed: int = Field(default=0, description="of initial weights, order of batches and dropout")
    threads: int | None = Field(default=None, ge=1, description="of torch in this process; None leaves them be")


@dataclass
class Course:
    """What a training run has come to. `stale` counts epochs since the best one."""

    epoch: int = 0
    best: float = -np.inf
    stale: int = 0
    curve: list[float] = field(default_factory=list)


class Trainer:
    """Trains `network` and leaves it with the weights of the best epoch (the last one without `validate`).

    What is judged and kept is the moving average of the weights over the steps (Polyak & Juditsky 1992).

    The random numbers of an epoch depend on the seed and the epoch alone, so that a run that was killed and goes
    on from its checkpoint ends with the very weights of a run that was not.

    Args:
        name: For `on_progress`.
        network: What is trained.
        batches: The batches of an epoch in order, from a generator of that epoch.
        loss: Of one batch, a scalar.
        validate: The figure to raise, with the network in evaluation mode.
        key: Says what is trained on what; a checkpoint with another key is not gone on from.
        on_progress: Called with name, steps done, steps at most, and the latest figures.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        batches: Callable[[np.random.Generator], Batches],
        loss: Callable[..., Tensor],
        validate: Callable[[], float] | None,
        config: TrainerConfig,
        key: str = "",
        checkpoint: Checkpoint | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        self.name, self.network, self.batches, self.loss = name, network, batches, loss
        self.validate, self.config, self.key = validate, config, key
        self.checkpoint, self.on_progress = checkpoint, on_progress
        decayed = [p for p in network.parameters() if p.dim() > 1]
        plain = [p for p in network.parameters() if p.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
        self.best: dict[str, Tensor] = _copy(network)
        self.mean: dict[str, Tensor] = _copy(network)
        self.course = Course()
        self.steps = 0

    def run(self) -> Course:
        """Go on from the checkpoint, if there is one, to the end."""
        self._restore()
        config, course = self.config, self.course
        with torch.random.fork_rng(devices=[]), _Threads(config.threads):
            while course.epoch < config.epochs and course.stale < config.patience:
                self._epoch()
                self._judge()
                course.epoch += 1
                if self.checkpoint is not None:
                    self.checkpoint.save(self._state())
        self.network.load_state_dict(self.best)
        self.network.eval()
        return course

    def _epoch(self) -> None:
        seed = np.random.SeedSequence((self.config.seed, self.course.epoch))
        torch.manual_seed(int(seed.generate_state(1)[0]))
        batches = self.batches(np.random.default_rng(seed))
        self.network.train()
        for done in range(1, len(batches) + 1):
            batch = batches[done - 1]
            self.steps += 1
            self._set_rate()
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.loss(*batch)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
            self.optimizer.step()
            self._average()
            self._report(done, len(batches), loss)

    def _set_rate(self) -> None:
        share = min(1.0, self.steps / self.config.warmup) if self.config.warmup else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = share * self.config.learning_rate

    def _average(self) -> None:
        """At first over fewer steps, so that the random weights of the beginning are soon forgotten."""
        past = min(self.config.average, self.steps / (self.steps + 10)) if self.config.average else 0.0
        for name, weight in self.network.state_dict().items():
            self.mean[name].lerp_(weight, 1 - past)

    def _report(self, done: int, steps: int, loss: Tensor) -> None:
        if self.on_progress is None:
            return
        figures = {"epoch": float(self.course.epoch + 1), "loss": float(loss.detach())}
        if self.course.curve:
            figures["validation"] = self.course.curve[-1]
        total = self.config.epochs * steps
        self.on_progress(self.name, self.course.epoch * steps + done, total, figures)

    def _judge(self) -> None:
        course = self.course
        self.network.eval()
        latest = _copy(self.network)
        self.network.load_state_dict(self.mean)
        figure = float(course.epoch) if self.validate is None else self.validate()
        course.curve.append(figure)
        if figure > course.best:
            course.best, course.stale, self.best = figure, 0, _copy(self.network)
        else:
            course.stale += 1
        self.network.load_state_dict(latest)

    def _state(self) -> State:
        arrays = {f"network/{name}": t.numpy() for name, t in _copy(self.network).items()}
        arrays |= {f"best/{name}": t.numpy() for name, t in self.best.items()}
        arrays |= {f"mean/{name}": t.numpy() for name, t in self.mean.items()}
        for number, slots in self.optimizer.state_dict()["state"].items():
            arrays |= {f"adam/{number}/{name}": t.numpy() for name, t in slots.items()}
        facts = {"key": self.key, "steps": self.steps, **vars(self.course)}
        return State(arrays, facts)

    def _restore(self) -> None:
        state = None if self.checkpoint is None else self.checkpoint.load()
        if state is None or state.facts.get("key") != self.key:
            return
        self.network.load_state_dict(_part(state, "network/"))
        self.best, self.mean = _part(state, "best/"), _part(state, "mean/")
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(state, "adam/").items():
            number, slot = name.split("/")
            slots.setdefault(int(number), {})[slot] = tensor
        self.optimizer.load_state_dict({"state": slots, "param_groups": self.optimizer.state_dict()["param_groups"]})
        facts = {name: value for name, value in state.facts.items() if name not in ("key", "steps")}
        self.course, self.steps = Course(**facts), state.facts["steps"]


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _part(state: State, prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): torch.from_numpy(a) for n, a in state.arrays.items() if n.startswith(prefix)}


class _Threads:
    """Sets torch's threads for a while."""

    def __init__(self, threads: int | None) -> None:
        self.before, self.threads = torch.get_num_threads(), threads

    def __enter__(self) -> None:
        if self.threads is not None:
            torch.set_num_threads(self.threads)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.before)
