"""A user's project: its folder, its config and the parts they name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl

from palate.data.dataset import Dataset
from palate.data.movielens import read_movielens, read_movielens_tags
from palate.data.readers import read_dataset
from palate.data.splits import Split, split_global_time
from palate.errors import InputError
from palate.knowledge.attributes import Attribute, load_attributes
from palate.knowledge.draft_groups import groups_of
from palate.knowledge.golden_set import GoldenSet, read_golden_set
from palate.knowledge.media import MediaReader
from palate.llm.budget import Budget
from palate.llm.decoding.pools import GroupOf
from palate.llm.decoding.vllm import serve_command
from palate.llm.encoders import Encoder, MiniLMEncoder
from palate.llm.engines.llama import LlamaEngine
from palate.llm.engines.openai_http import OpenAIEngine
from palate.llm.engines.torch_lm import TorchEngine
from palate.llm.ledger import Ledger
from palate.llm.prices import Prices
from palate.llm.request import Engine
from palate.project.config import Config, LLMSection, Price, load_config
from palate.project.landed import Joined, Landing
from palate.project.secret import kept_secret
from palate.project.steps import file_digest


class Project:
    """Opens what the config names, each at first use.

    Raises:
        InputError: from any property, naming the file that is missing or wrong.
    """

    def __init__(self, folder: Path, config: Config | None = None) -> None:
        self.folder = folder
        self.config = config or load_config(folder)
        self.state = folder / ".palate"
        self.workers: int | None = None  # of a Ray cluster that asks; None: this process does

    def close(self) -> None:
        """Close what was opened."""
        for name in ("engine", "ledger"):
            if name in self.__dict__:
                getattr(self, name).close()

    def path(self, path: Path) -> Path:
        return path if path.is_absolute() else self.folder / path

    @cached_property
    def data_files(self) -> list[Path]:
        data = self.config.data
        named = [data.movielens] if data.movielens else [data.items, data.events, data.users]
        files = [self.path(path) for path in named if path is not None]
        for file in files:
            if not file.exists():
                raise InputError(
                    "A file that palate.yaml names does not exist.",
                    where=str(file),
                    hint="Correct section data of palate.yaml; paths are relative to it.",
                )
        return files

    @cached_property
    def own_data(self) -> Dataset:
        """What the project's files say."""
        if self.config.data.movielens:
            return read_movielens(self.data_files[0])
        return read_dataset(*self.data_files)

    @cached_property
    def landing(self) -> Landing:
        """What servers landed up to now."""
        return Landing(self.state / "landing")

    @cached_property
    def joined(self) -> Joined:
        """The files' data with what servers landed."""
        return self.landing.joined(self.own_data)

    @property
    def dataset(self) -> Dataset:
        return self.joined.dataset

    @cached_property
    def media(self) -> MediaReader:
        """Reads what items name as media, relative to the data's folder."""
        first = self.data_files[0]
        return MediaReader(first if first.is_dir() else first.parent, self.config.media)

    @cached_property
    def data_key(self) -> str:
        """Hash of all that happened and of all items."""
        return file_digest(*self.data_files) + self.landing.key

    @cached_property
    def items_key(self) -> str:
        """Hash of the items alone: what is known of these need not be made again when something happens."""
        first = self.data_files[0]
        return file_digest(first / "movies.csv" if self.config.data.movielens else first) + self.landing.items_key

    @cached_property
    def split(self) -> Split:
        return split_global_time(self.dataset, self.config.data.validation, self.config.data.test)

    @cached_property
    def tags(self) -> pl.DataFrame | None:
        """People's free tags, where the data set has them: item_id, tag."""
        return read_movielens_tags(self.data_files[0]) if self.config.data.movielens else None

    @cached_property
    def attributes(self) -> list[Attribute]:
        return load_attributes(self.path(self.config.attributes))

    @property
    def has_golden(self) -> bool:
        return any(self.path(self.config.golden).glob("*.csv"))

    @cached_property
    def golden(self) -> GoldenSet:
        return read_golden_set(self.path(self.config.golden), self.dataset.item_ids, self.attributes)

    @property
    def attribute_facts(self) -> list[dict[str, Any]]:
        return [attribute.model_dump(mode="json") for attribute in self.attributes]

    @cached_property
    def salt(self) -> str:
        """The secret from which the marks around items' texts are made (`knowledge.guard`), drawn once.

        Kept beside the ledger: with another one no question is found there again.
        """
        return kept_secret(self.state / "salt")

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.state / "ledger.sqlite")

    @cached_property
    def engine(self) -> Engine:
        """The engine of this process; drafts by group need the data, which nothing else here reads."""
        decoding = self.config.llm.decoding
        if decoding is None or decoding.pool != "grouped":
            return self.make_engine()
        return engine_of(self.config.llm, self.folder.resolve(), groups_of(self.dataset))

    @property
    def make_engine(self) -> Callable[[], Engine]:
        """Makes the engine anew, here or in a process that is sent this."""
        return partial(engine_of, self.config.llm, self.folder.resolve())

    def prices(self, model: str) -> Prices:
        return prices_of(self.config.llm, model)

    @cached_property
    def budget(self) -> Budget:
        """Of this run: all that is asked through this project in this process."""
        section = self.config.llm
        return Budget(f"run {uuid4().hex}", section.max_calls, section.max_tokens, section.max_money)

    @cached_property
    def encoder(self) -> Encoder:
        return MiniLMEncoder()


def engine_of(section: LLMSection, folder: Path, group_of: GroupOf | None = None) -> Engine:
    """The engine that a config names; paths are relative to `folder`. `group_of`: see `TorchEngine`.

    Raises:
        InputError: A model, address or setting that cannot be.
    """
    if section.adapter is not None and section.engine != "torch":
        raise InputError("Only the engine torch reads an adapter.", where="palate.yaml, llm", got=section.engine)
    if section.dtype != "float32" and section.engine != "torch":
        hint = "llm.engine: torch; other engines take the weights as their file or server has them."
        raise InputError("Only the engine torch chooses its dtype.", where="palate.yaml, llm.dtype", hint=hint)
    if section.decoding is not None and section.engine == "openai":
        hint = f"A server does that itself; with vLLM: {serve_command(section.model or 'MODEL', section.decoding)}"
        raise InputError("Only local models write with drafts.", where="palate.yaml, llm.decoding", hint=hint)
    if section.engine != "openai":
        model = None if section.model is None else folder / section.model
        if section.engine == "llama":
            return LlamaEngine(model, decoding=section.decoding)
        adapter = section.adapter and folder / section.adapter
        drafts = folder / ".palate" / "drafts"
        return TorchEngine(
            model,
            dtype=section.dtype,
            adapter=adapter,
            decoding=section.decoding,
            group_of=group_of,
            drafts=drafts,
        )
    if section.base_url is None or section.model is None:
        raise InputError("An LLM over HTTP needs base_url and model.", where="palate.yaml, section llm")
    return OpenAIEngine(
        section.base_url,
        section.model,
        section.api_key_variable,
        section.concurrency,
        prices=prices_of(section, section.model),
    )


def prices_of(section: LLMSection, model: str) -> Prices:
    """Of palate.yaml; nothing where it names no price."""
    return Prices(**section.prices.get(model, Price()).model_dump())
