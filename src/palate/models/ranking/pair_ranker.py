"""`PairRanker`: orders the candidates of a slate by a ranking backbone over `pairs`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from palate.data.dataset import FloatArray
from palate.errors import InputError, PalateError
from palate.models.onnx_file import write_onnx
from palate.models.parts import configured
from palate.models.ranking.pairs import Pairs
from palate.models.ranking.registry import backbone
from palate.models.trainer import Trainer, TrainerConfig


class PairRankerConfig(TrainerConfig):
    """How a ranker of candidates is trained."""

    backbone: Literal["deepfm", "dcn", "dcnv2", "autoint"] = Field(
        default="deepfm", description="a backbone that reads fields alone"
    )
    width: int = Field(default=16, ge=1, description="of a field")
    epochs: int = Field(default=15, ge=1, description="most passes over the training rows")
    learning_rate: float = Field(default=2e-3, gt=0, description="of AdamW")
    weight_decay: float = Field(default=0.1, ge=0, description="of AdamW, on matrices")
    warmup: int = Field(default=20, ge=0, description="steps in which the learning rate rises from 0")
    average: float = Field(default=0.98, ge=0, lt=1, description="share of the past in the average of weights")
    batch: int = Field(default=64, ge=1, description="chosen items of a step, each with those beside it")


class PairNetwork(nn.Module):
    """Query, item, what the history is drawn to, the item's labels and the numbers: a field each, then a backbone.

    Vectors are divided by their root mean square and numbers standardised, as the training rows have them.
    """

    def __init__(self, rows: Pairs, config: PairRankerConfig) -> None:
        super().__init__()
        self.widths = {name: array.shape[1] for name, array in rows.arrays().items()}
        given = {name: array for name, array in rows.arrays().items() if array.shape[1]}
        self.parts = nn.ModuleDict(
            {f"of_{name}": nn.Linear(array.shape[1], config.width) for name, array in given.items()}
        )
        for name, array in given.items():
            centre = array.mean(axis=0) if name == "numbers" else np.zeros(array.shape[1])
            spread = array.std(axis=0) if name == "numbers" else np.sqrt((array**2).mean())
            self.register_buffer(f"{name}_centre", torch.from_numpy(np.asarray(centre, np.float32)))
            safe = np.where(spread > 1e-6, spread, 1)
            self.register_buffer(f"{name}_scale", torch.from_numpy(np.asarray(1 / safe, np.float32)))
        factory = backbone(config.backbone)
        self.backbone = factory(len(given), config.width, configured(factory, {"hidden": (64, 32)}))

    def forward(self, query: Tensor, items: Tensor, drawn: Tensor, labels: Tensor, numbers: Tensor) -> Tensor:
        given = {"query": query, "items": items, "drawn": drawn, "labels": labels, "numbers": numbers}
        fields = [
            self.parts[f"of_{name}"]((x - getattr(self, f"{name}_centre")) * getattr(self, f"{name}_scale"))
            for name, x in given.items()
            if self.widths[name]
        ]
        nothing = query[:, :0]
        logits: Tensor = self.backbone(torch.stack(fields, 1), nothing, nothing, nothing)
        return logits


class _Served(nn.Module):
    """A trained network in fewer steps, for a file: its scales are in the weights of the fields.

    Centres are not: a number that hardly varies has a small difference from its centre, and a great weight.
    """

    centre: Tensor

    def __init__(self, network: PairNetwork, width: int) -> None:
        super().__init__()
        self.backbone, self.width = network.backbone, width
        names = [name for name, size in network.widths.items() if size]
        self.parts = nn.ModuleDict({f"of_{name}": _scaled(network, name) for name in names})
        self.register_buffer("centre", network.get_buffer("numbers_centre"))

    def forward(self, query: Tensor, items: Tensor, drawn: Tensor, labels: Tensor, numbers: Tensor) -> Tensor:
        given = {"query": query, "items": items, "drawn": drawn, "labels": labels, "numbers": numbers - self.centre}
        fields = torch.cat([part(given[name.removeprefix("of_")]) for name, part in self.parts.items()], 1)
        nothing = query[:, :0]
        logits: Tensor = self.backbone(fields.view(-1, len(self.parts), self.width), nothing, nothing, nothing)
        return logits


def _scaled(network: PairNetwork, name: str) -> nn.Linear:
    """A field's map, of what is not scaled yet."""
    part = network.parts[f"of_{name}"]
    assert isinstance(part, nn.Linear)
    scaled = nn.Linear(part.in_features, part.out_features)
    with torch.no_grad():
        scaled.weight.copy_(part.weight * network.get_buffer(f"{name}_scale"))
        scaled.bias.copy_(part.bias)
    return scaled


class PairRanker:
    """Learns which of several items was chosen: softmax cross-entropy over each group of one chosen and others.

    Args:
        attributes: Names of the labels, in order.
        base: [A], their means over the catalogue.
    """

    def __init__(self, attributes: Sequence[str], base: FloatArray, config: PairRankerConfig | None = None) -> None:
        self.attributes, self.base, self.config = list(attributes), base, config or PairRankerConfig()
        self.curve: list[float] = []
        self._network: PairNetwork | None = None

    def fit(self, rows: Pairs, group: int, validation: Pairs | None = None) -> PairRanker:
        """Each `group` rows on end are one chosen item, the first, and others. `validation` likewise: its mean rank of
        the chosen item decides which epoch is kept.

        Raises:
            InputError: There are no rows, or not whole groups.
        """
        if not len(rows.numbers) or len(rows.numbers) % group or group < 2:
            raise InputError("There are no whole groups to learn from", got=len(rows.numbers), allowed=f"times {group}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            network = self._network = PairNetwork(rows, self.config)
        tensors = _tensors(rows)

        def loss(chosen: Tensor) -> Tensor:
            places = (chosen[:, None] * group + torch.arange(group)).flatten()
            logits = network(*(tensor[places] for tensor in tensors)).view(-1, group)
            return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64))

        n = len(rows.numbers) // group
        judged = None if validation is None else lambda: -self._mean_rank(validation, group)
        trainer = Trainer(
            "ranker", network, lambda rng: _Groups(rng.permutation(n), self.config.batch), loss, judged, self.config
        )
        self.curve = trainer.run().curve
        return self

    def score(self, rows: Pairs) -> FloatArray:
        """[m], the higher the better."""
        network = self._fitted()
        with torch.inference_mode():
            scores: FloatArray = network(*_tensors(rows)).numpy()
        return scores

    def export_onnx(self, path: str | Path) -> None:
        """Write it for `pairs.OnnxRanker`."""
        network = self._fitted()
        inputs = {name: torch.zeros(2, width) for name, width in network.widths.items()}
        axes = {name: {0: "m"} for name in (*inputs, "scores")}
        facts = {"base": json.dumps(self.base.tolist()), "attributes": json.dumps(self.attributes)}
        write_onnx(_Served(network, self.config.width).eval(), inputs, "scores", axes, facts, Path(path))

    def _mean_rank(self, rows: Pairs, group: int) -> float:
        scores = self.score(rows).reshape(-1, group)
        return float((scores[:, 1:] >= scores[:, :1]).sum(axis=1).mean())

    def _fitted(self) -> PairNetwork:
        if self._network is None:
            raise PalateError("The model has not been fitted", where="PairRanker", hint="call fit first")
        return self._network.eval()


class _Groups:
    """The groups of an epoch in an order of its own."""

    def __init__(self, order: npt.NDArray[np.int64], size: int) -> None:
        self.order, self.size = torch.from_numpy(order), size

    def __len__(self) -> int:
        return (len(self.order) + self.size - 1) // self.size

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        return (self.order[number * self.size : (number + 1) * self.size],)


def _tensors(rows: Pairs) -> list[Tensor]:
    return [torch.tensor(array) for array in rows.arrays().values()]
