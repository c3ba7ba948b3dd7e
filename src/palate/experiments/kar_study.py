"""What the recipe `kar` compares: the samples behind the leak guard, the arms of knowledge, and a judge that forgets
nothing: each (backbone, arm, seed) is trained once, its test predictions are kept in the workspace.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from palate.data.dataset import FloatArray
from palate.data.samples import (
    Samples,
    clicked_samples,
    first_places,
    from_place,
    rated_samples,
    split_by_user,
    with_training,
)
from palate.data.splits import TEST, TRAIN, VALIDATION, has_clock, split_in_time
from palate.errors import InputError
from palate.experiments.controls import Arm
from palate.experiments.kar_arms import KarArms
from palate.experiments.kept import KeptPredictions, digest_of
from palate.experiments.settings import Settings
from palate.experiments.study import Study
from palate.models.adapters.as_of import AsOfVectors
from palate.models.adapters.discrete import Discrete, DiscreteConfig, collisions
from palate.models.adapters.registry import fitted
from palate.models.ranking.features import Features, FeaturesConfig
from palate.models.ranking.ranker import Ranker, RankerConfig
from palate.models.ranking.registry import BACKBONES

MULTI_TASK = ("mmoe", "stem")
Flags = npt.NDArray[np.bool_]


class KarSettings(Settings):
    """Of the recipe `kar`; on the command line `--set backbones=deepfm,din`."""

    backbones: str = "all"
    """Names with commas between, or `all` nine."""
    adapter: str = "hybrid-expert"
    factors: str = "films"
    """A packaged list of factors (`films`, `goods`) or a YAML file."""
    answer: Literal["closed", "text"] = "closed"
    """How the LLM answers: a choice for each factor (small models), or a note."""
    extraction: Literal["individual", "collective", "streaming"] = "individual"
    sources: Literal["both", "asked", "recorded"] = "both"
    """Knowledge of the LLM at hand, of the recorded answers, or of both where there are any."""
    items: int = Field(default=1000, ge=0)
    """Items that are asked about, those met most in training; the rest have no knowledge in any arm."""
    users: int = Field(default=0, ge=0)
    """Users that are asked about, the first of the data; the rest have no knowledge in any arm. 0: all."""
    cap: int = Field(default=30, ge=1)
    """Most events of a user that a profile rests on."""
    clusters: int = Field(default=60, ge=1)
    """Of users and of items, for collective extraction."""
    updates: int = Field(default=2, ge=0)
    """Further versions of a profile, for streaming extraction."""
    split: Literal["time", "user"] = "time"
    """time: by time among the samples. user: whole users held out, as the paper does; leaks the future."""
    threshold: float = 3.0
    """Values above it are liked."""
    negatives: int = Field(default=1, ge=1)
    """For each event of a log without values."""
    rows: int = Field(default=0, ge=0)
    """Most training rows, a random sample; 0: all."""
    width: int = Field(default=64, ge=1)
    """Principal axes of the knowledge that the adapter reads."""
    history: int = Field(default=30, ge=1)
    epochs: int = Field(default=10, ge=1)
    batch: int = Field(default=512, ge=1)
    """Rows of a step; fewer where there are few rows."""
    hide: float = Field(default=0.9, ge=0, le=1)
    """Share of training rows in which a vector is hidden, of users and of items each: each of a few hundred people
    has a vector of their own, by which a model learns them by heart."""
    skip: str = "tmdb_vote_average,tmdb_vote_count,text_source,sid_minionerec"
    """Columns that no model reads: what was gathered after the events, or made by an LLM."""

    @property
    def chosen(self) -> tuple[str, ...]:
        """The backbones' names.

        Raises:
            InputError: One is unknown, or has several tasks.
        """
        known = tuple(name for name in BACKBONES if name not in MULTI_TASK)
        names = known if self.backbones == "all" else tuple(filter(None, self.backbones.split(",")))
        strange = [name for name in names if name not in known]
        if strange or not names:
            raise InputError(
                "There is no such backbone", where="--set backbones", got=strange, allowed=", ".join(known)
            )
        return names


@dataclass
class KarStudy:
    """Samples, arms and the judge. Everything is made once, at first use."""

    study: Study
    settings: KarSettings
    predictions: dict[tuple[str, str], dict[int, FloatArray]] = field(default_factory=dict)
    """By backbone and arm, then seed: probabilities of the test rows."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By arm, of training and predicting, whenever that was."""

    @cached_property
    def samples(self) -> Samples:
        """Rows behind what a profile may know: place and time are later than the last event that it rests on."""
        dataset, settings = self.study.dataset, self.settings
        part = split_by_user(dataset) if settings.split == "user" else None
        if dataset.events["value"].is_not_null().any():
            found = rated_samples(dataset, settings.threshold, part)
        else:
            found = clicked_samples(dataset, settings.negatives, part=part)
        first = first_places(dataset, settings.cap)
        last = dataset.histories.times[np.maximum(dataset.histories.offsets[:-1] + first - 1, 0)]
        found = from_place(found, first)
        found = found.take(found.times > last[found.users])
        if settings.split == "time" and has_clock(dataset):
            found = Samples(**{**vars(found), "part": _cut(found.times)})
        return with_training(found, settings.rows)

    @property
    def split(self) -> str:
        if self.settings.split == "user":
            return "by user, 80:10:10 (leaks the future; the paper's)"
        dataset = self.study.dataset
        return "by time among the samples, 80:10:10" if has_clock(dataset) else split_in_time(dataset).name

    @cached_property
    def features(self) -> Features:
        skip = tuple(filter(None, self.settings.skip.split(",")))
        return Features(self.study.dataset, self.samples, FeaturesConfig(history=self.settings.history, skip=skip))

    @cached_property
    def arms(self) -> KarArms:
        counts = np.bincount(self.samples.train.items, minlength=self.study.dataset.n_items)
        return KarArms(self.study, self.settings, counts, self._train_events())

    def _train_events(self) -> Flags:
        """Of each event of the data whether it is earlier than all held-out rows, or of the training part."""
        dataset, samples = self.study.dataset, self.samples
        if self.settings.split == "user":
            return np.asarray(split_by_user(dataset) == TRAIN)
        if has_clock(dataset):
            times = dataset.events["timestamp"].to_physical().to_numpy()
            return np.asarray(times < samples.times[samples.part != TRAIN].min())
        return np.asarray(split_in_time(dataset).part == TRAIN)

    def slices(self) -> dict[str, Flags]:
        """Test rows by how often their item, and their user, were met in the training rows; and by what is known."""
        train, test = self.samples.train, self.samples.test
        items = np.bincount(train.items, minlength=self.study.dataset.n_items)[test.items]
        users = np.bincount(train.users, minlength=self.study.dataset.n_users)[test.users]
        asked = self.arms.asked[test.items]
        return {
            "items met under 5 times": items < 5,
            "items met 5 to 19 times": (items >= 5) & (items < 20),
            "items met 20 times or more": items >= 20,
            "users without a training row": users == 0,
            "users with training rows": users > 0,
            "items asked about": asked,
        }

    def facts(self) -> list[dict[str, object]]:
        """How much there is to learn from and to judge on."""
        samples, asked = self.samples, self.arms.asked
        rows: dict[str, float] = {name: len(getattr(samples, name)) for name in ("train", "validation", "test")}
        rows |= {
            "test users": len(np.unique(samples.test.users)),
            "versions of profiles": len(self.arms.versions.owners),
        }
        rows |= {
            "items with knowledge": int(asked.sum()),
            "test rows with a known item": asked[samples.test.items].mean(),
        }
        return [{"what": name, "n": value} for name, value in rows.items()]

    def collisions(self, arms: Sequence[Arm]) -> list[dict[str, object]]:
        """Of discrete IDs, how many users and items share all theirs with another; nothing for other adapters."""
        if self.settings.adapter != "discrete":
            return []
        known = {
            (arm.name, side): matrix for arm in arms for side, matrix in (("users", arm.user), ("items", arm.item))
        }
        found = {key: Discrete.prepared(m, DiscreteConfig()) for key, m in known.items() if m is not None and m.any()}
        counted = {key: collisions(codes.astype(np.int64)) for key, codes in found.items()}
        return [{"knowledge": name, "of": side, **vars(c), "share": c.share} for (name, side), c in counted.items()]

    def judge(self, backbone: str) -> Callable[[Arm, int], FloatArray]:
        """Trains that backbone with an arm and a seed, or reads what it said before; probabilities of the test rows."""

        def judged(arm: Arm, seed: int) -> FloatArray:
            kept = self.predictions.setdefault((backbone, arm.name), {})
            if seed not in kept:
                kept[seed] = self._judged(backbone, arm, seed)
            return kept[seed]

        return judged

    def _judged(self, backbone: str, arm: Arm, seed: int) -> FloatArray:
        settings = self.settings
        config = RankerConfig(seed=seed, epochs=settings.epochs, batch=settings.batch, hide=settings.hide, threads=1)

        def made() -> FloatArray:
            ranker = self._ranker(backbone, arm, config)
            ranker.fit(self.features, self.samples.train, self.samples.validation)
            return ranker.predict(self.samples.test)

        kept = KeptPredictions(self.study.workspace / "predictions")
        found, seconds = kept.get(f"{backbone}-{seed}-{self._key(backbone, arm, config)}", made)
        self.seconds[arm.name] = self.seconds.get(arm.name, 0.0) + seconds
        return found

    def _ranker(self, backbone: str, arm: Arm, config: RankerConfig) -> Ranker:
        if arm.user is None and arm.item is None:
            return Ranker(backbone, config)
        dataset, versions = self.study.dataset, self.arms.versions
        users = np.zeros((len(versions.owners), 0), np.float32) if arm.user is None else arm.user
        items = np.zeros((dataset.n_items, 0), np.float32) if arm.item is None else arm.item
        make, users, items = fitted(self.settings.adapter, users, items, self.arms.counts)
        return Ranker(backbone, config, adapter=make, vectors=AsOfVectors(users, items, versions))

    def _key(self, backbone: str, arm: Arm, config: RankerConfig) -> str:
        settings = (backbone, self.settings.adapter, self.settings.history, self.settings.skip, config.model_dump())
        digest = hashlib.sha256(repr(settings).encode())
        digest.update(self._data)
        for matrix in (arm.user, arm.item):
            digest.update(b"none" if matrix is None else np.ascontiguousarray(matrix).tobytes())
        return digest.hexdigest()[:24]

    @cached_property
    def _data(self) -> bytes:
        return digest_of(self.samples)


def _cut(times: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
    """80:10:10 in time; all rows of a moment go to the later part.

    Raises:
        InputError: Too few different times.
    """
    ordered = np.sort(times)
    first, second = (ordered[int(len(ordered) * share)] if len(ordered) else 0 for share in (0.8, 0.9))
    part = np.where(times >= second, TEST, np.where(times >= first, VALIDATION, TRAIN)).astype(np.int8)
    if {TRAIN, VALIDATION, TEST} - set(part.tolist()):
        raise InputError(
            "Too few rows come after the profiles to be split by time",
            got=f"{len(times)} rows",
            hint="lower --set cap, or take a longer log",
        )
    return part


def stacked(predictions: Mapping[tuple[str, str], Mapping[int, FloatArray]], arm: str) -> FloatArray:
    """All backbones and seeds of an arm, [backbones * seeds, n], in the order in which they were asked for."""
    return np.stack([found[seed] for (_, name), found in predictions.items() if name == arm for seed in sorted(found)])
