"""`ProofSettings`, and what a sweep over worlds, seeds and policies comes to: means with intervals, paired by seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from palate.data.dataset import Dataset
from palate.errors import InputError
from palate.evaluation.bootstrap import Interval
from palate.experiments.settings import Settings
from palate.experiments.worlds.config import WorldConfig
from palate.experiments.worlds.fit import Fitted, fit_world, interests_by_category
from palate.experiments.worlds.lineup import EXPLORERS, LLM, NAMES, SEQUENCE, Trial
from palate.experiments.worlds.tables import asked_table
from palate.interests.table import InterestTable
from palate.llm import request

SYNTHETIC, FITTED = "synthetic", "fitted to the data"
HEAD = ("quality", "satisfied", "returned", "discovered")
Found = dict[tuple[str, str], list[dict[str, float]]]  # world and policy to the figures of each seed


class ProofSettings(Settings):
    """How large, how long, and what is varied."""

    people: int = Field(default=1000, ge=20, description="of a world at the beginning")
    items: int = Field(default=2000, ge=50, description="of a synthetic world")
    days: int = Field(default=60, ge=7, description="simulated")
    synthetic: int = Field(default=3, ge=0, description="synthetic worlds of the main comparison, each a planted truth")
    fitted: bool = Field(default=True, description="also a world fitted to the data")
    sweep: bool = Field(default=True, description="also vary the assumptions, one at a time")
    sweep_people: int = Field(default=400, ge=20, description="of the worlds of the sweep")
    sweep_days: int = Field(default=30, ge=7, description="of the worlds of the sweep")
    sweep_ranker: Literal["SASRec", "content"] = Field(
        default="content", description="behind the explorers of the sweep; content learns nothing and costs nothing"
    )
    error: float = Field(default=0.3, ge=0, le=1, description="of the table that stands in for an LLM")
    share: float = Field(default=0.3, ge=0, le=1, description="of a slate that explorers explore")
    every: int = Field(default=20, ge=1, description="days after which models learn anew")
    steps: int = Field(default=150, ge=1, description="of a training of a model, roughly")
    least: int = Field(
        default=15, ge=1, description="items that two categories must share to be an interest of the fitted world"
    )
    table: Literal["planted", "asked"] = Field(
        default="planted", description="in the fitted world: by the planted links, or asked of the language model"
    )
    played: int = Field(
        default=0,
        ge=0,
        description="people of the fitted world whom the language model plays, 2 or more; 0: none",
    )
    played_days: int = Field(default=7, ge=7, description="that it plays them")
    processes: int = Field(default=1, ge=1, description="local ones that runs are spread over")
    ray: bool = Field(default=False, description="spread the runs over a Ray cluster instead")


@dataclass(frozen=True)
class Assumption:
    """One thing that is varied: a field of `WorldConfig`, or the table's `error`."""

    name: str
    field: str
    values: tuple[float, ...]


ASSUMPTIONS = (
    Assumption("cost of novelty", "novelty_cost", (0.0, 1.0, 3.0)),
    Assumption("satiation", "satiation", (0.0, 0.25, 1.0)),
    Assumption("share of interests unknown", "unknown", (0.2, 0.6, 0.8)),
    Assumption("error of the table", "error", (0.0, 0.3, 0.9)),
    Assumption("position bias", "position_bias", (0.0, 0.15, 1.0)),
    Assumption("links that do not look alike", "surprise", (0.0, 0.5, 1.0)),
)


def main_trials(settings: ProofSettings, seeds: int, fitted: Fitted | None, table: InterestTable | None) -> list[Trial]:
    """Every policy in every world with every seed. A synthetic world's seeds are truths of their own.

    Only `LLM` looks anything up in the table: the others' runs are the same with any.
    """
    config = WorldConfig(people=settings.people, items=settings.items)
    worlds: list[tuple[str, Fitted | None, int]] = [(SYNTHETIC, None, seeds * settings.synthetic)]
    worlds += [(FITTED, fitted, seeds)] if fitted is not None else []
    common = {"error": settings.error, "share": settings.share, "every": settings.every, "steps": settings.steps}
    return [
        Trial(name, config, seed, settings.days, policy, **common, fitted=of, table=own)  # type: ignore[arg-type]
        for name, of, count in worlds
        for seed in range(count)
        for policy in NAMES
        for own in [table if of is not None and policy == LLM else None]
    ]


def swept_trials(settings: ProofSettings, seeds: int) -> list[Trial]:
    """Each assumption at each value, the others as they are; explorers and the ranker alone."""
    config = WorldConfig(people=settings.sweep_people, items=settings.items)
    common = (settings.error, settings.share, settings.every, settings.steps, settings.sweep_ranker)
    base = Trial("", config, 0, settings.sweep_days, "", *common)
    policies = (SEQUENCE if settings.sweep_ranker == SEQUENCE else "content", *EXPLORERS)
    return [
        replace(_varied(base, each, value), seed=seed, policy=policy)
        for each in ASSUMPTIONS
        for value in each.values
        for seed in range(seeds)
        for policy in policies
    ]


def _varied(trial: Trial, assumption: Assumption, value: float) -> Trial:
    named = replace(trial, world=f"{assumption.name} {value:g}")
    if assumption.field == "error":
        return replace(named, error=value)
    return replace(named, config=trial.config.model_copy(update={assumption.field: value}))


def played_trial(settings: ProofSettings, fitted: Fitted | None, table: InterestTable | None) -> Trial | None:
    """The world in which the language model plays people; None where it plays nobody.

    Raises:
        InputError: The world is not fitted, so that there are no titles to show, or has a single person.
    """
    if not settings.played:
        return None
    where, got = "--set played", settings.played
    if fitted is None:
        hint = "Leave out --set fitted=false."
        raise InputError("A synthetic world has no titles to show", where=where, got=got, hint=hint)
    if got < 2:
        raise InputError("A world has two people at least", where=where, got=got, allowed="0, or 2 or more")
    config = WorldConfig(people=got)
    return Trial(
        FITTED, config, 0, settings.played_days, "", settings.error, settings.share, fitted=fitted, table=table
    )


def fitted_of(dataset: Dataset, settings: ProofSettings) -> Fitted | None:
    """What the fitted world needs of the data."""
    return fit_world(dataset, *interests_by_category(dataset, settings.least)) if settings.fitted else None


def table_of(fitted: Fitted | None, settings: ProofSettings, llm: request.LLM) -> InterestTable | None:
    """The language model's table of the fitted world's interests, by their names.

    Raises:
        InputError: The world is not fitted, so that there is nothing to ask about.
    """
    if settings.table == "planted":
        return None
    if fitted is None:
        raise InputError("A synthetic world has no names to ask about", where="--set table", got="asked")
    return asked_table(llm, list(fitted.names))


def collected(runs: Iterable[tuple[Trial, dict[str, float]]]) -> Found:
    """Figures by world and policy, in the order of seeds."""
    found: Found = {}
    for trial, figures in runs:
        found.setdefault((trial.world, trial.policy), []).append(figures)
    return found


def mean_of(values: npt.ArrayLike) -> Interval:
    """A mean over seeds with Student's 95% interval; NaN ends for one seed."""
    from scipy.stats import t

    data = np.asarray(values, dtype=np.float64)
    mean = float(data.mean())
    if len(data) < 2:
        return Interval(mean, float("nan"), float("nan"))
    margin = float(t.ppf(0.975, len(data) - 1) * data.std(ddof=1) / np.sqrt(len(data)))
    return Interval(mean, mean - margin, mean + margin)


def difference(found: Found, world: str, one: str, other: str, figure: str) -> Interval:
    """`one` less `other`, seed by seed, relative to the mean of `other`."""
    a, b = ([each[figure] for each in found[world, name]] for name in (one, other))
    scale = float(np.mean(b)) or float("nan")
    return mean_of((np.array(a) - np.array(b)) / abs(scale))


def ordering(found: Found, world: str, figure: str) -> list[str]:
    """Policies by the mean of a figure, the best first."""
    names = [policy for name, policy in found if name == world]
    return sorted(names, key=lambda name: -float(np.mean([each[figure] for each in found[world, name]])))


@dataclass(frozen=True)
class Flip:
    """Two policies that change places as an assumption changes, each way beyond the interval."""

    assumption: str
    figure: str
    winner: str
    loser: str
    first: float  # value at which the winner is ahead
    then: float  # value at which it is behind
    ahead: Interval
    behind: Interval


def flips(found: Found, figures: Sequence[str] = HEAD) -> list[Flip]:
    """Every pair that is told apart at one value of an assumption, and the other way round at another."""
    listed = []
    for each in ASSUMPTIONS:
        worlds = {value: f"{each.name} {value:g}" for value in each.values}
        policies = [policy for name, policy in found if name == worlds[each.values[0]]]
        for figure in figures:
            for one, other in combinations(policies, 2):
                said = {v: difference(found, world, one, other, figure) for v, world in worlds.items()}
                ahead = [v for v, interval in said.items() if interval.low > 0]
                behind = [v for v, interval in said.items() if interval.high < 0]
                if ahead and behind:
                    first, then = ahead[0], behind[-1]
                    listed.append(Flip(each.name, figure, one, other, first, then, said[first], said[then]))
    return listed
