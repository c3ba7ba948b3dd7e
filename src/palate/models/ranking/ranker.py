"""`Ranker`: features, a backbone and, where there is knowledge, an adapter, trained together on binary labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from palate.data.dataset import FloatArray, IntArray
from palate.data.samples import Places, Samples
from palate.errors import InputError, PalateError
from palate.evaluation.calibration import Method, calibrate
from palate.evaluation.rating import auc, log_loss
from palate.models.checkpoint import Checkpoint
from palate.models.parts import configured
from palate.models.ranking.blocks import Factory, auxiliary_of
from palate.models.ranking.encoder import Batch, Encoded, Encoder
from palate.models.ranking.features import Features
from palate.models.ranking.registry import backbone
from palate.models.trainer import Progress, Trainer, TrainerConfig

_ROWS = 4096  # predicted at a time
MakeAdapter = Callable[[int, int, int], nn.Module]


class RankerConfig(TrainerConfig):
    """How a ranking model is trained; what the backbone is like stands in its own configuration."""

    epochs: int = Field(default=10, ge=1, description="most passes over the training rows")
    patience: int = Field(default=2, ge=1, description="epochs without a better validation figure before it stops")
    learning_rate: float = Field(default=3e-3, gt=0, description="of AdamW")
    weight_decay: float = Field(default=0.1, ge=0, description="of AdamW, on matrices, embeddings among them")
    width: int = Field(default=32, ge=1, description="of embeddings (KAR: 32)")
    batch: int = Field(default=512, ge=1, description="rows of a step")
    stop_on: Literal["auc", "log_loss"] = Field(default="auc", description="the validation figure")
    calibration: Method = Field(default="none", description="of the probabilities, fitted on validation")
    hide: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of training rows in which the outside vector of the user, and apart from it of the item, is "
        "hidden: a vector that only one user has is learned by heart otherwise",
    )


@dataclass(frozen=True)
class SideVectors:
    """What is known of users and items from outside, frozen: [v, du] and [v, di]. Row -1 is nothing: zeros."""

    users: FloatArray
    items: FloatArray

    def rows(self, samples: Samples) -> tuple[IntArray, IntArray]:
        """The row of each sample's user and item; as-of knowledge overrides it."""
        return samples.users, samples.items


class RankingNetwork(nn.Module):
    """Encoder, adapter and backbone: a batch to logits [b], or [b, tasks]."""

    def __init__(
        self,
        features: Features,
        width: int,
        make: Callable[[int], nn.Module],
        vectors: SideVectors | None = None,
        adapter: MakeAdapter | None = None,
        hide: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(features, width)
        self.side = None if vectors is None or adapter is None else _Side(vectors, adapter, width, hide)
        n_fields = self.encoder.n_fields + (0 if self.side is None else self.side.n_fields)
        self.backbone = make(n_fields)

    def forward(self, batch: Batch) -> Tensor:
        encoded = self.encoder(batch)
        if self.side is not None:
            encoded = encoded._replace(fields=torch.cat([encoded.fields, self.side(batch, encoded)], 1))
        return self.backbone(*encoded)  # type: ignore[no-any-return]

    def auxiliary(self) -> Tensor | float:
        """What adapter and backbone add to the loss of the last forward pass."""
        return auxiliary_of([self.backbone] if self.side is None else [self.backbone, self.side.adapter])


class _Side(nn.Module):
    """The knowledge of each row through the adapter: k more fields."""

    def __init__(self, vectors: SideVectors, make: MakeAdapter, width: int, hide: float) -> None:
        super().__init__()
        self.hide = hide
        for name in ("users", "items"):
            table = np.asarray(getattr(vectors, name), dtype=np.float32)
            if not np.isfinite(table).all():
                bad = int((~np.isfinite(table)).any(axis=1).sum())
                hint = "a row of zeros, or row -1, says that nothing is known"
                raise InputError(f"Vectors of {name} hold NaN or infinity", got=f"{bad} of {len(table)}", hint=hint)
            nothing = np.zeros((1, table.shape[1]), np.float32)  # row -1
            self.register_buffer(name, torch.from_numpy(np.concatenate([table, nothing])), persistent=False)
        self.adapter: nn.Module = make(vectors.users.shape[1], vectors.items.shape[1], width)
        with torch.no_grad():
            self.n_fields = int(self.adapter(self._of("users")[:2], self._of("items")[:2]).shape[1])

    def forward(self, batch: Batch, encoded: Encoded) -> Tensor:
        users, items = (
            self._of(name)[self._shown(rows)] for name, rows in (("users", batch.user_rows), ("items", batch.item_rows))
        )
        fields: Tensor = self.adapter(users, items)
        if self.training and hasattr(self.adapter, "beside"):
            met = encoded.mask.sum(1).clamp(min=1)[:, None]
            self.adapter.beside(encoded.history.sum(1) / met, encoded.target)  # type: ignore[operator]
        return fields

    def _shown(self, rows: Tensor) -> Tensor:
        if not self.training or not self.hide:
            return rows
        return torch.where(torch.rand(rows.shape, device=rows.device) < self.hide, -1, rows)

    def _of(self, name: str) -> Tensor:
        table: Tensor = getattr(self, name)
        return table


class Ranker:
    """Predicts the probability of each sample's label.

    Args:
        backbone: A name of the registry, or a class with `Config` made as `Backbone(n_fields, width, config)`.
        params: Of the backbone's configuration.
        adapter: Makes a module from the widths of the user's and the item's vectors and of embeddings; it maps both
            [b, du], [b, di] to k more fields [b, k, d].
        vectors: What the adapter reads.
        checkpoint, on_progress: As `Trainer` takes them.
    """

    def __init__(
        self,
        backbone: str | Factory = "deepfm",
        config: RankerConfig | None = None,
        *,
        params: dict[str, Any] | None = None,
        adapter: MakeAdapter | None = None,
        vectors: SideVectors | None = None,
        checkpoint: Checkpoint | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        self.config = config or RankerConfig()
        self.factory = _factory(backbone)
        self.name = backbone if isinstance(backbone, str) else getattr(backbone, "__name__", "backbone")
        self.params = params or {}
        self.adapter, self.vectors = adapter, vectors
        self.checkpoint, self.on_progress = checkpoint, on_progress
        self.curve: list[float] = []
        self._network: RankingNetwork | None = None
        self._features: Features | None = None
        self._tasks = 0
        self._maps: list[Callable[[FloatArray], Any]] = []

    def fit(self, features: Features, train: Samples, validation: Samples | None = None) -> Self:
        """Train on `train`; the epoch with the best figure over `validation` is kept."""
        if not len(train):
            raise InputError("There are no training rows to learn from", where=self.name)
        config, self._features, self._tasks = self.config, features, train.labels.shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = self._network = self._made(features)

        def loss(*tensors: Tensor) -> Tensor:
            logits = network(Batch(*tensors[:-1]))
            return (
                F.binary_cross_entropy_with_logits(logits.reshape(tensors[-1].shape), tensors[-1]) + network.auxiliary()
            )

        held = validation if validation is not None and len(validation) else None
        trainer = Trainer(
            self.name,
            network,
            lambda rng: _Shuffled(
                rng.permutation(len(train)), config.batch, lambda rows: self._example(train.take(rows))
            ),
            loss,
            None if held is None else lambda: self._judged(held),
            config,
            self._key(train, held),
            checkpoint=self.checkpoint,
            on_progress=self.on_progress,
        )
        self._maps = []
        self.curve = trainer.run().curve
        if held is not None and config.calibration != "none":
            self._calibrate(held)
        return self

    def predict(self, samples: Samples) -> FloatArray:
        """Probabilities [n], or [n, tasks] where there are several."""
        raw = self._raw(samples)
        columns = [f(raw[:, k]) for k, f in enumerate(self._maps)] if self._maps else list(raw.T)
        result = np.stack([*columns], axis=1).astype(np.float32)
        return result[:, 0] if result.shape[1] == 1 else result

    def _made(self, features: Features) -> RankingNetwork:
        config = configured(self.factory, {"outputs": self._tasks, **self.params})
        width = self.config.width
        if hasattr(self.factory, "widened"):
            width = self.factory.widened(width, config)
        make = lambda n: self.factory(n, width, config)  # noqa: E731
        return RankingNetwork(features, width, make, self.vectors, self.adapter, self.config.hide)

    def _tensors(self, samples: Samples) -> Batch:
        if self._features is None:
            raise PalateError("The model has not been fitted", where=self.name, hint="call fit first")
        rows = self._features(samples)
        users, items = samples.users, samples.items
        if self.vectors is not None:
            users, items = self.vectors.rows(samples)
        arrays = (rows.items, rows.users, rows.numbers, rows.history, rows.levels, users, items)
        return Batch(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))

    def _key(self, train: Samples, held: Samples | None) -> str:
        """Of what is learned from what: a training goes on only from a state of its own."""
        digest = hashlib.sha256(json.dumps([self.name, self.params, self.config.learned()], default=str).encode())
        for samples in (train, train.take(np.arange(0)) if held is None else held):
            for array in vars(samples).values():
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def _example(self, samples: Samples) -> tuple[Tensor, ...]:
        return (*self._tensors(samples), torch.from_numpy(samples.labels))

    def _raw(self, samples: Samples) -> FloatArray:
        parts = []
        for start in range(0, max(len(samples), 1), _ROWS):
            batch = self._tensors(samples.take(np.arange(start, min(start + _ROWS, len(samples)))))
            assert self._network is not None
            where = next(self._network.parameters()).device
            with torch.inference_mode():
                logits = self._network(Batch(*(tensor.to(where) for tensor in batch)))
            parts.append(torch.sigmoid(logits).reshape(len(batch.items), self._tasks).cpu().numpy())
        return np.concatenate(parts)

    def _judged(self, held: Samples) -> float:
        """The mean over tasks; the AUC of a task with labels of one kind alone is not known, and log loss stands in."""
        figures = []
        for y, p in zip(held.labels.T, self._raw(held).T, strict=True):
            ranked = self.config.stop_on == "auc" and 0 < y.mean() < 1
            figures.append(auc(y, p) if ranked else -log_loss(y, p))
        return float(np.mean(figures))

    def _calibrate(self, held: Samples) -> None:
        raw = self._raw(held)
        self._maps = [calibrate(raw[:, k], held.labels[:, k], self.config.calibration)[0] for k in range(raw.shape[1])]


class _Shuffled:
    """The rows of an epoch in an order of its own, each batch encoded when it is asked for."""

    def __init__(self, order: Places, size: int, encode: Callable[[Places], tuple[Tensor, ...]]) -> None:
        self.order, self.size, self.encode = order, size, encode

    def __len__(self) -> int:
        return (len(self.order) + self.size - 1) // self.size

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        return self.encode(self.order[number * self.size : (number + 1) * self.size])


def _factory(given: str | Factory) -> Factory:
    return backbone(given) if isinstance(given, str) else given
