"""What a recipe is given and what it gives back: a `Study` in, a `Report` of tables and charts out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl

from palate.data.dataset import Dataset
from palate.knowledge.attributes import Attribute
from palate.knowledge.tables import Knowledge
from palate.llm.asking import LedgeredLLM
from palate.llm.encoders import Encoder

Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True)
class Study:
    """Data, a language model and what is known already.

    Attributes:
        labels: People's words for items (item_id, label, source, user_id), None where the data have none.
        attributes: What to ask about items; empty: a recipe makes its own out of `labels`.
        recorded: Knowledge that was answered elsewhere, to be compared with what is asked here.
        workspace: A folder that outlives the run, for what may be computed once (models, vectors).
        settings: A recipe's own numbers as given on the command line (`--set name=value`).
    """

    dataset: Dataset
    llm: LedgeredLLM
    encoder: Encoder
    workspace: Path
    labels: pl.DataFrame | None = None
    attributes: tuple[Attribute, ...] = ()
    recorded: Knowledge = field(default_factory=Knowledge)
    seeds: int = 3
    settings: Mapping[str, str] = field(default_factory=dict)
    progress: Progress = lambda what, done, total: None


@dataclass(frozen=True)
class ReportTable:
    """Rows of plain values; a float with its interval is three keys: `auc`, `auc_low`, `auc_high`."""

    title: str
    rows: Sequence[Mapping[str, Any]]
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """A picture of rows.

    intervals: one dot with error bars a row, `y` its metric, `x` its category, `series` its colour. lines and points:
    numbers `x` and `y`, one line or cloud for each `series`.
    """

    title: str
    kind: Literal["intervals", "lines", "points"]
    rows: Sequence[Mapping[str, Any]]
    x: str
    y: str
    series: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Report:
    """What a recipe found. `verdict` says in plain words what was won and what was not, the worst news first."""

    title: str
    verdict: Sequence[str]
    tables: Sequence[ReportTable] = ()
    charts: Sequence[Chart] = ()
    notes: Sequence[str] = ()
