"""The arms of KAR: knowledge of the LLM at hand, of recorded answers, and of the raw text, for the same entities."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.dataset import Dataset, FloatArray
from palate.data.samples import first_places
from palate.errors import InputError
from palate.experiments.controls import RAW, Arm
from palate.experiments.study import Study
from palate.knowledge.annotate import item_text
from palate.knowledge.as_of import Versions, newest_before
from palate.knowledge.collective import CollectiveConfig, ask_clusters, cluster_ids, make_clusters, seen_only
from palate.knowledge.factors import Factors, load_factors
from palate.knowledge.matrix import vector_matrix
from palate.knowledge.profile_vectors import described, same_space, vector_rows
from palate.knowledge.profiles import (
    Asked,
    Interview,
    ProfileConfig,
    Seen,
    item_facts,
    seen_windows,
    streamed_profiles,
)
from palate.llm.request import LLM

if TYPE_CHECKING:
    from palate.experiments.kar_study import KarSettings

RECORDED = "recorded answers"
_SMALL = {"liked": 8, "disliked": 4, "title_chars": 50}  # what a model of 135 M weights reads in a second or two
_WINDOW = 50  # events of a window of streaming extraction


@dataclass
class KarArms:
    """Everything is made once, at first use.

    Users have a row for each version of their profile. What nobody was asked about is zeros in every arm, raw text
    included: the arms differ in what is known, not of whom.

    Args:
        counts: Training rows of each item.
        train: Of each event whether it may be known before the held-out rows (for collective extraction).
    """

    study: Study
    settings: KarSettings
    counts: npt.NDArray[np.int64]
    train: npt.NDArray[np.bool_]

    @property
    def dataset(self) -> Dataset:
        return self.study.dataset

    @cached_property
    def factors(self) -> Factors:
        return load_factors(self.settings.factors)

    @cached_property
    def recorded_items(self) -> pl.DataFrame:
        return described(self.study.recorded)

    @property
    def has_recorded(self) -> bool:
        return self.settings.sources != "asked" and self.recorded_items.height > 0

    @cached_property
    def asked(self) -> npt.NDArray[np.bool_]:
        """[n_items]: those met most in training, of those with recorded answers where there are any."""
        found = np.zeros(self.dataset.n_items, dtype=bool)
        if self.settings.extraction == "collective":
            return np.ones_like(found)
        among = np.ones_like(found)
        if self.recorded_items.height:
            known = set(self.recorded_items["entity"].to_list())
            among = np.array([item_id in known for item_id in self.dataset.item_ids])
        met = np.bincount(self.dataset.events["item_num"].to_numpy()[self.train], minlength=self.dataset.n_items)
        order = np.argsort(-np.where(among, met, -1), kind="stable")
        found[order[: min(self.settings.items, int(among.sum()))]] = True
        return found

    @cached_property
    def windows(self) -> list[list[Seen]]:
        """What the first version of a profile rests on, then what each further one adds."""
        ends = first_places(self.dataset, self.settings.cap)
        found = [seen_windows(self.dataset, np.zeros_like(ends), ends)]
        for _ in range(self.settings.updates if self.settings.extraction == "streaming" else 0):
            full = ends + _WINDOW <= np.diff(self.dataset.histories.offsets)
            found.append(seen_windows(self.dataset, ends, np.where(full, ends + _WINDOW, ends)))
            ends = ends + _WINDOW * full
        return found

    @cached_property
    def versions(self) -> Versions:
        seen = [one for window in self.windows for one in window]
        return Versions.of([one.user_num for one in seen], [one.as_of for one in seen])[0]

    def knowledge(self) -> list[Arm]:
        """The recorded answers, if there are any, and what the LLM says here."""
        found = [self._recorded()] if self.has_recorded else []
        if self.settings.sources != "recorded":
            found.append(self._collective() if self.settings.extraction == "collective" else self._individual())
        if not found:
            raise InputError("There are no recorded answers", where="--set sources", got=self.settings.sources)
        return found

    def raw(self) -> Arm:
        """Items' texts through the encoder; of users the mean of what they liked as of each version."""
        texts = [item_text(self.dataset, n) for n in range(self.dataset.n_items)]
        vectors = self.study.encoder.encode(texts)
        users = np.zeros((len(self.versions.owners), vectors.shape[1]), dtype=np.float32)
        packed, values = self.dataset.histories, self._values
        for row, (user, since) in enumerate(zip(self.versions.owners, self.versions.since, strict=True)):
            begin = packed.offsets[user]
            end = begin + np.searchsorted(packed.times_of(user), since, "right")
            liked = ~(values[begin:end] <= self.settings.threshold)
            if liked.any():
                users[row] = vectors[packed.items[begin:end][liked]].mean(axis=0)
        return self._arm(RAW, users, vectors, Asked())

    def _recorded(self) -> Arm:
        items = vector_matrix(vector_rows(self.recorded_items, self.study.encoder), self.dataset.item_ids)
        users = self._as_of(vector_rows(self.study.recorded.table("profile"), self.study.encoder), items.shape[1])
        return self._arm(RECORDED, users, items, None)

    def _individual(self) -> Arm:
        interview = self.interview(self.study.llm)
        return self.arm(self.study.llm.model, *self.asked_by(interview), interview.asked)

    def arm(self, name: str, items: pl.DataFrame, profiles: pl.DataFrame, asked: Asked) -> Arm:
        """Knowledge of what was said (`asked_by`)."""
        vectors = vector_matrix(vector_rows(items, self.study.encoder), self.dataset.item_ids)
        users = self._as_of(vector_rows(profiles, self.study.encoder), vectors.shape[1])
        return self._arm(name, users, vectors, asked)

    def asked_by(self, interview: Interview) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Rows of facts of the items, and of profiles of the users, that are to be known."""
        items = item_facts(self.dataset, np.flatnonzero(self.asked).astype(np.int32), interview)
        limit = self.settings.users or self.dataset.n_users
        windows = [[one for one in window if one.user_num < limit] for window in self.windows]
        return items, streamed_profiles(self.dataset, windows, interview)

    def _collective(self) -> Arm:
        """Clusters rest on training events alone; whoever comes later gets a place among them without a call."""
        interview = self.interview(self.study.llm)
        seen = seen_only(self.dataset, self.train, self.settings.cap)
        clusters = make_clusters(seen, CollectiveConfig(clusters=self.settings.clusters))
        asked = zip(ask_clusters(seen, clusters, interview), ("user", "item"), strict=True)
        of_users, of_items = (
            vector_matrix(vector_rows(rows, self.study.encoder), cluster_ids(side, len(centres)))
            for (rows, side), centres in zip(asked, (clusters.user_centres, clusters.item_centres), strict=True)
        )
        shares = clusters.user_shares(self.windows[0], self.dataset.n_users)
        users = (shares @ of_users)[self.versions.owners]
        return self._arm(self.study.llm.model, users, clusters.item_shares() @ of_items, interview.asked)

    def interview(self, llm: LLM) -> Interview:
        """Questions to a model, as the settings say."""
        small = _SMALL if self.settings.answer == "closed" else {}
        config = ProfileConfig(
            answer=self.settings.answer, cap=self.settings.cap, liked_above=self.settings.threshold, **small
        )
        return Interview(self.factors, llm, config)

    def _as_of(self, rows: pl.DataFrame, width: int) -> FloatArray:
        """For each version the newest of `rows` that knows no more than it does, [v, width]; zeros: there is none."""
        ids = self.dataset.user_ids
        entities = [ids[user] for user in self.versions.owners]
        found = newest_before(rows, entities, self.versions.since + 1)
        made = np.zeros((len(entities), width), dtype=np.float32)
        vectors = rows["vector"].to_list()
        for place, row in enumerate(found):
            if row is not None:
                made[place] = vectors[row]
        return made

    def _arm(self, name: str, users: FloatArray, items: FloatArray, asked: Asked | None) -> Arm:
        items = items * self.asked[:, None]
        users = users * (self.versions.owners < (self.settings.users or self.dataset.n_users))[:, None]
        users, items = same_space(users, items, self.settings.width)
        return Arm(name, users, items, None if asked is None else asked.tokens, 0.0 if asked is None else asked.seconds)

    @cached_property
    def _values(self) -> FloatArray:
        order = np.argsort(self.dataset.events["user_num"].to_numpy(), kind="stable")
        return self.dataset.events["value"].cast(pl.Float32).fill_null(np.nan).to_numpy()[order]
