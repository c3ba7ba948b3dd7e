"""What experiments are judged by: one registry, each metric a sentence over what a person was shown and did.

A person's deeds are rows (`deeds.Deeds`): what was shown, whole slates, and events, each with the time since the person
was first shown something under the experiment. A metric is an aggregate of them, or a ratio of two, compared between
variants over people; or a statistic of all that a variant showed (`Whole`), compared over random groups of people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from palate.experiments.explore_measures import gini

SHOWN, SLATE = "impression", "slate"  # kinds of rows that are no events
CONSUMED = ("event", "view", "click", "play", "purchase", "rating", "like", "save", "share")
POSITIVE, NEGATIVE = ("like", "save", "share", "cart", "purchase"), ("skip", "hide", "dislike")
LIKED = 4.0  # a rating from here is positive
COMPLETED = 0.9  # a play whose value, the share of the item played, is this or more
DAY = 86_400_000_000  # microseconds
WEEK = 7.0

Need = Literal["cluster", "creator", "vector"]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Whole:
    """A statistic of how often each item (or each of its clusters or creators) was shown, never shown ones as 0."""

    of: Literal["item", "creator"]
    statistic: Callable[[Counts], float]


@dataclass(frozen=True)
class Metric:
    """`numerator` and `denominator` aggregate a person's deeds since exposure; no denominator: a mean over people.

    Attributes:
        words: What it means, for people who read the report.
        types: Events without any of which in the log it says nothing.
        needs: Columns of the items' table.
        days: A person counts once so many days have passed since exposure, and only those are looked at.
        before: Aggregates the deeds before exposure, for CUPED; None: nothing to hold it against.
        adds: Two days' figures add up to those of both, so that it can be followed from day to day.
    """

    name: str
    words: str
    numerator: pl.Expr | None = None
    denominator: pl.Expr | None = None
    whole: Whole | None = None
    better: Literal["up", "down"] = "up"
    types: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    days: float = 0.0
    before: pl.Expr | None = None
    adds: bool = False
    winsorise: float | None = None
    quantile: float | None = None


class MetricConfig(BaseModel):
    """A metric of one's own: events of some types, counted or summed, for each person or each impression."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    of: tuple[str, ...] = Field(min_length=1)
    """Event types."""
    take: Literal["count", "value"] = "count"
    """value: the sum of what the events carry."""
    at_least: float | None = None
    """Only events whose value is this or more."""
    per: Literal["person", "impression", "slate", "event"] = "person"
    """event: of the same types, so that a value becomes a mean and `at_least` a share."""
    better: Literal["up", "down"] = "up"
    winsorise: float | None = Field(default=None, gt=0.5, lt=1)
    """Values of people above this quantile of all people are set to it."""
    quantile: float | None = Field(default=None, gt=0, lt=1)
    """Compare this quantile over people, not the mean."""
    days: float = Field(default=0.0, ge=0)
    """Of each person, only so many days from the first exposure; 0: all."""
    words: str = ""

    @model_validator(mode="after")
    def _of_people(self) -> Self:
        if self.per != "person" and (self.quantile is not None or self.winsorise is not None):
            raise ValueError("quantile and winsorise are for values of people: per: person")
        if self.quantile is not None and self.winsorise is not None:
            raise ValueError("a quantile needs no winsorising")
        return self

    def metric(self, name: str) -> Metric:
        kind = pl.col("event").is_in(self.of)
        counted = kind if self.at_least is None else kind & (pl.col("value") >= self.at_least).fill_null(value=False)
        amount = counted.sum() if self.take == "count" else pl.col("value").filter(counted).sum()
        below = {"impression": _count(SHOWN), "slate": _count(SLATE), "event": kind.sum()}
        said = f"{'sum of the values' if self.take == 'value' else 'number'} of {', '.join(self.of)}"
        said += "" if self.at_least is None else f" of at least {self.at_least:g}"
        return Metric(
            name,
            self.words or f"{said} per {self.per}",
            amount,
            below.get(self.per),
            better=self.better,
            types=self.of,
            days=self.days,
            before=amount,
            adds=self.quantile is None and not self.days,
            winsorise=self.winsorise,
            quantile=self.quantile,
        )


def _count(*types: str) -> pl.Expr:
    return pl.col("event").is_in(types).sum()


def _positive() -> pl.Expr:
    event = pl.col("event")
    return event.is_in(POSITIVE) | ((event == "rating") & (pl.col("value") >= LIKED)).fill_null(value=False)


def _clusters() -> pl.Expr:
    return pl.col("cluster").filter(pl.col("event").is_in(CONSUMED)).drop_nulls().n_unique()


def _positive_rate() -> Metric:
    words = f"likes, saves, shares, carts, purchases and ratings of {LIKED:g} or more, per impression"
    done = _positive().sum()
    types = (*POSITIVE, "rating")
    return Metric("positive_rate", words, done, _count(SHOWN), types=types, before=done, adds=True)


def _novel_ratio() -> Metric:
    words = "share of impressions from interests that the person had not taken anything of before the experiment"
    novel = (pl.col("novel") & (pl.col("event") == SHOWN)).sum()
    known = (pl.col("cluster").is_not_null() & (pl.col("event") == SHOWN)).sum()
    return Metric("novel_impression_ratio", words, novel, known, needs=("cluster",), before=_clusters(), adds=True)


def _interests() -> Metric:
    words = "different interests that a person took something of"
    return Metric("interests_per_user", words, _clusters(), types=CONSUMED, needs=("cluster",), before=_clusters())


def uci(n: int) -> Metric:
    """UCI@n of Wang et al. 2024 (arXiv 2405.16363): who took something of `n` interests or more within 7 days."""
    words = f"share of people who took something of {n} different interests or more in their first 7 days"
    reached = (_clusters() >= n).cast(pl.Float64)
    before = _clusters()
    return Metric(f"uci@{n}", words, reached, types=CONSUMED, needs=("cluster",), days=WEEK, before=before)


def _return_rate() -> Metric:
    words = "share of people who are seen again one to seven days after their first exposure"
    back = (pl.col("since") >= DAY).any().cast(pl.Float64)
    return Metric("return_rate", words, back, days=WEEK + 1, before=pl.len())


def _distance() -> Metric:
    words = "how unlike the items of a slate are: mean of 1 - cosine over all pairs"
    apart = pl.col("value").filter(pl.col("event") == SLATE)
    return Metric("intra_list_distance", words, apart.sum(), apart.count(), needs=("vector",), adds=True)


def covered(counts: Counts) -> float:
    """Share with any count."""
    return float((counts > 0).mean()) if len(counts) else float("nan")


def _simple(name: str, words: str, better: Literal["up", "down"] = "up", **said: object) -> Callable[[], Metric]:
    return lambda: MetricConfig.model_validate({"words": words, "better": better, **said}).metric(name)


def _wholly(
    name: str, words: str, of: Literal["item", "creator"], statistic: Callable[[Counts], float]
) -> Callable[[], Metric]:
    needs: tuple[Need, ...] = ("creator",) if of == "creator" else ()
    better: Literal["up", "down"] = "down" if statistic is gini else "up"
    return lambda: Metric(name, words, whole=Whole(of, statistic), needs=needs, better=better)


METRICS: dict[str, Callable[[], Metric]] = {
    "click_rate": _simple("click_rate", "clicks per impression", of=["click"], per="impression"),
    "completion_rate": _simple(
        "completion_rate", f"share of plays to {COMPLETED:.0%} or more", of=["play"], at_least=COMPLETED, per="event"
    ),
    "positive_rate": _positive_rate,
    "negative_rate": _simple(
        "negative_rate", "skips, hides and dislikes per impression", "down", of=list(NEGATIVE), per="impression"
    ),
    "events_per_user": _simple("events_per_user", "things done per person", of=list(CONSUMED), winsorise=0.999),
    "novel_impression_ratio": _novel_ratio,
    "interests_per_user": _interests,
    "return_rate": _return_rate,
    "intra_list_distance": _distance,
    "coverage": _wholly("coverage", "share of the catalogue that a group of people is shown", "item", covered),
    "gini": _wholly("gini", "how unevenly impressions fall on items: 0 evenly, 1 all on one", "item", gini),
    "creator_exposure": _wholly(
        "creator_exposure", "share of creators whose items a group of people is shown", "creator", covered
    ),
    "creator_gini": _wholly("creator_gini", "how unevenly impressions fall on creators", "creator", gini),
}
"""`uci@N` for any N comes on top, and what an experiment defines for itself."""


def metric_named(name: str, own: Mapping[str, MetricConfig] | None = None) -> Metric:
    """A metric of the registry, `uci@N`, or one of an experiment's own.

    Raises:
        ValueError: There is none of that name.
    """
    if own and name in own:
        return own[name].metric(name)
    if name in METRICS:
        return METRICS[name]()
    kind, at, n = name.partition("@")
    if kind == "uci" and at and n.isascii() and n.isdecimal() and 0 < int(n[:6]) == int(n):
        return uci(int(n))
    raise ValueError(f"there is no metric {name!r}: {', '.join([*METRICS, 'uci@N', *(own or {})])}")
