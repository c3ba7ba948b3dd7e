"""What all sequence models share: items in, windows, loss, judging, encoding, keeping. A model adds its network."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from palate.data.dataset import Dataset, FloatArray, IntArray
from palate.data.query import Query
from palate.data.splits import Holdout
from palate.errors import PalateError
from palate.knowledge.tables import Knowledge
from palate.models.checkpoint import Checkpoint, State
from palate.models.judging import mean_ndcg, thinned
from palate.models.sequence_encoder import BATCH, times_of, tokens_of
from palate.models.softmax import CatalogueLoss, LossConfig, fill_unseen
from palate.models.trainer import Progress, Trainer
from palate.models.weights import load_weights, tensors_of
from palate.models.windows import IGNORED, Flags, Windows

Counts = npt.NDArray[np.int64]
Loss = Callable[..., Tensor]


class SequenceConfig(LossConfig):
    """What every sequence model is told; how it is trained stands in `LossConfig` and `TrainerConfig`."""

    dimensions: int = Field(default=64, ge=2, description="of item vectors and hidden states")
    length: int = Field(default=50, ge=2, description="newest events of a history that are read (SASRec: 50-200)")
    dropout: float = Field(default=0.3, ge=0, lt=1, description="of inputs and hidden states (SASRec: 0.2-0.5)")
    batch_targets: int = Field(default=512, ge=1, description="events predicted in one step, roughly")
    validation_queries: int = Field(default=2000, ge=1, description="most queries that judge an epoch, evenly picked")


class ItemTable(nn.Module):
    """The plain item side: a learned vector for each item, then one for padding and one for the beginning.

    Another item side (vectors of texts, both gated) has the same attributes and methods and can stand in its place.
    """

    def __init__(self, n_items: int, dimensions: int) -> None:
        super().__init__()
        self.n_items, self.dimensions = n_items, dimensions
        self.rows = nn.Embedding(n_items + 2, dimensions)

    def forward(self, tokens: Tensor) -> Tensor:
        """Vectors of tokens or of item numbers, any shape [...] to [..., d]."""
        return self.rows(tokens)  # type: ignore[no-any-return]

    def table(self) -> Tensor:
        """The vectors of all items, [n_items, d]."""
        return self.rows.weight[: self.n_items]

    def fill_unseen(self, counts: Counts) -> None:
        """Called before items are ranked: `counts` [n_items] says how often each was met in training."""
        fill_unseen(self.rows, counts)


class SequenceNetwork(nn.Module):
    """Base of the networks: `items` first, `hidden` by the subclass."""

    def __init__(self, items: nn.Module) -> None:
        super().__init__()
        self.items: Any = items

    def hidden(self, tokens: Tensor, times: Tensor) -> Tensor:
        """The state at each token: `tokens` [b, t] and `times` [b, t + 1] as of `SequenceBatch`, to [b, t, d].

        Padding lies behind the events, so that a causal network need not mask it.
        """
        raise NotImplementedError

    def targets(self, vectors: Tensor) -> Tensor:
        """Item vectors [..., d] as states are multiplied with them; the vectors themselves unless overridden."""
        return vectors

    def forward(self, tokens: Tensor, times: Tensor) -> Tensor:
        """[b, t] and [b, t + 1] to the state at each last event, [b, d]."""
        ends = (tokens != self.items.n_items).sum(1) - 1
        states = self.hidden(tokens, times)
        return states.gather(1, ends[:, None, None].expand(-1, 1, self.items.dimensions))[:, 0]


C = TypeVar("C", bound=SequenceConfig)
ItemSide = Callable[[int, int], nn.Module]  # (n_items, dimensions) to what `ItemTable` is


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

        def mean(tokens: Tensor, times: Tensor, targets: Tensor) -> Tensor:
            kept = targets != IGNORED
            return catalogue(network.hidden(tokens, times)[kept], targets[kept])

        return mean

    def fit(self, dataset: Dataset, knowledge: Knowledge | None = None, validation: Holdout | None = None) -> Self:
        """Train. With `validation`, the epoch with the best NDCG@10 over it (seen items masked) is kept."""
        config, counts = self.config, dataset.item_counts
        network = self._made(dataset.n_items)
        held = thinned(validation, config.validation_queries)
        labels = None if self.labels is None else _packed(self.labels, dataset)

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
            _key(self.name, config, dataset, held, self.labels),
            self.checkpoint,
            self.on_progress,
            size=lambda batch: int((batch[-1] != IGNORED).sum()),
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
        network, parts = self._fitted(), []
        device = next(network.parameters()).device
        for start in range(0, max(len(queries), 1), BATCH):
            batch = queries[start : start + BATCH]
            tokens = torch.from_numpy(tokens_of(batch, self.config.length, network.items.n_items))
            times = torch.from_numpy(times_of(batch, self.config.length))
            with torch.inference_mode():
                parts.append(network(tokens.to(device), times.to(device)).cpu().numpy())
        return np.concatenate(parts)

    def state(self) -> State:
        """The fitted weights; `from_state` with the same configuration takes them up again."""
        network = self._fitted()
        arrays = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
        return State(arrays, {"n_items": network.items.n_items, "config": self.config.model_dump(mode="json")})

    @classmethod
    def from_state(cls, state: State, items: ItemSide | None = None) -> Self:
        """The model of `state()`, ready to score; `items` as it was given to the constructor."""
        model = cls(cls.config_kind.model_validate(state.facts["config"]), items=items)
        network = model._made(state.facts["n_items"])
        load_weights(network, tensors_of(state), model.name)
        network.eval()
        return model

    def export_onnx(self, path: str | Path) -> None:
        """Write the query encoder for `OnnxSequenceEncoder`: `tokens` int64 [q, t] and, where the network reads them,
        `times` int64 [q, t + 1] to [q, d]."""
        import onnx

        network, path = self._fitted(), Path(path)
        n_items, names = network.items.n_items, ["tokens", "times"]
        tokens = torch.tensor([[n_items + 1, 0, 0], [n_items + 1, 0, n_items]])
        partial = path.with_name(f".partial-{path.name}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    network,
                    (tokens, torch.zeros(2, 4, dtype=torch.int64)),
                    str(partial),
                    input_names=names,
                    output_names=["vectors"],
                    dynamic_axes={"tokens": {0: "q", 1: "t"}, "times": {0: "q", 1: "next"}, "vectors": {0: "q"}},
                    dynamo=False,
                )
            graph = onnx.load(str(partial))
            onnx.helper.set_model_props(graph, {"n_items": str(n_items), "length": str(self.config.length)})
            read = {name for node in graph.graph.node for name in node.input}
            for unread in [given for given in graph.graph.input if given.name not in read]:
                graph.graph.input.remove(unread)
            onnx.save(graph, str(partial))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _made(self, n_items: int) -> SequenceNetwork:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self._network = self.network(self.items(n_items, self.config.dimensions))
        return self._network

    def _fitted(self) -> SequenceNetwork:
        if self._network is None:
            raise PalateError("The model has not been fitted", where=self.name, hint="call fit first")
        return self._network


def _packed(labels: Flags, dataset: Dataset) -> Flags:
    """Flags of rows of the events in the order of the packed histories."""
    return labels[np.argsort(dataset.events["user_num"].to_numpy(), kind="stable")]


def _key(name: str, config: SequenceConfig, dataset: Dataset, held: Holdout | None, labels: Flags | None) -> str:
    digest = hashlib.sha256((f"{name} {json.dumps(config.learned())}").encode())
    histories = dataset.histories
    chosen = [] if labels is None else [labels]
    for array in (histories.offsets, histories.items, histories.times, *chosen, *(held.targets if held else [])):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
