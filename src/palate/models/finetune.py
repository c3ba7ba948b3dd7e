"""A local language model taught by examples: LoRA (Hu et al. 2021, arXiv 2106.09685), loss on the completion alone.

What is kept are the weights of the best judged step, as a folder in peft's format that `TorchEngine(adapter=...)`
reads. A run that was killed goes on from its last judged step and ends with the very weights of one that was not.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from palate.errors import InputError
from palate.llm.adapters import adapter_hash, with_adapter, write_adapter
from palate.llm.engines.torch_lm import TorchEngine
from palate.llm.request import Request
from palate.models.checkpoint import FileCheckpoint, State

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[str, int, int, dict[str, float]], None]  # as of `palate.models.trainer`
Measure = Callable[[TorchEngine], dict[str, float]]  # further figures of the model as it stands
Tokens = list[int]
_BUCKET = 16  # batches of examples that are sorted by length together


class FinetuneConfig(BaseModel):
    """How a language model is tuned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(default=8, ge=1, description="of the added matrices, on every linear layer of a block")
    alpha: int = Field(default=16, gt=0, description="scale: what is added counts alpha / rank times")
    learning_rate: float = Field(default=5e-4, gt=0, description="of AdamW, falling to 0 along a cosine")
    warmup: int = Field(default=10, ge=0, description="steps in which the learning rate rises from 0")
    clip: float = Field(default=1.0, gt=0, description="greatest norm of the gradient of a step")
    batch: int = Field(default=8, ge=1, description="examples of a step, of about equal length")
    epochs: int = Field(default=2, ge=1, description="most passes over the examples")
    max_tokens: int = Field(default=160, ge=8, description="longer examples are left out and counted")
    judge_every: int = Field(default=20, ge=1, description="steps between two looks at the validation examples")
    patience: int = Field(default=3, ge=1, description="looks that are no better before it stops")
    minutes: float | None = Field(
        default=None, gt=0, description="most time in all, killed runs included, `measure` left out"
    )
    mixed: bool | None = Field(default=None, description="multiply in bfloat16; None: where the processor knows it")
    by: str = Field(default="loss", description="what the best look is chosen by: the least loss, or most of a figure")
    seed: int = Field(default=0, description="of the initial weights and the order of the examples")


@dataclass(frozen=True)
class Example:
    """A request and the answer it should get."""

    request: Request
    answer: str


@dataclass(frozen=True)
class Look:
    """Validation at a step: mean loss of a token, share of tokens that greedy decoding gets right, share of answers.

    `exact` is the share of answers whose every token is the likeliest after the right ones before it: those that
    greedy decoding gives word for word.
    """

    step: int
    loss: float
    tokens: float
    exact: float
    training: float  # mean training loss since the last look
    figures: dict[str, float] = field(default_factory=dict)  # of `measure`


@dataclass(frozen=True)
class Tuned:
    """What a run came to. `folder` holds the adapter of step `best`; `stopped` says why it ended."""

    folder: Path
    name: str
    best: int
    looks: tuple[Look, ...]
    examples: int
    too_long: int
    seconds: float
    stopped: str


@dataclass
class _Course:
    step: int = 0
    best: int = 0
    stale: int = 0
    seconds: float = 0.0
    stopped: str = ""
    looks: list[Look] = field(default_factory=list)


def finetune(
    engine: TorchEngine,
    train: Sequence[Example],
    validation: Sequence[Example],
    folder: Path,
    config: FinetuneConfig | None = None,
    on_progress: Progress | None = None,
    measure: Measure | None = None,
) -> Tuned:
    """Tune the model of `engine` (which is closed afterwards) and leave the adapter in `folder/adapter`.

    Step 0 is judged too: where nothing is better than the untuned model, the adapter changes nothing.

    Args:
        measure: Called at each look with the engine, whose network is the model as it stands: what it finds is kept
            with the look, and `config.by` may name a figure of it. Equal figures are told apart by the loss.

    Raises:
        InputError: No example is short enough, or there is none to validate on; `measure` finds no figure `config.by`.
        StorageError: The training state or the adapter cannot be written.
        EngineError: peft or transformers is missing.
    """
    config = config or FinetuneConfig()
    sides = [_encoded(engine, side, config.max_tokens) for side in (train, validation)]
    for what, side, given in zip(("train", "validation"), sides, (train, validation), strict=True):
        if not side:
            raise InputError(
                f"There is no {what} example to tune with.",
                got=f"{len(given)} examples, none of at most {config.max_tokens} tokens",
                hint="Raise max_tokens, shorten the prompts, or give more examples.",
            )
    try:
        course = _Run(engine, sides[0], sides[1], folder, config, on_progress, measure).run()
    finally:
        engine.close()
    left_out = len(train) - len(sides[0])
    name = f"{engine.path.stem}+{adapter_hash(folder / 'adapter')}"
    return Tuned(
        folder / "adapter",
        name,
        course.best,
        tuple(course.looks),
        len(sides[0]),
        left_out,
        course.seconds,
        course.stopped,
    )


def _encoded(engine: TorchEngine, examples: Sequence[Example], longest: int) -> list[tuple[Tokens, Tokens]]:
    pairs = [(engine.prompt_tokens(example.request), engine.answer_tokens(example.answer)) for example in examples]
    return [(prompt, answer) for prompt, answer in pairs if len(prompt) + len(answer) <= longest]


class _Run:
    """One training run; its state lies in `folder/training.safetensors`."""

    def __init__(
        self,
        engine: TorchEngine,
        train: list[tuple[Tokens, Tokens]],
        validation: list[tuple[Tokens, Tokens]],
        folder: Path,
        config: FinetuneConfig,
        on_progress: Progress | None,
        measure: Measure | None,
    ) -> None:
        self.engine, self.train, self.validation = engine, train, validation
        self.folder, self.config, self.on_progress, self.measure = folder, config, on_progress, measure
        self.checkpoint = FileCheckpoint(folder / "training.safetensors")
        facts = [engine.model, config.model_dump(exclude={"minutes"}), train, validation]
        self.key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        self.mixed = config.mixed
        self.course = _Course()
        self.losses: list[float] = []

    def run(self) -> _Course:
        import torch

        torch.manual_seed(self.config.seed)
        self.network = with_adapter(self.engine.network, self.config.rank, self.config.alpha)
        if self.mixed is None:
            self.mixed = _knows_bfloat16(self.network.device.type)
        self.weights = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        self.best = _copy(self.weights)
        self.optimizer = torch.optim.AdamW(self.weights.values(), lr=self.config.learning_rate, weight_decay=0.0)
        self._restore()
        if not self.course.looks:
            self._look()
        while not self.course.stopped:
            self._train_until_look()
            self._look()
        self._keep()
        return self.course

    @property
    def total(self) -> int:
        """Steps of all epochs."""
        return self.config.epochs * -(-len(self.train) // self.config.batch)

    def _train_until_look(self) -> None:
        import torch

        self.network.train()
        begun, already = time.perf_counter(), self.course.seconds
        for batch in self._batches():
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * self._rate()
            self.optimizer.zero_grad(set_to_none=True)
            loss = self._forward(batch)[0]
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.weights.values(), self.config.clip)
            self.optimizer.step()
            self.course.step += 1
            self.losses.append(float(loss.detach()))
            self.course.seconds = already + time.perf_counter() - begun
            self._report()
            if self._out_of_time():
                return

    def _batches(self) -> list[list[tuple[Tokens, Tokens]]]:
        """From the step reached up to the next look, at most to the end of the epoch."""
        per_epoch = self.total // self.config.epochs
        epoch, done = divmod(self.course.step, per_epoch)
        order = np.random.default_rng((self.config.seed, epoch)).permutation(len(self.train)).tolist()
        size, wide = self.config.batch, self.config.batch * _BUCKET
        batches = []
        for start in range(0, len(order), wide):
            alike = sorted(order[start : start + wide], key=lambda i: len(self.train[i][0]) + len(self.train[i][1]))
            batches += [alike[at : at + size] for at in range(0, len(alike), size)]
        np.random.default_rng((self.config.seed, epoch, 1)).shuffle(batches)
        stop = done + self.config.judge_every - self.course.step % self.config.judge_every
        return [[self.train[i] for i in batch] for batch in batches[done:stop]]

    def _rate(self) -> float:
        rise = min(1.0, (self.course.step + 1) / self.config.warmup) if self.config.warmup else 1.0
        return rise * 0.5 * (1 + float(np.cos(np.pi * self.course.step / self.total)))

    def _forward(self, batch: Sequence[tuple[Tokens, Tokens]]) -> tuple[Tensor, Tensor, Tensor]:
        """Mean loss of the answers' tokens; of each whether it is the likeliest, [n, longest]; and which are there."""
        import torch

        ids, mask = self.engine.padded([prompt + answer for prompt, answer in batch])
        longest = max(len(answer) for _, answer in batch)
        lengths = torch.tensor([len(answer) for _, answer in batch], device=ids.device)
        there = torch.arange(longest, device=ids.device)[None, :] >= (longest - lengths)[:, None]
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=bool(self.mixed)):
            logits = self.network(ids, attention_mask=mask, logits_to_keep=longest + 1).logits[:, :-1]
        wanted = ids[:, -longest:]
        loss = torch.nn.functional.cross_entropy(logits[there].float(), wanted[there])
        return loss, logits.argmax(-1) == wanted, there

    def _look(self) -> None:
        import torch

        begun = time.perf_counter()
        self.network.eval()
        order = sorted(self.validation, key=lambda pair: len(pair[0]) + len(pair[1]))
        loss = tokens = right = exact = 0.0
        for start in range(0, len(order), self.config.batch):
            with torch.inference_mode():
                mean, hits, there = self._forward(order[start : start + self.config.batch])
            n = int(there.sum())
            loss, tokens, right = loss + float(mean) * n, tokens + n, right + float((hits & there).sum())
            exact += float((hits | ~there).all(1).sum())
        course, training = self.course, float(np.mean(self.losses)) if self.losses else float("nan")
        course.seconds += time.perf_counter() - begun
        look = Look(course.step, loss / tokens, right / tokens, exact / len(order), training, self._figures())
        better = not course.looks or self._worth(look) > max(self._worth(before) for before in course.looks)
        course.stale = 0 if better else course.stale + 1
        if better:
            course.best, self.best = course.step, _copy(self.weights)
        course.looks.append(look)
        self.losses = []
        self._judge_end()
        self.checkpoint.save(self._state())

    def _figures(self) -> dict[str, float]:
        import torch

        if self.measure is None:
            return {}
        with torch.autocast(self.network.device.type, torch.bfloat16, enabled=bool(self.mixed)):
            return self.measure(self.engine)

    def _worth(self, look: Look) -> tuple[float, float]:
        """Larger is better."""
        by = self.config.by
        if by != "loss" and by not in look.figures:
            found = ["loss", *look.figures]
            raise InputError("There is no such figure to choose by.", where="FinetuneConfig.by", got=by, allowed=found)
        return (0.0 if by == "loss" else look.figures[by], -look.loss)

    def _judge_end(self) -> None:
        course = self.course
        if course.stale >= self.config.patience:
            what = "no lower validation loss" if self.config.by == "loss" else f"no more {self.config.by}"
            course.stopped = f"{what} in {course.stale} looks"
        elif course.step >= self.total:
            course.stopped = "all epochs done"
        elif self._out_of_time():
            course.stopped = f"{self.config.minutes:g} minutes are up"

    def _out_of_time(self) -> bool:
        return self.config.minutes is not None and self.course.seconds >= 60 * self.config.minutes

    def _report(self) -> None:
        if self.on_progress is not None:
            figures = {"loss": self.losses[-1], "validation": self.course.looks[-1].loss}
            self.on_progress("finetune", self.course.step, self.total, figures)

    def _state(self) -> State:
        arrays = {f"weights/{name}": t.numpy() for name, t in _copy(self.weights).items()}
        arrays |= {f"best/{name}": t.numpy() for name, t in self.best.items()}
        for number, slots in self.optimizer.state_dict()["state"].items():
            arrays |= {f"adam/{number}/{name}": t.cpu().numpy() for name, t in slots.items()}
        return State(arrays, {"key": self.key, "course": asdict(self.course)})

    def _restore(self) -> None:
        import torch

        state = self.checkpoint.load()
        if state is None or state.facts.get("key") != self.key:
            return
        slots: dict[int, dict[str, Tensor]] = {}
        for name, array in state.arrays.items():
            what, _, rest = name.partition("/")
            tensor = torch.from_numpy(array)
            if what == "weights":
                self.weights[rest].data.copy_(tensor)
            elif what == "best":
                self.best[rest] = tensor
            else:
                number, _, slot = rest.partition("/")
                slots.setdefault(int(number), {})[slot] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})
        looks = [Look(**look) for look in state.facts["course"].pop("looks")]
        self.course = _Course(**state.facts["course"], looks=looks)
        if self.course.stopped.endswith("minutes are up"):
            self.course.stopped = ""  # more time may have been given
            self._judge_end()

    def _keep(self) -> None:
        for name, weight in self.weights.items():
            weight.data.copy_(self.best[name])
        write_adapter(self.network, self.folder / "adapter")


def _knows_bfloat16(device: str) -> bool:
    """In hardware: elsewhere it is slower than single precision."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # an AMX processor has it too
    return device == "cpu" and asked is not None and bool(asked())


def _copy(weights: dict[str, Any]) -> dict[str, Tensor]:
    return {name: weight.detach().cpu().clone() for name, weight in weights.items()}
