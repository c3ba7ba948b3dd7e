"""What the recipe `rella` compares: rows, the events that are read of each history, and DIN on every choice of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl
from pydantic import Field

from palate.data.chosen import NONE, Chosen, at_random, half_similar, latest, most_similar, strictly_before
from palate.data.dataset import FloatArray
from palate.data.samples import Places, Samples, clicked_samples, rated_samples, with_training
from palate.data.splits import TEST, TRAIN, VALIDATION
from palate.errors import InputError
from palate.experiments.kept import KeptPredictions, digest_of
from palate.experiments.settings import Settings
from palate.experiments.study import Study
from palate.knowledge.profiles import ProfileConfig, shown_item
from palate.models.ranking.features import Features, FeaturesConfig
from palate.models.ranking.ranker import Ranker, RankerConfig

RECENT, RETRIEVED, RANDOM, KIND = "recent", "retrieved", "random", "same categories"
HALVES = "half recent, half retrieved"
FORMS = (RECENT, RETRIEVED, RANDOM)
BOTH = "both"
# What an LLM is tuned on: the forms of each row, and the form that it is chosen and tested by.
TUNINGS = {**{form: ((form,), form) for form in FORMS}, BOTH: ((RECENT, RETRIEVED), RETRIEVED)}
FULL, FEW = "latest", "the LLM's rows"  # DIN as it is, and DIN that learns from no more than the LLM is tuned on


class RellaSettings(Settings):
    """Of the recipe `rella`; on the command line `--set k=10`."""

    k: int = Field(default=10, ge=1)
    """Events of a history that are read, in every form."""
    least: int = Field(default=20, ge=1)
    """Events before a row, or it is left out: with K or fewer all forms are the same."""
    pairs: int = Field(default=120, ge=2)
    """Test rows that the LLM is asked about, a random sample."""
    tune: int = Field(default=64, ge=2)
    """Training rows that the LLM is tuned on, a random sample; `both` shows each in two forms."""
    tunings: str = "recent,retrieved,random,both"
    """What the LLM is tuned on, one adapter each."""
    looked: int = Field(default=48, ge=2)
    """Validation rows by whose AUC the step of a tuning is chosen."""
    minutes: float = Field(default=20.0, ge=0)
    """Most time to tune the local model, all tunings together, what looks measure left out; 0: no tuning."""
    epochs: int = Field(default=1, ge=1)
    """Passes over the rows in both forms; over those in one form twice as many, so that steps are as many."""
    learning_rate: float = Field(default=1e-3, gt=0)
    title_chars: int = Field(default=50, ge=10)
    threshold: float = 3.0
    """Values above it are liked."""
    negatives: int = Field(default=1, ge=1)
    """For each event of a log without values."""
    rows: int = Field(default=0, ge=0)
    """Most training rows of DIN, a random sample; 0: all."""
    full: int = Field(default=30, ge=1)
    """Latest events that DIN reads as it is."""
    ctr_epochs: int = Field(default=10, ge=1)
    batch: int = Field(default=512, ge=1)
    skip: str = "tmdb_vote_average,tmdb_vote_count,text_source,sid_minionerec"
    """Columns that no model reads: what was gathered after the events, or made by an LLM."""
    local: str | None = None
    """The model to tune, a GGUF file or a folder; the packaged one by default."""

    @property
    def chosen(self) -> tuple[str, ...]:
        """The names of `tunings`.

        Raises:
            InputError: One is unknown.
        """
        names = tuple(filter(None, self.tunings.split(",")))
        strange = [name for name in names if name not in TUNINGS]
        if strange or not names:
            allowed = ", ".join(TUNINGS)
            raise InputError("There is no such tuning", where="--set tunings", got=strange, allowed=allowed)
        return names


@dataclass
class RellaStudy:
    """Everything is made once, at first use."""

    study: Study
    settings: RellaSettings
    seconds: dict[str, float] = field(default_factory=dict)
    """Of training DIN by arm, whenever that was."""
    notes: list[str] = field(default_factory=list)

    @cached_property
    def samples(self) -> Samples:
        """Rows with a past that is long enough, and nothing in it of the row's own moment.

        Raises:
            InputError: There are none to train on, to choose by or to test on.
        """
        dataset, settings = self.study.dataset, self.settings
        valued = dataset.events["value"].is_not_null().any()
        found = rated_samples(dataset, settings.threshold) if valued else clicked_samples(dataset, settings.negatives)
        found = strictly_before(dataset, found)
        found = with_training(found.take(found.ends - found.starts >= settings.least), settings.rows)
        missing = {TRAIN, VALIDATION, TEST} - set(found.part.tolist())
        if missing:
            names = ", ".join(name for number, name in enumerate(("train", "validation", "test")) if number in missing)
            hint = f"lower --set least, now {settings.least} events before a row"
            raise InputError("Too few rows have a history", got=f"none in {names}", hint=hint)
        return found

    @cached_property
    def forms(self) -> dict[str, Chosen]:
        """All rows, by which K events are read of them."""
        dataset, samples, k = self.study.dataset, self.samples, self.settings.k
        texts = [shown_item(dataset, number, ProfileConfig()) for number in range(dataset.n_items)]
        vectors = self.study.encoder.encode(texts)
        found = {
            RECENT: latest(samples, k),
            RETRIEVED: most_similar(dataset, samples, vectors, k),
            RANDOM: at_random(samples, k),
            HALVES: half_similar(dataset, samples, vectors, k),
        }
        kinds = _flags(dataset.items["categories"])
        return found | ({KIND: most_similar(dataset, samples, kinds, k)} if kinds.any() else {})

    @cached_property
    def test(self) -> Places:
        """Rows that the LLM is asked about."""
        return self._some(TEST, self.settings.pairs)

    @cached_property
    def tuning(self) -> Places:
        return self._some(TRAIN, self.settings.tune)

    @cached_property
    def looked(self) -> Places:
        return self._some(VALIDATION, self.settings.looked)

    @cached_property
    def values(self) -> FloatArray:
        """Of each event of the packed histories; NaN: none."""
        events = self.study.dataset.events.select("user_num", pl.col("value").cast(pl.Float32).fill_null(np.nan))
        return events.sort("user_num", maintain_order=True)["value"].to_numpy()

    def din(self) -> dict[str, FloatArray]:
        """Probabilities of all test rows, [seeds, n], by what DIN reads; and of DIN that learns from few rows."""
        few = np.sort(np.concatenate([self.tuning, self.looked, np.flatnonzero(self.samples.part == TEST)]))
        read: dict[str, Samples] = {FULL: self.samples, **self.forms, FEW: self.forms[RETRIEVED].take(few)}
        found = {}
        for done, (name, samples) in enumerate(read.items()):
            self.study.progress("DIN", done, len(read))
            found[name] = np.stack([self._din(name, samples, seed) for seed in range(self.study.seeds)])
        self.study.progress("DIN", len(read), len(read))
        return found

    def _din(self, name: str, samples: Samples, seed: int) -> FloatArray:
        settings, train = self.settings, samples.train
        batch = min(settings.batch, max(8, len(train) // 16))
        config = RankerConfig(seed=seed, epochs=settings.ctr_epochs, batch=batch, threads=1)
        reads = FeaturesConfig(history=settings.full, skip=tuple(filter(None, settings.skip.split(","))))

        def made() -> FloatArray:
            features = Features(self.study.dataset, samples, reads)
            return Ranker("din", config).fit(features, train, samples.validation).predict(samples.test)

        key = hashlib.sha256(digest_of(samples) + repr((config, reads)).encode()).hexdigest()[:24]
        found, seconds = KeptPredictions(self.study.workspace / "predictions").get(f"din-{seed}-{key}", made)
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        return found

    def _some(self, part: int, n: int) -> Places:
        rows = np.flatnonzero(self.samples.part == part)
        return np.sort(np.random.default_rng((part, 0)).permutation(rows)[:n])

    def facts(self) -> dict[str, float]:
        """How much there is to judge on, and how far the choices of events differ."""
        rows, packed = self.test, self.study.dataset.histories
        kinds = self.study.dataset.items["categories"].to_list()
        samples = self.samples.take(rows)
        facts = {name: float(len(getattr(self.samples, name))) for name in ("train", "validation", "test")}
        facts |= {"rows asked about": float(len(rows)), "their users": float(len(np.unique(samples.users)))}
        facts |= {"share liked": float(samples.labels[:, 0].mean())}
        facts["events before a row, median"] = float(np.median(samples.ends - samples.starts))
        recent = self.forms[RECENT].places[rows]
        for name in FORMS:
            places = self.forms[name].places[rows]
            same = (places[:, :, None] == recent[:, None, :]) & (places[:, :, None] != NONE)
            facts[f"share of the {name} that are recent"] = float(same.any(2).sum() / (places != NONE).sum())
            met = [{kind for p in row if p != NONE for kind in kinds[packed.items[p]] or ()} for row in places.tolist()]
            facts[f"categories in the {name}"] = float(np.mean([len(each) for each in met]))
        return facts


def _flags(lists: pl.Series) -> FloatArray:
    """A column for each category, [n_items, categories]."""
    known = lists.to_list()
    names = {name: place for place, name in enumerate(sorted({name for listed in known for name in listed or ()}))}
    flags = np.zeros((len(known), max(1, len(names))), dtype=np.float32)
    for row, listed in enumerate(known):
        flags[row, [names[name] for name in listed or ()]] = 1.0
    return flags
