"""`Experiment`: what is tried, on whom, for how long, and by what it will be judged, written down before it starts."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from palate.data.assignment import Split
from palate.errors import InputError
from palate.experiments.metrics import Metric, MetricConfig, metric_named
from palate.knowledge.attributes import read_yaml, validation_error

NAME = r"^[a-z0-9][a-z0-9_.-]{0,62}$"
"""Of experiments and variants: no sign that a logged label is made with."""
_TAKEN = ("default", "forced")
Name = Annotated[str, Field(pattern=NAME)]
Share = Annotated[float, Field(gt=0, le=1)]


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Variant(_Declared):
    share: Share
    """Of the experiment's units."""
    settings: dict[str, Any] = {}
    """Laid over palate.yaml's `serving`; empty: served as everybody is."""


class Experiment(_Declared):
    """One experiment. Everything is fixed when it starts (`register.Register` holds it to that)."""

    name: Name
    hypothesis: str = ""
    """What is believed, and why; shown in the report."""
    variants: dict[Name, Variant]
    """The first is the control unless `control` names another."""
    control: str | None = None
    unit: str = "user_id"
    """The column of the log by which people are told apart; servers know `user_id` alone."""
    layer: Name | None = None
    """Experiments of one layer exclude each other by their slots; by default each has a layer of its own."""
    slots: tuple[float, float] = (0.0, 1.0)
    """The stretch of the layer, 0 to 1, whose units are taken."""
    salt: str = ""
    """Changes who gets what; by default the name is the salt."""
    start: AwareDatetime
    end: AwareDatetime
    primary: str = "click_rate"
    """The one metric by which the experiment is won or lost."""
    guardrails: tuple[str, ...] = ()
    """Metrics that must not become worse."""
    metrics: tuple[str, ...] = ()
    """Further metrics, to understand by."""
    define: dict[Name, MetricConfig] = {}
    """Metrics of one's own, beside those of `experiments.metrics`."""
    minimum_effect: float = Field(default=0.01, gt=0)
    """The smallest relative change of the primary metric that would matter: 0.01 is one percent."""
    correction: Literal["holm", "bh"] = "holm"
    """Over metrics and variants: holm keeps the chance of any false finding, bh the share of false ones among them."""
    level: float = Field(default=0.95, gt=0.5, lt=1)
    """Of every interval; 1 - level is the chance of a false finding."""
    slices: tuple[str, ...] = ()
    """Columns of the users' table by whose values the primary metric is looked at, and `newcomer`."""
    overrides: dict[str, str] = {}
    """Unit to variant, for tests; such units are not analysed."""
    people: int = Field(default=10_000, ge=1)
    """Units that are planned, all variants together (`palate experiment plan` says how many it takes): intervals for
    people who peek are shortest there, and hold everywhere."""
    pre_days: float = Field(default=28.0, gt=0)
    """Days before the first exposure that are held against what came after (CUPED)."""

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name in _TAKEN:
            raise ValueError(f"labels of other kinds begin with {name!r}: give it another name")
        return name

    @field_validator("variants")
    @classmethod
    def _variants_can_be_compared(cls, variants: dict[str, Variant]) -> dict[str, Variant]:
        if len(variants) < 2:
            raise ValueError(f"an experiment compares two variants or more, this one has {len(variants)}")
        total = math.fsum(variant.share for variant in variants.values())
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the shares of the variants come to {total:g} and not to 1")
        return variants

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not 0 <= self.slots[0] < self.slots[1] <= 1:
            raise ValueError(f"slots are a stretch of 0 to 1, not {self.slots[0]:g} to {self.slots[1]:g}")
        if self.end <= self.start:
            raise ValueError("the experiment ends before it starts")
        named = [*self.overrides.values(), *([] if self.control is None else [self.control])]
        strange = [name for name in named if name not in self.variants]
        if strange:
            raise ValueError(f"there is no variant {strange[0]!r}: {', '.join(self.variants)}")
        names = self.all_metrics
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the metric {twice[0]!r} is named twice")
        for name in names:
            metric_named(name, self.define)
        return self

    @property
    def baseline(self) -> str:
        """The variant that the others are held against."""
        return self.control or next(iter(self.variants))

    @property
    def all_metrics(self) -> list[str]:
        return [self.primary, *self.guardrails, *self.metrics]

    def metric(self, name: str) -> Metric:
        return metric_named(name, self.define)

    @property
    def shares(self) -> dict[str, float]:
        return {name: variant.share for name, variant in self.variants.items()}

    @property
    def split(self) -> Split:
        """What assignment needs of it."""
        return Split(
            self.name,
            self.salt or self.name,
            self.layer or self.name,
            self.shares,
            *self.slots,
            self.start,
            self.end,
            self.overrides,
        )

    def status(self, moment: datetime) -> Literal["planned", "running", "ended"]:
        return "planned" if moment < self.start else "running" if moment < self.end else "ended"

    def fingerprint(self) -> str:
        """16 hex digits of all that decides who gets what."""
        names = {"name", "unit", "layer", "slots", "salt", "start"}
        said = self.model_dump(mode="json", include=names) | {
            "start": self.start.astimezone(UTC).isoformat(),
            "variants": [[name, variant.share, variant.settings] for name, variant in self.variants.items()],
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def read_experiments(
    declared: dict[str, Any], folder: Path, where: str = "palate.yaml, experiments"
) -> list[Experiment]:
    """Those of a mapping from name to declaration, and of the YAML files of a folder, one each, named by the file.

    Raises:
        InputError: naming file and field: what cannot be, or a name that stands twice.
    """
    found = [experiment_of({"name": name, **(_mapping(said, where))}, where) for name, said in declared.items()]
    for file in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        found.append(experiment_of({"name": file.stem, **_mapping(read_yaml(file), str(file))}, str(file)))
    names = [experiment.name for experiment in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError("An experiment is declared twice.", where=where, got=", ".join(twice))
    return found


def experiment_of(said: dict[str, Any], where: str) -> Experiment:
    """A declaration, checked.

    Raises:
        InputError: naming the field.
    """
    try:
        return Experiment.model_validate(said)
    except ValidationError as error:
        fields = list(
            Variant.model_fields if "variants" in map(str, error.errors()[0]["loc"]) else Experiment.model_fields
        )
        raise validation_error(error, f"{where} ({said['name']})", fields) from error


def _mapping(said: Any, where: str) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise InputError("An experiment is a mapping of fields.", where=where, got=type(said).__name__)
    return said
