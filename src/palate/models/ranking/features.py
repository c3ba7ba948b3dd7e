"""`Features`: what a ranking model sees of a sample. Vocabularies and statistics come from training rows alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from palate.data.chosen import Chosen, newest
from palate.data.dataset import Dataset, FloatArray, IntArray
from palate.data.samples import Samples
from palate.errors import InputError
from palate.models.ranking.columns import Fields, Scale, field_columns, make_fields, number_columns
from palate.models.ranking.past import ItemPast, log_gap, smoothed

PADDING = -1
_LEVELS = 12  # distinct values up to which each is a level of its own


class FeaturesConfig(BaseModel):
    """Which features there are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    history: int = Field(default=30, ge=1, description="newest events of the user that are read; of `Chosen` theirs")
    min_rows: int = Field(default=3, ge=1, description="training rows of a value that gets an embedding of its own")
    max_values: int = Field(default=1000, ge=1, description="values of a column that get one, commonest first")
    max_list: int = Field(default=8, ge=1, description="values of a list (categories) that are read")
    user_id: bool = Field(default=False, description="whether users have embeddings of their own (KAR: no)")
    skip: tuple[str, ...] = Field(default=(), description="columns of items and users that are left out")


@dataclass(frozen=True)
class Rows:
    """Samples as a model reads them. `PADDING` lies behind the events of a history."""

    items: IntArray  # [n]
    users: IntArray  # [n]
    numbers: FloatArray  # [n, q], standardised, NaN where missing
    history: IntArray  # [n, t], items, oldest first
    levels: IntArray  # [n, t], how the user valued them: 0 unknown, then the levels from low to high


class Features:
    """Fitted on the training rows of `samples`, made of `dataset`; call it with samples to get `Rows`.

    Item side: the id, each string or list column, each number column. User side: the same columns of users, the id
    where the configuration says so. Numbers of the moment: how often the item was met, its mean value and the time
    since, strictly before the sample's time; the same of the user. The last events of the user with their values, or
    those that were chosen (`palate.data.chosen`): the history that retrieves what the target is about.

    Raises:
        InputError: No training rows; called with samples whose events were chosen where those of `samples` were not.
    """

    def __init__(self, dataset: Dataset, samples: Samples, config: FeaturesConfig | None = None) -> None:
        self.config = config = config or FeaturesConfig()
        train = samples.train
        if not len(train):
            hint = "cut the split elsewhere, or relax the leak guard"
            raise InputError("There are no training rows to learn from", got=f"{len(samples)} samples", hint=hint)
        self.histories, self.chosen = dataset.histories, isinstance(samples, Chosen)
        self.item_fields = _fields(dataset.items, "item", train.items, config)
        self.user_fields = _fields(dataset.users, "user" if config.user_id else None, train.users, config,
                                   begin=self.item_fields.size)  # fmt: skip
        self._item_numbers, item_names = _numbers(dataset.items, config)
        self._user_numbers, user_names = _numbers(dataset.users, config)
        self._learn_values(dataset, train)
        names = (*ItemPast.names, "user_count", "user_mean", "user_gap", *item_names, *user_names)
        numbers = self._raw_numbers(train)
        self._kept = np.flatnonzero(Scale.fit(numbers).spread < np.inf)
        self.scale = Scale.fit(numbers[:, self._kept])
        self.number_names = tuple(names[i] for i in self._kept)
        of_users = np.array([name in user_names or name.startswith("user_") for name in self.number_names], dtype=bool)
        self.number_sides = np.stack([~of_users, of_users])[[not of_users.all(), bool(of_users.any())]]

    def __call__(self, samples: Samples) -> Rows:
        history, levels = self._history(samples)
        numbers = self.scale(self._raw_numbers(samples)[:, self._kept])
        return Rows(samples.items, samples.users, numbers, history, levels)

    def _learn_values(self, dataset: Dataset, train: Samples) -> None:
        """The levels of values and their mean, from the events that the training rows stand for or look back on."""
        order = np.argsort(dataset.events["user_num"].to_numpy(), kind="stable")
        values = dataset.events["value"].to_numpy().astype(np.float32)[order]
        spans = np.zeros(len(values) + 1, dtype=np.int64)
        np.add.at(spans, train.starts, 1)
        np.add.at(spans, np.minimum(train.ends + 1, len(values)), -1)
        used = np.cumsum(spans)[:-1] > 0
        seen = values[used & np.isfinite(values)]
        distinct = np.unique(seen)
        if len(distinct) > _LEVELS:
            distinct = np.unique(np.quantile(seen, np.linspace(0, 1, _LEVELS)).astype(np.float32))
        self.level_values = distinct
        nearest = np.searchsorted((distinct[1:] + distinct[:-1]) / 2, values) + 1 if len(distinct) else 0
        self._levels = np.where(np.isfinite(values), nearest, 0).astype(np.int32)
        self._sums = np.concatenate([[0.0], np.nancumsum(values.astype(np.float64))])
        self._rated = np.concatenate([[0], np.cumsum(np.isfinite(values))])
        self.prior = float(seen.mean()) if len(seen) else np.nan
        training = np.empty(len(values), dtype=bool)
        training[order] = used
        self.past = ItemPast(dataset, training, self.prior)

    def _raw_numbers(self, samples: Samples) -> FloatArray:
        begin, end = samples.starts, samples.ends
        mean = smoothed(self._sums[end] - self._sums[begin], self._rated[end] - self._rated[begin], self.prior)
        last = self.histories.times[np.maximum(end - 1, 0)]
        gap = log_gap(samples.times - last, (end > begin) & self.past.clock)
        user = np.stack([np.log1p(end - begin), mean, gap], axis=1).astype(np.float32)
        parts = [self.past(samples.items, samples.times), user]
        return np.concatenate([*parts, self._item_numbers[samples.items], self._user_numbers[samples.users]], axis=1)

    def _history(self, samples: Samples) -> tuple[IntArray, IntArray]:
        if isinstance(samples, Chosen) != self.chosen:
            hint = "choose their events with the function of palate.data.chosen that chose them for training"
            raise InputError("These samples read other events than those that were learned from", hint=hint)
        if isinstance(samples, Chosen):
            longest = int((samples.places >= 0).sum(axis=1).max(initial=1))
            places = samples.places[:, :longest]
        else:
            places = newest(samples, self.config.history)
        inside = places >= 0
        places = np.where(inside, places, 0)
        return np.where(inside, self.histories.items[places], PADDING), np.where(inside, self._levels[places], 0)


def _fields(table: pl.DataFrame, own: str | None, entities: IntArray, config: FeaturesConfig, begin: int = 1) -> Fields:
    rows = np.bincount(entities, minlength=table.height)
    limits = config.min_rows, config.max_values, config.max_list
    return make_fields(table, field_columns(table, config.skip), own, rows, begin, limits)


def _numbers(table: pl.DataFrame, config: FeaturesConfig) -> tuple[FloatArray, list[str]]:
    names = number_columns(table, config.skip)
    columns = [table[name].cast(pl.Float32).to_numpy() for name in names]
    return np.stack([*columns], axis=1) if columns else np.zeros((table.height, 0), np.float32), names
