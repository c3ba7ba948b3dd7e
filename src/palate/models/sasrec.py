"""SASRec: self-attention over a history predicts the next item (Kang & McAuley, ICDM 2018, arXiv 1808.09781).

Differences from the paper, each common today: softmax cross-entropy over the catalogue at every position instead of
one negative and binary cross-entropy (Klenitskiy & Vasilev 2023, arXiv 2309.07602), normalisation before each
sub-layer, GELU, and a learned bias of the attention for each distance between two events (Raffel et al. 2020, arXiv
1910.10683) instead of vectors of absolute places: windows cut a history anywhere, so a place means nothing. Input and
output share one table of item vectors, as in the paper.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from palate.data.dataset import Dataset, FloatArray, IntArray
from palate.data.query import Query
from palate.data.splits import Holdout
from palate.errors import PalateError
from palate.knowledge.tables import Knowledge
from palate.models.checkpoint import Checkpoint, State
from palate.models.judging import mean_ndcg, thinned
from palate.models.sequence_encoder import BATCH, tokens_of
from palate.models.softmax import CatalogueLoss, fill_unseen
from palate.models.trainer import Batch, Progress, Trainer, TrainerConfig

Counts = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
IGNORED = -1  # a target that is padding, or no label


class SasRecConfig(TrainerConfig):
    """Sizes and regularisation of the network; how it is trained stands in `TrainerConfig`."""

    dimensions: int = Field(default=64, ge=2, description="of item vectors and hidden states")
    blocks: int = Field(default=2, ge=1, description="of attention and feed-forward (paper: 2)")
    heads: int = Field(default=2, ge=1, description="of each attention (paper: 1)")
    widening: int = Field(default=4, ge=1, description="inner over outer width of the feed-forward part (paper: 1)")
    length: int = Field(default=50, ge=2, description="newest events of a history that are read (paper: 50-200)")
    dropout: float = Field(default=0.3, ge=0, lt=1, description="of inputs, attention and sub-layers (paper: 0.2-0.5)")
    label_smoothing: float = Field(default=0.1, ge=0, lt=1, description="share of the target given to all items")
    batch_targets: int = Field(default=512, ge=1, description="events predicted in one step, roughly")
    full_softmax: int = Field(default=50_000, ge=1, description="trained items up to which no negatives are sampled")
    negatives: int = Field(default=4096, ge=1, description="uniform negatives of one step where they are sampled")
    validation_queries: int = Field(default=2000, ge=1, description="most queries that judge an epoch, evenly picked")


class Block(nn.Module):
    """Causal self-attention and a feed-forward part, each normalised first and added to its input."""

    def __init__(self, config: SasRecConfig) -> None:
        super().__init__()
        d = config.dimensions
        self.heads, self.dropout = config.heads, nn.Dropout(config.dropout)
        self.before_attention, self.before_feed = nn.LayerNorm(d), nn.LayerNorm(d)
        self.mix, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.widen, self.narrow = nn.Linear(d, config.widening * d), nn.Linear(config.widening * d, d)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """`x` [b, t, d]; `bias` [heads, t, t] of the attention, minus infinity where the column comes after the row."""
        (b, t), d = x.shape[:2], self.out.out_features
        mixed = self.mix(self.before_attention(x)).view(b, t, 3, self.heads, d // self.heads)
        q, k, v = mixed.permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) * (d // self.heads) ** -0.5 + bias).softmax(-1)
        read = (self.dropout(weights) @ v).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.out(read))
        inner = F.gelu(self.widen(self.before_feed(x)))
        return x + self.dropout(self.narrow(inner))  # type: ignore[no-any-return]


class Network(nn.Module):
    """Tokens (see `tokens_of`) to hidden states. Row i of `table` is item i; padding and beginning follow."""

    def __init__(self, n_items: int, config: SasRecConfig) -> None:
        super().__init__()
        self.n_items = n_items
        self.table = nn.Embedding(n_items + 2, config.dimensions)
        self.distances = nn.Parameter(torch.zeros(config.heads, config.length))  # to attention, by events back
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.last = nn.LayerNorm(config.dimensions)
        self.dropout = nn.Dropout(config.dropout)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1 and name != "distances":
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def hidden(self, tokens: Tensor) -> Tensor:
        """[b, t] to [b, t, d]. Padding lies behind the events, so that causality alone hides it."""
        order = torch.arange(tokens.shape[1], device=tokens.device)
        back = order[:, None] - order[None, :]
        bias = torch.where(back < 0, -torch.inf, self.distances[:, back.clamp(min=0)])
        x = self.dropout(self.table(tokens))
        for block in self.blocks:
            x = block(x, bias)
        return self.last(x)  # type: ignore[no-any-return]

    def forward(self, tokens: Tensor) -> Tensor:
        """[b, t] to the state at each last event, [b, d]."""
        ends = (tokens != self.n_items).sum(1) - 1
        index = ends[:, None, None].expand(-1, 1, self.table.embedding_dim)
        return self.hidden(tokens).gather(1, index)[:, 0]


class SasRec:
    """A `Retriever`. An item never trained on takes the mean vector of the rarest items, as unknown words do.

    Args:
        checkpoint: Where `fit` keeps its state after each epoch and goes on from.
        on_progress: Called by `fit` after each step with name, steps done, steps at most, figures.
        labels: Which events are predicted, a flag for each row of the training events; None: all. The others are
            read all the same. Only first meetings with an interest make it novelty-boosted (Wang et al. 2024, arXiv
            2405.16363).
    """

    name = "sasrec"

    def __init__(
        self,
        config: SasRecConfig | None = None,
        *,
        checkpoint: Checkpoint | None = None,
        on_progress: Progress | None = None,
        labels: Flags | None = None,
    ) -> None:
        self.config = config or SasRecConfig()
        self.checkpoint, self.on_progress, self.labels = checkpoint, on_progress, labels
        self.curve: list[float] = []
        self._network: Network | None = None

    def fit(self, dataset: Dataset, knowledge: Knowledge | None = None, validation: Holdout | None = None) -> Self:
        """Train. With `validation`, the epoch with the best NDCG@10 over it (seen items masked) is kept."""
        counts = dataset.item_counts
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            network = Network(dataset.n_items, self.config)
        self._network = network
        windows = _Windows(dataset, self.config, self.labels)
        config = self.config
        catalogue = CatalogueLoss(network.table, counts, config.label_smoothing, config.full_softmax, config.negatives)

        def loss(tokens: Tensor, targets: Tensor) -> Tensor:
            kept = targets != IGNORED
            return catalogue(network.hidden(tokens)[kept], targets[kept])

        held = thinned(validation, self.config.validation_queries)
        trainer = Trainer(
            self.name,
            network,
            windows,
            loss,
            None if held is None else lambda: self._judged(held, counts),
            self.config,
            _key(self.config, dataset, held, self.labels),
            self.checkpoint,
            self.on_progress,
        )
        self.curve = trainer.run().curve
        fill_unseen(network.table, counts)
        return self

    def score(self, queries: Sequence[Query], items: IntArray | None = None) -> FloatArray:
        vectors = self.item_vectors if items is None else self.item_vectors[items]
        return self.encode(queries) @ vectors.T

    @property
    def item_vectors(self) -> FloatArray:
        network = self._fitted()
        vectors: FloatArray = network.table.weight.detach()[: network.n_items].numpy()
        return vectors

    def encode(self, queries: Sequence[Query]) -> FloatArray:
        network, parts = self._fitted(), []
        for start in range(0, max(len(queries), 1), BATCH):
            tokens = tokens_of(queries[start : start + BATCH], self.config.length, network.n_items)
            with torch.inference_mode():
                parts.append(network(torch.from_numpy(tokens)).numpy())
        return np.concatenate(parts)

    def state(self) -> State:
        """The fitted weights; `from_state` with the same configuration takes them up again."""
        network = self._fitted()
        arrays = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
        return State(arrays, {"n_items": network.n_items, "config": self.config.model_dump(mode="json")})

    @classmethod
    def from_state(cls, state: State) -> Self:
        """The model of `state()`, ready to score."""
        model = cls(SasRecConfig.model_validate(state.facts["config"]))
        model._network = Network(state.facts["n_items"], model.config)
        model._network.load_state_dict({name: torch.from_numpy(array) for name, array in state.arrays.items()})
        model._network.eval()
        return model

    def export_onnx(self, path: str | Path) -> None:
        """Write the query encoder for `OnnxSequenceEncoder`: input `tokens` int64 [q, t], output [q, d]."""
        import onnx

        network = self._fitted()
        example = torch.tensor([[network.n_items + 1, 0, 0], [network.n_items + 1, 0, network.n_items]])
        path = Path(path)
        partial = path.with_name(f".partial-{path.name}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    network,
                    (example,),
                    str(partial),
                    input_names=["tokens"],
                    output_names=["vectors"],
                    dynamic_axes={"tokens": {0: "q", 1: "t"}, "vectors": {0: "q"}},
                    dynamo=False,
                )
            graph = onnx.load(str(partial))
            onnx.helper.set_model_props(graph, {"n_items": str(network.n_items), "length": str(self.config.length)})
            onnx.save(graph, str(partial))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _fitted(self) -> Network:
        if self._network is None:
            raise PalateError("The model has not been fitted", where=self.name, hint="call fit first")
        return self._network

    def _judged(self, held: Holdout, counts: Counts) -> float:
        fill_unseen(self._fitted().table, counts)  # as the finished model has them
        return mean_ndcg(self, held)


class _Windows:
    """Cuts the histories of `dataset` anew for each epoch into windows, so that each event is predicted once."""

    def __init__(self, dataset: Dataset, config: SasRecConfig, labels: Flags | None = None) -> None:
        self.n_items, self.length, self.targets = dataset.n_items, config.length, config.batch_targets
        histories = dataset.histories
        begin = np.array([[dataset.n_items + 1], [IGNORED]])
        used = np.flatnonzero(np.diff(histories.offsets))
        wanted = histories.items
        if labels is not None:
            packed = labels[np.argsort(dataset.events["user_num"].to_numpy(), kind="stable")]
            wanted = np.where(packed, wanted, IGNORED).astype(np.int32)
        both = np.stack([histories.items, wanted])  # what is read, what is predicted
        bounds = [(int(histories.offsets[user]), int(histories.offsets[user + 1])) for user in used]
        self.sequences = [np.concatenate([begin, both[:, a:b]], axis=1) for a, b in bounds]

    def __call__(self, rng: np.random.Generator) -> list[Batch]:
        cut = [w for sequence in self.sequences for w in self._cut(sequence, rng)]
        windows = [w for w in cut if (w[1, 1:] != IGNORED).any()]
        rng.shuffle(windows)
        sizes = np.cumsum([(w[1, 1:] != IGNORED).sum() for w in windows])
        ends = np.flatnonzero(np.diff(sizes // self.targets, append=-1)) + 1
        return [self._batch(windows[a:b]) for a, b in pairwise([0, *ends])]

    def _cut(self, sequence: IntArray, rng: np.random.Generator) -> list[IntArray]:
        """Windows of `length + 1` tokens that overlap by one: the last token of each is only a target."""
        n = sequence.shape[1]
        if n <= self.length + 1:
            return [sequence]
        first = int(rng.integers(1, self.length + 1))
        edges = [0, *range(first, n - 1, self.length), n - 1]
        return [sequence[:, a : b + 1] for a, b in pairwise(edges)]

    def _batch(self, windows: list[IntArray]) -> Batch:
        longest = max(w.shape[1] for w in windows) - 1
        tokens = np.full((len(windows), longest), self.n_items, dtype=np.int64)
        targets = np.full((len(windows), longest), IGNORED, dtype=np.int64)
        for row, window in enumerate(windows):
            tokens[row, : window.shape[1] - 1], targets[row, : window.shape[1] - 1] = window[0, :-1], window[1, 1:]
        return torch.from_numpy(tokens), torch.from_numpy(targets)


def _key(config: SasRecConfig, dataset: Dataset, held: Holdout | None, labels: Flags | None) -> str:
    digest = hashlib.sha256(config.model_dump_json().encode())
    histories = dataset.histories
    chosen = [] if labels is None else [labels]
    for array in (histories.offsets, histories.items, *chosen, *([] if held is None else [*held.targets])):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
