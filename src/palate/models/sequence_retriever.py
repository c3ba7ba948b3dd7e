"""What all sequence models share: items in, windows, loss, judging, encoding, keeping. A model adds its network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from palate.data.dataset import Dataset, FloatArray, IntArray
from palate.data.event_log import EventLog
from palate.data.query import Query
from palate.data.splits import Holdout
from palate.errors import InputError, PalateError
from palate.knowledge.tables import Knowledge
from palate.models.checkpoint import Checkpoint, State
from palate.models.item_side import ItemSide, ItemTable, ItemVectors, Sides, side_maker
from palate.models.judging import mean_ndcg, thinned
from palate.models.novelty import novel_events
from palate.models.onnx_file import write_onnx
from palate.models.search_space import Between, SearchSpace
from palate.models.sequence_encoder import BATCH, times_of, tokens_of
from palate.models.softmax import CatalogueLoss, LossConfig
from palate.models.trainer import Progress, Trainer
from palate.models.weights import load_weights, tensors_of
from palate.models.windows import IGNORED, Flags, Windows

Counts = npt.NDArray[np.int64]
Loss = Callable[..., Tensor]
CELLS = 2_000_000  # of one attention of queries encoded together: bounds the memory


class SequenceConfig(LossConfig):
    """What every sequence model is told; how it is trained stands in `LossConfig` and `TrainerConfig`."""

    search: ClassVar[SearchSpace] = {
        "dimensions": (32, 64, 128),
        "length": (20, 50, 100, 200),
        "dropout": Between(0.1, 0.6),
        "learning_rate": Between(3e-4, 3e-3, log=True),
        "label_smoothing": (0.0, 0.1, 0.2),
    }

    epochs: int = Field(default=60, ge=1, description="most passes over the training events")
    patience: int = Field(default=5, ge=1, description="epochs without a better validation figure before it stops")
    dimensions: int = Field(default=64, ge=2, description="of item vectors and hidden states")
    length: int = Field(default=50, ge=2, description="newest events of a history that are read (SASRec: 50-200)")
    dropout: float = Field(default=0.3, ge=0, lt=1, description="of inputs and hidden states (SASRec: 0.2-0.5)")
    sides: Sides = Field(default="id", description="an item goes by a learned row, by known vectors, or by both")
    temperature: float | None = Field(
        default=0.1, gt=0, description="scores are cosines over it (HSTU: 0.05); None: inner products"
    )
    novel_by: str | None = Field(
        default=None, description="column of items; only events that bring a person a new value of it are predicted"
    )
    batch_targets: int = Field(default=512, ge=1, description="events predicted in one step, roughly")
    validation_queries: int = Field(default=2000, ge=1, description="most queries that judge an epoch, evenly picked")


class SequenceNetwork(nn.Module):
    """Base of the networks: `items` first, `hidden` by the subclass."""

    unit = False  # whether states and item vectors are of unit length

    def __init__(self, items: nn.Module) -> None:
        super().__init__()
        self.items: Any = items

    def hidden(self, tokens: Tensor, times: Tensor) -> Tensor:
        """The state at each token: `tokens` [b, t] and `times` [b, t + 1] as of `SequenceBatch`, to [b, t, d].

        Padding lies behind the events, so that a causal network need not mask it.
        """
        raise NotImplementedError

    def targets(self, vectors: Tensor) -> Tensor:
        """Item vectors [..., d] as states are multiplied with them."""
        return self.pointing(vectors)

    def pointing(self, states: Tensor) -> Tensor:
        """States [..., d] as they are multiplied with item vectors."""
        return F.normalize(states, dim=-1) if self.unit else states

    def forward(self, tokens: Tensor, times: Tensor) -> Tensor:
        """[b, t] and [b, t + 1] to the state at each last event, [b, d]."""
        ends = (tokens != self.items.n_items).sum(1) - 1
        states = self.hidden(tokens, times)
        return self.pointing(states.gather(1, ends[:, None, None].expand(-1, 1, self.items.dimensions))[:, 0])


C = TypeVar("C", bound=SequenceConfig)


class SequenceRetriever(Generic[C]):
    """A `Retriever` around a `SequenceNetwork`. A model gives `name`, `config_kind` and `network`.

    Args:
        checkpoint: Where `fit` keeps its state and goes on from.
        on_progress: Called by `fit` after each step with name, steps done, steps at most, figures.
        labels: Which events are predicted, a flag for each row of the training events; None: all. The others are
            read all the same. Only first meetings with an interest make it novelty-boosted (Wang et al. 2024, arXiv
            2405.16363).
        items: Makes the item side; None: a vector learned for each item.
    """

    name: str
    config_kind: ClassVar[type[Any]]

    def __init__(
        self,
        config: C | None = None,
        *,
        checkpoint: Checkpoint | None = None,
        on_progress: Progress | None = None,
        labels: Flags | None = None,
        items: ItemSide | None = None,
    ) -> None:
        self.config: C = config or self.config_kind()
        self.checkpoint, self.on_progress, self.labels = checkpoint, on_progress, labels
        self.items: ItemSide = items or ItemTable
        self.curve: list[float] = []
        self._network: SequenceNetwork | None = None
        self._vectors: FloatArray | None = None

    def network(self, items: nn.Module) -> SequenceNetwork:
        """A fresh network over an item side."""
        raise NotImplementedError

    def loss(self, network: SequenceNetwork, counts: Counts) -> Loss:
        """The loss of one `SequenceBatch`."""
        catalogue = CatalogueLoss(lambda numbers: network.targets(network.items(numbers)), counts, self.config)
        catalogue.to(self.config.device)
        heat = self.config.temperature or 1.0

        def mean(tokens: Tensor, times: Tensor, targets: Tensor) -> Tensor:
            kept = targets != IGNORED
            return catalogue(network.pointing(network.hidden(tokens, times)[kept]) / heat, targets[kept])

        return mean

    def fit(
        self, dataset: Dataset | EventLog, knowledge: Knowledge | None = None, validation: Holdout | None = None
    ) -> Self:
        """Train. With `validation`, the epoch with the best NDCG@10 over it (seen items masked) is kept.

        Of an `EventLog` no more is held in memory than a batch and the edges of an epoch's windows.
        """
        config, counts = self.config, dataset.item_counts
        flags = self._known(dataset, knowledge)
        network = self._made(dataset.n_items)
        held = thinned(validation, config.validation_queries)
        labels = None if flags is None else _packed(flags, dataset)

        def judged() -> float:
            self._vectors = None
            network.items.fill_unseen(counts)  # as the finished model has them
            return 0.0 if held is None else mean_ndcg(self, held)

        trainer = Trainer(
            self.name,
            network,
            Windows(dataset.histories, dataset.n_items, config.length, config.batch_targets, labels),
            self.loss(network, counts),
            None if held is None else judged,
            config,
            "" if self.checkpoint is None else _key(self.name, config, dataset, held, labels, network.items),
            self.checkpoint,
            self.on_progress,
            size=lambda batch: int((batch[-1] != IGNORED).sum()),
            lazy=None if config.loss == "full" else config.full_softmax,
        )
        self.curve = trainer.run().curve
        network.items.fill_unseen(counts)
        self._vectors = None
        return self

    def score(self, queries: Sequence[Query], items: IntArray | None = None) -> FloatArray:
        vectors = self.item_vectors if items is None else self.item_vectors[items]
        return self.encode(queries) @ vectors.T

    @property
    def item_vectors(self) -> FloatArray:
        network = self._fitted()
        if self._vectors is None:
            with torch.inference_mode():
                self._vectors = network.targets(network.items.table()).cpu().numpy()
        return self._vectors

    def encode(self, queries: Sequence[Query]) -> FloatArray:
        network = self._fitted()
        device = next(network.parameters()).device
        vectors = np.zeros((len(queries), self.config.dimensions), dtype=np.float32)
        for rows in _alike([min(len(query.history) + 1, self.config.length) for query in queries]):
            batch = [queries[row] for row in rows]
            tokens = torch.from_numpy(tokens_of(batch, self.config.length, network.items.n_items))
            times = torch.from_numpy(times_of(batch, self.config.length))
            with torch.inference_mode():
                vectors[rows] = network(tokens.to(device), times.to(device)).cpu().numpy()
        return vectors

    def state(self) -> State:
        """The fitted weights; `from_state` with the same configuration takes them up again."""
        network = self._fitted()
        arrays = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
        return State(arrays, {"n_items": network.items.n_items, "config": self.config.model_dump(mode="json")})

    @classmethod
    def from_state(cls, state: State, items: ItemSide | None = None) -> Self:
        """The model of `state()`, ready to score; `items` as it was given to the constructor."""
        model = cls(cls.config_kind.model_validate(state.facts["config"]), items=items)
        if model.config.sides != "id":
            model.items = partial(ItemVectors, sides=model.config.sides, vectors=state.arrays["items.vectors"])
        network = model._made(state.facts["n_items"])
        load_weights(network, tensors_of(state), model.name)
        network.eval()
        return model

    def export_onnx(self, path: str | Path) -> None:
        """Write the query encoder for `OnnxSequenceEncoder`: `tokens` int64 [q, t] and, where the network reads them,
        `times` int64 [q, t + 1] to [q, d]."""
        network = self._fitted()
        n_items = network.items.n_items
        tokens = torch.tensor([[n_items + 1, 0, 0], [n_items + 1, 0, n_items]])
        times = torch.zeros(2, 4, dtype=torch.int64)
        axes = {"tokens": {0: "q", 1: "t"}, "times": {0: "q", 1: "next"}, "vectors": {0: "q"}}
        facts = {"n_items": str(n_items), "length": str(self.config.length)}
        write_onnx(network, {"tokens": tokens, "times": times}, "vectors", axes, facts, Path(path))

    def _known(self, dataset: Dataset | EventLog, knowledge: Knowledge | None) -> Flags | None:
        """Set the item side; which events are predicted."""
        config = self.config
        if isinstance(dataset, EventLog):
            if config.sides != "id" or config.novel_by is not None:
                raise InputError("A log of numbers knows no items' columns", allowed="sides: id, no novel_by")
            return self.labels
        if config.sides != "id":
            self.items = side_maker(config.sides, dataset, knowledge)
        if self.labels is None and config.novel_by is not None:
            return novel_events(dataset, config.novel_by)
        return self.labels

    def _made(self, n_items: int) -> SequenceNetwork:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self._network = self.network(self.items(n_items, self.config.dimensions))
            self._network.unit = self.config.temperature is not None
        return self._network

    def _fitted(self) -> SequenceNetwork:
        if self._network is None:
            raise PalateError("The model has not been fitted", where=self.name, hint="call fit first")
        return self._network


def _alike(sizes: Sequence[int]) -> Iterator[IntArray]:
    """Numbers of sequences of like size, so many at a time that attention over them fits into `CELLS`."""
    order, start = np.argsort(sizes, kind="stable").astype(np.int32), 0
    while start < len(order):
        rows = order[start : start + BATCH]
        rows = rows[: max(1, CELLS // sizes[rows[-1]] ** 2)]
        start += len(rows)
        yield rows


def _packed(labels: Flags, dataset: Dataset | EventLog) -> Flags:
    """Flags of rows of the events in the order of the packed histories, as those of a log are."""
    if isinstance(dataset, EventLog):
        return labels
    return labels[np.argsort(dataset.events["user_num"].to_numpy(), kind="stable")]


def _key(
    name: str,
    config: SequenceConfig,
    dataset: Dataset | EventLog,
    held: Holdout | None,
    labels: Flags | None,
    items: nn.Module,
) -> str:
    digest = hashlib.sha256((f"{name} {json.dumps(config.learned())}").encode())
    histories = dataset.histories
    chosen = [*([] if labels is None else [labels]), *(buffer.numpy() for buffer in items.buffers())]
    for array in (histories.offsets, histories.items, histories.times, *chosen, *(held.targets if held else [])):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
