"""Two towers: a person is the mean of what they met, put through a small network; an item is a vector of its own.

The retrieval model of Covington et al. (RecSys 2016) reduced to ids, with softmax over the catalogue (`softmax`). It
knows no order: the exploitation baseline beside the sequence model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from palate.data.dataset import Dataset, FloatArray, IntArray
from palate.data.query import Query
from palate.data.splits import Holdout
from palate.errors import PalateError
from palate.knowledge.tables import Knowledge
from palate.models.dropout import Dropout
from palate.models.item_side import ItemSide, ItemTable, Sides, side_maker
from palate.models.judging import mean_ndcg, thinned
from palate.models.search_space import Between, SearchSpace
from palate.models.softmax import CatalogueLoss, LossConfig
from palate.models.trainer import Batch, Progress, Trainer


class TwoTowerConfig(LossConfig):
    """Sizes of the towers; how they are trained stands in `LossConfig` and `TrainerConfig`."""

    search: ClassVar[SearchSpace] = {
        "dimensions": (32, 64, 128),
        "recent": (5, 10, 20, 50),
        "dropout": Between(0.0, 0.6),
        "learning_rate": Between(3e-4, 3e-3, log=True),
        "label_smoothing": (0.0, 0.1, 0.2),
    }

    dimensions: int = Field(default=64, ge=2, description="of the vectors of items and people")
    recent: int = Field(default=50, ge=1, description="newest events of a history that are read")
    batch: int = Field(default=512, ge=1, description="events predicted in one step")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="of the mean of a history")
    sides: Sides = Field(default="id", description="an item goes by a learned row, by known vectors, or by both")
    validation_queries: int = Field(default=2000, ge=1, description="most queries that judge an epoch, evenly picked")


class Towers(nn.Module):
    """Histories, packed with offsets as `EmbeddingBag` reads them, to the vectors of people."""

    def __init__(self, n_items: int, config: TwoTowerConfig, side: ItemSide = ItemTable) -> None:
        super().__init__()
        d = config.dimensions
        self.met: Any = side(n_items, d)
        self.items: Any = side(n_items, d)
        self.person = nn.Sequential(Dropout(config.dropout), nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))
        tables: list[Any] = [self.met.rows, self.items.rows]
        for rows in tables:
            nn.init.normal_(rows.weight, std=0.1)

    def forward(self, items: Tensor, offsets: Tensor) -> Tensor:
        """`items` of all histories in a row, `offsets` [n] where each begins; [n, d]."""
        means = F.embedding_bag(items, self.met.table(), offsets, mode="mean")
        return self.person(means)  # type: ignore[no-any-return]


class TwoTower:
    """A `Retriever`. An item never trained on takes the mean vector of the rarest items.

    Args:
        on_progress: Called by `fit` after each step with name, steps done, steps at most, figures.
    """

    name = "two-tower"

    def __init__(self, config: TwoTowerConfig | None = None, *, on_progress: Progress | None = None) -> None:
        self.config, self.on_progress = config or TwoTowerConfig(), on_progress
        self._towers: Towers | None = None

    def fit(self, dataset: Dataset, knowledge: Knowledge | None = None, validation: Holdout | None = None) -> Self:
        """Train. With `validation`, the epoch with the best NDCG@10 over it (seen items masked) is kept."""
        config, counts = self.config, dataset.item_counts
        side = side_maker(config.sides, dataset, knowledge)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            towers = self._towers = Towers(dataset.n_items, config, side)
        catalogue = CatalogueLoss(towers.items, counts, config)
        held = thinned(validation, config.validation_queries)

        def judged() -> float:
            towers.items.fill_unseen(counts)
            return 0.0 if held is None else mean_ndcg(self, held)

        Trainer(
            self.name,
            towers,
            _Events(dataset, config),
            lambda items, offsets, wanted: catalogue(towers(items, offsets), wanted),
            None if held is None else judged,
            config,
            on_progress=self.on_progress,
        ).run()
        towers.items.fill_unseen(counts)
        return self

    def score(self, queries: Sequence[Query], items: IntArray | None = None) -> FloatArray:
        vectors = self.item_vectors if items is None else self.item_vectors[items]
        return self.encode(queries) @ vectors.T

    @property
    def item_vectors(self) -> FloatArray:
        with torch.inference_mode():
            vectors: FloatArray = self._fitted().items.table().numpy()
        return vectors

    def encode(self, queries: Sequence[Query]) -> FloatArray:
        towers = self._fitted()
        with torch.inference_mode():
            vectors: FloatArray = towers(*_packed([query.history[-self.config.recent :] for query in queries])).numpy()
        return vectors

    def _fitted(self) -> Towers:
        if self._towers is None:
            raise PalateError("The model has not been fitted", where=self.name, hint="call fit first")
        return self._towers


class _Events:
    """Every event of `dataset` once an epoch, with the history before it."""

    def __init__(self, dataset: Dataset, config: TwoTowerConfig) -> None:
        histories = dataset.histories
        owner = np.repeat(np.arange(dataset.n_users), np.diff(histories.offsets))
        self.items, self.batch = histories.items, config.batch
        self.starts = np.maximum(histories.offsets[owner], np.arange(len(owner)) - config.recent)
        self.order = np.arange(0)

    def __call__(self, rng: np.random.Generator) -> _Events:
        self.order = rng.permutation(len(self.items))
        return self

    def __len__(self) -> int:
        return (len(self.order) + self.batch - 1) // self.batch

    def __getitem__(self, number: int) -> Batch:
        places = self.order[number * self.batch : (number + 1) * self.batch]
        histories = [self.items[self.starts[place] : place] for place in places.tolist()]
        return (*_packed(histories), torch.from_numpy(self.items[places].astype(np.int64)))


def _packed(histories: Sequence[IntArray]) -> tuple[Tensor, Tensor]:
    ends = np.cumsum([0, *map(len, histories)])
    items = np.concatenate([*histories, np.zeros(0, np.int32)]).astype(np.int64)
    return torch.from_numpy(items), torch.from_numpy(ends[:-1].astype(np.int64))
