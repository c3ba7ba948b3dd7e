"""A plain PyTorch loop: seeded epochs, early stop on a validation figure, states to go on from after a kill."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from palate.errors import PalateError
from palate.models.checkpoint import Checkpoint, State
from palate.models.optimiser import Optimiser
from palate.models.processes import Processes
from palate.models.weights import copied, load_weights, tensors_of

Progress = Callable[[str, int, int, dict[str, float]], None]
Batch = tuple[Tensor, ...]
Losses = Tensor | Mapping[str, Tensor]


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
    task_weights: dict[str, float] = Field(default={}, description="of losses that have names in their sum; else 1")
    seed: int = Field(default=0, description="of initial weights, order of batches and dropout")
    checkpoint_minutes: float = Field(default=10.0, ge=0, description="between the states kept within an epoch")
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of matrix products; bfloat16: by autocast, where the processor has it"
    )
    compile: bool = Field(default=False, description="the loss by torch.compile: a minute before the first step")
    device: str = Field(default="cpu", description="torch's name of where to train")
    threads: int | None = Field(default=None, ge=1, description="of torch in this process; None leaves them be")

    def learned(self) -> dict[str, Any]:
        """What the weights depend on."""
        return self.model_dump(mode="json", exclude={"threads", "checkpoint_minutes", "device"})


@dataclass
class Course:
    """What a training run has come to. `step` counts those of this epoch, `stale` epochs since the best one."""

    epoch: int = 0
    step: int = 0
    steps: int = 0
    best: float = -np.inf
    stale: int = 0
    curve: list[float] = field(default_factory=list)


class Trainer:
    """Trains `network` and leaves it with the weights of the best epoch (the last one without `validate`).

    What is judged and kept is the moving average of the weights over the steps (Polyak & Juditsky 1992).

    The random numbers of a step depend on the seed and its place alone, so that a run that was killed and goes on
    from its checkpoint ends with the very weights of a run that was not. Started by torchrun, each process takes
    every n-th batch, and the step is that of one batch n times as large; all must see the checkpoint's file.

    Args:
        name: For `on_progress`.
        network: What is trained.
        batches: The batches of an epoch in order, from a generator of that epoch.
        loss: Of one batch: a mean over its examples, or several by name, summed by `task_weights`.
        validate: The figure to raise, with the network in evaluation mode.
        key: Says what is trained on what; a checkpoint with another key is not gone on from.
        on_progress: Called with name, steps done, steps at most, and the latest figures.
        size: Examples of a batch that `loss` is the mean over.
        lazy: Rows beyond which an embedding learns only where a step has touched it (in one process, not compiled),
            since moving all of it would take most of the step; None: never.

    Raises (in `run`):
        PalateError: The training diverged. The checkpoint is the last good one, the network holds its best weights.
        InputError: The checkpoint's tensors do not fit the network.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        batches: Callable[[np.random.Generator], Batches],
        loss: Callable[..., Losses],
        validate: Callable[[], float] | None,
        config: TrainerConfig,
        key: str = "",
        checkpoint: Checkpoint | None = None,
        on_progress: Progress | None = None,
        size: Callable[[Batch], int] = lambda batch: len(batch[-1]),
        lazy: int | None = None,
    ) -> None:
        self.name, self.network, self.batches, self.size, self.lazy = name, network, batches, size, lazy
        self.validate, self.config, self.key = validate, config, key
        self.checkpoint, self.on_progress = checkpoint, on_progress
        self.loss: Callable[..., Losses] = torch.compile(loss, dynamic=True) if config.compile else loss
        self.course = Course()

    def run(self) -> Course:
        """Go on from the checkpoint, if there is one, to the end."""
        config = self.config
        with torch.random.fork_rng(devices=[]), _threads(config.threads):
            self._begin()
            course = self.course
            while course.epoch < config.epochs and course.stale < config.patience:
                self._epoch()
                self._judge()
                course.epoch, course.step = course.epoch + 1, 0
                self._keep()
        self._end()
        return course

    def _begin(self) -> None:
        config = self.config
        self.processes = Processes(config.device)
        self.network.to(config.device)
        lazy = self.lazy if self.processes.world == 1 and not config.compile else None
        self.optimiser = Optimiser(
            self.network,
            config.learning_rate,
            config.warmup,
            config.weight_decay,
            config.clip,
            config.average,
            lazy,
        )
        self.best: Mapping[str, Tensor] = {}
        self._restore()
        self.kept_at = time.monotonic()

    def _end(self) -> None:
        self.network.load_state_dict(self.best or self.optimiser.averaged())
        self.network.eval()
        self.network.to("cpu")

    def _epoch(self) -> None:
        seed = np.random.SeedSequence((self.config.seed, self.course.epoch))
        batches = self.batches(np.random.default_rng(seed))
        steps = -(-len(batches) // self.processes.world)
        self.network.train()
        while self.course.step < steps:
            losses = self._step(batches, steps)
            self.course.step += 1
            self._report(steps, losses)
            if time.monotonic() - self.kept_at >= 60 * self.config.checkpoint_minutes and self.course.step < steps:
                self._keep()

    def _step(self, batches: Batches, steps: int) -> dict[str, float]:
        course, processes = self.course, self.processes
        number = course.step * processes.world + processes.rank
        place = (self.config.seed, course.epoch, number)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
        self.optimiser.clear()
        losses: dict[str, float] = {}
        size = 0
        if number < len(batches):
            batch = batches[number]
            size = self.size(batch)
            losses = self._backward(batch)
        processes.mean_gradients(self.optimiser.parameters, size)
        norm = self.optimiser.step()
        if not math.isfinite(norm):
            self._diverged(steps, losses, norm)
        course.steps = self.optimiser.steps
        return losses

    def _backward(self, batch: Batch) -> dict[str, float]:
        config = self.config
        moved = [part.to(config.device) for part in batch]
        with torch.autocast(torch.device(config.device).type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            found = self.loss(*moved)
        named = {"loss": found} if isinstance(found, Tensor) else found
        total = sum((config.task_weights.get(name, 1.0) * loss for name, loss in named.items()), torch.zeros(()))
        total.backward()  # type: ignore[no-untyped-call]
        said = {name: float(loss.detach()) for name, loss in named.items()}
        return said if "loss" in said else {"loss": float(total.detach()), **said}

    def _diverged(self, steps: int, losses: dict[str, float], norm: float) -> None:
        course = self.course
        self._end()
        raise PalateError(
            "The training diverged: the gradient is not finite",
            where=f"{self.name}, epoch {course.epoch + 1}, batch {course.step + 1} of {steps}",
            got=", ".join(f"{name} {value}" for name, value in {**losses, "norm of the gradient": norm}.items()),
            hint="lower learning_rate or clip, look for extreme values in the input; a checkpoint is the last good one",
        )

    def _report(self, steps: int, losses: dict[str, float]) -> None:
        if self.on_progress is None or self.processes.rank > 0:
            return
        figures = {"epoch": float(self.course.epoch + 1), **losses}
        if self.course.curve:
            figures["validation"] = self.course.curve[-1]
        total = self.config.epochs * steps
        self.on_progress(self.name, self.course.epoch * steps + self.course.step, total, figures)

    def _judge(self) -> None:
        course = self.course
        if self.validate is None:
            course.curve.append(float(course.epoch))
            return
        self.network.eval()
        latest = copied(self.network)
        self.network.load_state_dict(self.optimiser.averaged())
        figure = self.processes.first(self.validate())
        course.curve.append(figure)
        if figure > course.best:
            course.best, course.stale, self.best = figure, 0, copied(self.network)
        else:
            course.stale += 1
        self.network.load_state_dict(latest)

    def _keep(self) -> None:
        self.kept_at = time.monotonic()
        if self.checkpoint is None or self.processes.rank > 0:
            return
        parts = {"network": self.network.state_dict(), "best": self.best, **self.optimiser.parts()}
        arrays = {f"{part}/{name}": t.cpu().numpy() for part, tensors in parts.items() for name, t in tensors.items()}
        self.checkpoint.save(State(arrays, {"key": self.key, **vars(self.course)}))

    def _restore(self) -> None:
        state = None if self.checkpoint is None else self.checkpoint.load()
        if state is not None and state.facts.get("key") == self.key:
            self._take_up(state)
        if self.processes.first(self.course.steps) != self.course.steps:
            raise PalateError("The processes do not see the same checkpoint", hint="keep it where all can read it")

    def _take_up(self, state: State) -> None:
        load_weights(self.network, tensors_of(state, "network/"), "checkpoint")
        self.best = tensors_of(state, "best/")
        self.course = Course(**{name: value for name, value in state.facts.items() if name != "key"})
        self.optimiser.take_up(state, self.course.steps)


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    """Sets torch's threads for a while."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads or before)
        yield
    finally:
        torch.set_num_threads(before)
