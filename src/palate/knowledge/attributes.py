"""Attributes: what the LLM is asked about each item, as YAML files that people write."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from palate.errors import InputError

NAME = r"^[a-z][a-z0-9_]{0,62}$"
_WORDING = ("question", "options", "kind", "guidance", "edge_cases", "examples")


class Example(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    item: str
    answer: str


class Attribute(BaseModel):
    """One question about an item with a closed set of answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=NAME)
    """Lower case, used in tables, restricts (`attr:calm`) and pages."""
    question: str = Field(min_length=5)
    options: tuple[str, ...] = ("Yes", "No")
    """The answers, the one that says that the attribute fits best first."""
    kind: Literal["scale", "multi"] = "scale"
    """scale: exactly one option holds, two (binary) or more in order (ordinal). multi: any number of them may; each
    becomes a yes-or-no attribute of its own (`parts`)."""
    guidance: str = ""
    """What counts and what does not; shown to the LLM and to human raters."""
    edge_cases: tuple[str, ...] = ()
    """Cases that raters disagreed on and how they were settled, a sentence each; shown like the guidance."""
    examples: tuple[Example, ...] = ()
    description: str = ""
    """The attribute as a phrase ("a funny film"): the zero-shot baseline compares its vector with the item's."""
    human_labels: tuple[str, ...] = ()
    """Free tags of people that mean this attribute, for golden sets made from tags."""

    @field_validator("options")
    @classmethod
    def _options_can_be_told_apart(cls, options: tuple[str, ...]) -> tuple[str, ...]:
        if len(options) < 2:
            raise ValueError(f"an attribute needs two options or more, this one has {len(options)}")
        folded = [" ".join(option.split()).casefold() for option in options]
        if not all(folded):
            raise ValueError("an option is blank")
        if len(set(folded)) < len(folded):
            raise ValueError("two options are the same")
        return options

    @model_validator(mode="after")
    def _examples_answer_with_options(self) -> Self:
        for example in self.examples:
            strange = [answer for answer in self._answers(example) if answer not in self.options]
            if strange:
                raise ValueError(
                    f"the example {example.item!r} answers {strange[0]!r}, "
                    f"which is not an option: {', '.join(self.options)}"
                )
        return self

    @model_validator(mode="after")
    def _parts_can_be_named(self) -> Self:
        if self.kind == "multi":
            names = [self._part_name(option) for option in self.options]
            for name, option in zip(names, self.options, strict=True):
                if "," in option:
                    raise ValueError(f"the option {option!r} of a multi holds a comma, which parts answers")
                if name.endswith("_") or not re.fullmatch(NAME, name) or names.count(name) > 1:
                    raise ValueError(f"the option {option!r} of a multi makes no name of its own: {name!r}")
        return self

    @property
    def version(self) -> str:
        """8 hex digits of the wording, all that LLM and raters are shown. Labels keep the version they came from."""
        shown = self.model_dump(mode="json", include=set(_WORDING))
        return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:8]

    def parts(self) -> list[Attribute]:
        """The closed questions that this attribute is asked as: itself, or one for each option of a `multi`."""
        if self.kind == "scale":
            return [self]
        return [self._part(option) for option in self.options]

    def _part(self, option: str) -> Attribute:
        answers = [(example.item, self._answers(example)) for example in self.examples]
        return Attribute(
            name=self._part_name(option),
            question=f"{self.question} Does this answer hold: {option}?",
            guidance=self.guidance,
            edge_cases=self.edge_cases,
            examples=tuple(Example(item=item, answer="Yes" if option in said else "No") for item, said in answers),
            description=f"{self.description or self.name.replace('_', ' ')}: {option}",
            human_labels=(option.lower(),),
        )

    def _part_name(self, option: str) -> str:
        return f"{self.name}_{re.sub(r'[^a-z0-9]+', '_', option.lower()).strip('_')}"

    def _answers(self, example: Example) -> list[str]:
        """The options that an example names: one, or for a `multi` any number, commas between."""
        if self.kind == "scale":
            return [example.answer]
        return [answer.strip() for answer in example.answer.split(",") if answer.strip()]

    def steps(self) -> dict[str, float]:
        """What each option counts as a value 0..1: the first 1, the last 0, equal steps between."""
        last = len(self.options) - 1
        return {option: (last - k) / last for k, option in enumerate(self.options)}

    def fit(self, probabilities: Any) -> Any:
        """How well the attribute fits, 0..1: the mean of `steps` under `probabilities` [n, n_options].

        With two options this is the probability of the first.
        """
        return sum(probabilities[:, k] * step for k, step in enumerate(self.steps().values()))


def load_attributes(folder: Path) -> list[Attribute]:
    """Every attribute of the `*.yaml` files in `folder`, by file name, then in order.

    A file holds one attribute or a list of them.

    Raises:
        InputError: naming file, line or field, for a YAML typo, an unknown field or an unknown option.
    """
    files = sorted(folder.glob("*.yaml")) + sorted(folder.glob("*.yml"))
    if not files:
        raise InputError(
            "There are no attributes to ask about.",
            where=str(folder),
            hint="Write a YAML file with name, question and options there; see docs/guide.md.",
        )
    attributes: list[Attribute] = []
    for file in files:
        found = read_yaml(file)
        for number, entry in enumerate(found if isinstance(found, list) else [found], start=1):
            attributes += _attribute(entry, f"{file}, entry {number}").parts()
    names = [attribute.name for attribute in attributes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError("An attribute is defined twice.", where=str(folder), got=", ".join(twice))
    return attributes


def read_yaml(file: Path) -> Any:
    """The content of a YAML file.

    Raises:
        InputError: naming line and column of a typo, or that the file cannot be read.
    """
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(file)
        problem = getattr(error, "problem", None) or error
        raise InputError("This is not valid YAML.", where=where, got=problem, hint="Mend that line.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("The file could not be read as UTF-8 text.", where=str(file), got=error) from error


def _attribute(entry: Any, where: str) -> Attribute:
    if not isinstance(entry, dict):
        raise InputError(
            "An attribute is a mapping with name, question and options.", where=where, got=type(entry).__name__
        )
    if isinstance(entry.get("name"), str):
        where += f" ({entry['name']})"
    try:
        return Attribute.model_validate(entry)
    except ValidationError as error:
        raise validation_error(error, where, list(Attribute.model_fields)) from error


def validation_error(error: ValidationError, where: str, fields: list[str]) -> InputError:
    """A pydantic error as one of ours: the first problem, its field, and a near miss for a misspelt one."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or "the whole entry"
    hint = f"{error.error_count()} problem(s) in all; this is the first."
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(first["loc"][-1]), fields, 1)
        known = f"Known fields: {', '.join(fields)}."
        hint = f"Did you mean {near[0]!r}? {known}" if near else known
    if first["type"] == "string_type" and isinstance(first.get("input"), bool):
        hint = "YAML reads a bare Yes or No as true or false: put it between quotation marks."
    return InputError(
        f"{first['msg'].removeprefix('Value error, ')}.",
        where=f"{where}, field {field}",
        got=first.get("input"),
        hint=hint,
    )
