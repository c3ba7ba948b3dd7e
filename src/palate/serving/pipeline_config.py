"""`PipelineConfig`: what a slate is made of and how, as `palate.yaml` has it under `serving`."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from palate.errors import InputError
from palate.interests.explore import ExploreConfig
from palate.serving.affinity import AffinityConfig
from palate.serving.opened import NEWEST
from palate.serving.sources.registry import source


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SimilarConfig(Part):
    """Source `similar`: neighbours of what was chosen last."""

    last: int = Field(default=3, ge=1, description="last items of the history whose neighbours are candidates")
    level: int = Field(
        default=1, ge=0, description="of the interest tree: neighbours are looked for in an item's own node; 0: all"
    )


class FreshConfig(Part):
    """Source `fresh`: the nearest among new items."""

    days: float = Field(default=30.0, gt=0, description="age (`created_at`) up to which an item is new")
    most: int = Field(default=1000, ge=1, le=NEWEST, description="newest items among which the nearest are looked for")


class CapsConfig(Part):
    """Most items of one kind in a slate; null: any number. A slate is not left short for a cap's sake.

    "At most n of a kind" is what YouTube held its slates to before determinantal point processes (Wilhelm et al.,
    CIKM 2018, section 3): plain to explain, and what it does to a place is known exactly.
    """

    leaf: int | None = Field(default=None, ge=1, description="of one leaf of the interest tree")
    category: int | None = Field(default=None, ge=1, description="of one category; an item counts for all of its own")
    source: int | None = Field(default=None, ge=1, description="of one source")


class BudgetConfig(Part):
    """Milliseconds after which a slate goes on with what there is; null: however long it takes."""

    candidates: float | None = Field(default=1000.0, gt=0, description="for all sources together")
    rank: float | None = Field(default=500.0, gt=0, description="for the ranker")


class PipelineConfig(Part):
    """Sources with their shares, the ranker, what keeps a slate mixed, and the time that each stage has."""

    sources: dict[str, float] = Field(
        default={"sequence": 0.6, "exploration": 0.2, "attribute": 0.2},
        description="shares of the slate; a source that has nothing leaves its places to the others",
    )
    probe: int = Field(
        default=0,
        ge=0,
        description="leaves of the interest tree that are read for unrestricted candidates; 0: all, exactly",
    )
    attribute: AffinityConfig = AffinityConfig()
    explore: ExploreConfig = ExploreConfig()
    similar: SimilarConfig = SimilarConfig()
    fresh: FreshConfig = FreshConfig()
    rank: Literal["off", "within", "across"] = Field(
        default="within",
        description="where the snapshot has a ranker, it orders the items within each source (shares hold), or across "
        "all of them (shares only say how many each proposes)",
    )
    caps: CapsConfig = CapsConfig()
    epsilon: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="chance that a place goes to any of the candidates, all alike, so that logs tell of other policies",
    )
    budget: BudgetConfig = BudgetConfig()
    variants: dict[str, dict[str, Any]] = Field(
        default={},
        description="by label, what differs from all this: `bold: {sources: {exploration: 1}, caps: {leaf: 2}}`; "
        "experiments and the header X-Palate-Variant name them",
    )

    def variant(self, label: str) -> PipelineConfig:
        """The pipeline with what differs in that variant; a section that is named keeps what is not."""
        settings = self.model_dump(exclude={"variants"})
        for name, value in self.variants[label].items():
            merged = isinstance(value, dict) and isinstance(settings.get(name), dict) and name != "sources"
            settings[name] = settings[name] | value if merged else value
        return PipelineConfig.model_validate(settings)

    @field_validator("sources")
    @classmethod
    def _known(cls, shares: dict[str, float]) -> dict[str, float]:
        for name, share in shares.items():
            try:
                source(name)
            except InputError as error:
                raise ValueError(f"{error.what}: {name} (there are {error.allowed})") from error
            if not 0 <= share < float("inf"):
                raise ValueError(f"the share of {name} must be 0 or more")
        return shares

    @model_validator(mode="after")
    def _variants_fit(self) -> Self:
        for label in self.variants:
            try:
                self.variant(label)
            except ValidationError as error:
                first = error.errors()[0]
                place = ".".join(map(str, ("variants", label, *first["loc"])))
                raise ValueError(f"{place}: {first['msg']}") from error
        return self
