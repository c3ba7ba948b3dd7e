"""`palate.yaml`: the one config file. Environment variables override it, as PALATE__SECTION__KEY."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from palate.errors import InputError
from palate.interests.tree import TreeConfig
from palate.interests.vectors import VectorsConfig
from palate.knowledge.agreement_report import Terms
from palate.knowledge.annotate import AnnotateConfig
from palate.knowledge.attributes import read_yaml, validation_error
from palate.knowledge.distil import StudentConfig
from palate.knowledge.media import MediaConfig
from palate.knowledge.route import RouteConfig
from palate.llm.decoding.pools import DecodingConfig
from palate.serving.pipeline_config import PipelineConfig

_PREFIX = "PALATE__"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSection(Section):
    """Either a MovieLens folder or files of items and events; paths are relative to palate.yaml."""

    movielens: Path | None = None
    items: Path | None = None
    events: Path | None = None
    users: Path | None = None
    validation: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of all events: the last but one part in time."""
    test: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of all events: the last part in time."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.movielens is None and (self.items is None or self.events is None):
            raise ValueError("name items and events, or a movielens folder")
        return self


class Price(Section):
    """Money for a million tokens; `cached`: prompt tokens that a server did not read again, if they are cheaper."""

    tokens_in: float = Field(default=0.0, ge=0)
    tokens_out: float = Field(default=0.0, ge=0)
    cached: float | None = Field(default=None, ge=0)


class LLMSection(Section):
    engine: Literal["llama", "openai", "torch"] = "llama"
    model: str | None = None
    """llama, torch: path of a model (default: the packaged SmolLM2-135M-Instruct). openai: the server's model name."""
    adapter: Path | None = None
    """torch: a folder of LoRA weights (`palate tags distil --minutes 15` makes one)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """torch: of the weights; bfloat16 is about twice as fast where the processor computes in it."""
    decoding: DecodingConfig | None = None
    """Write with drafts from earlier answers: torch, several times as fast (strict: the same text); llama, a bit."""
    base_url: str | None = None
    api_key_variable: str = "OPENAI_API_KEY"
    concurrency: int = Field(default=8, ge=1)
    prices: dict[str, Price] = {}
    """Of each model, money for a million tokens."""
    max_calls: int | None = Field(default=None, ge=0)
    """No run makes more calls than this."""
    max_tokens: int | None = Field(default=None, ge=0)
    """No run reads and writes more tokens than this."""
    max_money: float | None = Field(default=None, ge=0)
    """No run spends more than this, in the currency of the prices."""


class AnnotateSection(AnnotateConfig):
    items: int = Field(default=100, ge=1)
    """Items the LLM reads; each is asked about every attribute."""
    seed: int = 0


class RecordedSection(Section):
    folder: Path
    """Answers recorded elsewhere: items.jsonl and users.jsonl, or one .jsonl file of knowledge rows."""
    model: str


class InterestsSection(TreeConfig):
    level: int = Field(default=1, ge=1)
    """The tree level whose pairs the LLM is asked about."""
    titles: Literal["keywords", "judged"] = "keywords"
    """judged: the LLM writes titles too (the step `names`), and what tells held-out items apart best is taken."""
    keep: bool = True
    """Start from the tree before, so that nodes keep their numbers and items their places; false: cut afresh."""
    vectors: VectorsConfig = VectorsConfig()


class ControlsSection(Section):
    queries: int = Field(default=3000, ge=10)
    """Held-out queries, of validation and of test each, that judge what the knowledge is worth."""


class RefreshSection(Section):
    """What `palate refresh` renews."""

    factors: str | None = None
    """By which people are asked about: a YAML file, or `films`, or `goods`; none: nobody is asked about."""
    answer: Literal["closed", "text"] = "text"
    """closed: a choice among each factor's values (small models); text: a note in words."""
    shift: float = Field(default=1.5, gt=0)
    """A taste has moved when recent events lie so much farther from a profile's than chance (1) would have them."""
    window: int = Field(default=20, ge=2)
    """Events at most on either side of that comparison."""
    least: int = Field(default=5, ge=1)
    """Events since the profile without which nobody is asked about again."""
    keep: int = Field(default=5, ge=1)
    """Snapshots that are kept; the current one and that before it in any case."""


class Config(Section):
    data: DataSection
    attributes: Path = Path("attributes")
    golden: Path = Path("golden")
    agreement: Terms = Terms()
    recorded: RecordedSection | None = None
    llm: LLMSection = LLMSection()
    annotate: AnnotateSection = AnnotateSection()
    media: MediaConfig = MediaConfig()
    distil: StudentConfig = StudentConfig()
    route: RouteConfig = RouteConfig()
    interests: InterestsSection = InterestsSection()
    models: dict[str, dict[str, Any]] = {}
    """Model name to parameters that are fixed; what is not named is chosen on validation from a small grid."""
    controls: ControlsSection = ControlsSection()
    refresh: RefreshSection = RefreshSection()
    ranker: dict[str, Any] | None = None
    """Parameters of the ranker of slates (`models.ranking.pair_ranker`); null: none is trained."""
    serving: PipelineConfig = PipelineConfig()
    """What slates are made of: sources, ranker, caps, time."""
    experiments: dict[str, dict[str, Any]] = {}
    """Name to declaration (`experiments.declare.Experiment`); files of the folder `experiments` come on top."""
    verb: str = "chose"
    """What people do with an item, past tense: "because you watched …"."""


def load_config(folder: Path, environment: dict[str, str] | None = None) -> Config:
    """`folder/palate.yaml` with the environment's overrides.

    Raises:
        InputError: naming file, line or field: a missing file, a YAML typo, an unknown or ill-typed setting.
    """
    path = folder / "palate.yaml"
    if not path.is_file():
        raise InputError(
            "This folder is not a Palate project.",
            where=str(path),
            hint="palate init DIR --items F --events F makes one; palate demo DIR makes the sample's.",
        )
    settings = _parsed(path)
    for name, value in (os.environ if environment is None else environment).items():
        if name.startswith(_PREFIX):
            _override(settings, name, value)
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        raise validation_error(error, str(path), _known_fields(error)) from error


def _parsed(path: Path) -> dict[str, Any]:
    settings = read_yaml(path)
    if not isinstance(settings, dict):
        raise InputError("palate.yaml must be a mapping of sections.", where=str(path), got=type(settings).__name__)
    return settings


def _override(settings: dict[str, Any], name: str, value: str) -> None:
    *sections, key = name.removeprefix(_PREFIX).lower().split("__")
    place = settings
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise InputError("This environment variable does not fit palate.yaml.", where=name, got=value)
    place[key] = yaml.safe_load(value)


def _known_fields(error: ValidationError) -> list[str]:
    """The fields of the section in which the first error lies."""
    model: Any = Config
    for part in error.errors()[0]["loc"][:-1]:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return list(model.model_fields)
