"""The policies of the comparison by name, and one run of one of them as figures: what a sweep maps over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from palate.errors import InputError
from palate.experiments.worlds.config import WorldConfig
from palate.experiments.worlds.explorers import AnyInterest, Banded, Chooser, Counted, Explorer, Looked
from palate.experiments.worlds.fit import Fitted, FittedWorld
from palate.experiments.worlds.policies import Policy, PopularItems, RandomItems
from palate.experiments.worlds.rankers import ContentRanker, Ranked, Ranker, SequenceRanker, TowerRanker
from palate.experiments.worlds.simulate import WEEK, Run, simulate
from palate.experiments.worlds.tables import by_meaning, planted_table
from palate.experiments.worlds.world import SyntheticWorld, World
from palate.interests.table import InterestTable

RANDOM, POPULAR, TOWERS, SEQUENCE, BOOSTED = "random", "popularity", "two-tower", "SASRec", "novelty-boosted SASRec"
BANDIT, COUNTS, ANY, LLM = "hierarchical bandit", "count table", "random exploration", "LLM exploration"
NAMES = (RANDOM, POPULAR, TOWERS, SEQUENCE, BOOSTED, BANDIT, COUNTS, ANY, LLM)
EXPLORERS = (BANDIT, COUNTS, ANY, LLM)
UCI = (5, 10, 20, 50, 100, 150, 200)


@dataclass(frozen=True)
class Trial:
    """One policy in one world with one seed. `world` names the assumptions; `fitted` None is a synthetic world."""

    world: str
    config: WorldConfig
    seed: int
    days: int
    policy: str
    error: float = 0.3  # of the table that stands in for a language model
    share: float = 0.3  # of a slate that is explored
    every: int = 20  # days between fits
    steps: int = 150  # of a training, roughly
    ranker: str = SEQUENCE  # behind the explorers: "SASRec", or "content", which learns nothing
    fitted: Fitted | None = None
    table: InterestTable | None = None  # of the fitted world's interests, answered by a real language model


def policy_of(trial: Trial, world: World) -> Policy:
    """A fresh policy of that name.

    Raises:
        InputError: No such policy or ranker.
    """
    ranked: dict[str, Callable[[], Ranker]] = {
        TOWERS: lambda: TowerRanker(trial.steps),
        SEQUENCE: lambda: SequenceRanker(steps=trial.steps),
        BOOSTED: lambda: SequenceRanker(novel=True, steps=trial.steps),
        "content": ContentRanker,
    }
    if trial.ranker not in ranked:
        raise InputError("There is no such ranker", got=trial.ranker, allowed=", ".join(ranked))
    choosers: dict[str, Callable[[], Chooser]] = {
        BANDIT: Banded,
        COUNTS: lambda: Counted(trial.every),
        ANY: AnyInterest,
        LLM: lambda: Looked(_table(trial, world)),
    }
    if trial.policy in choosers:
        return Explorer(ranked[trial.ranker](), choosers[trial.policy](), trial.share, trial.every)
    if trial.policy in ranked:
        return Ranked(ranked[trial.policy](), trial.every)
    if trial.policy in (RANDOM, POPULAR):
        return RandomItems() if trial.policy == RANDOM else PopularItems()
    allowed = ", ".join([*ranked, *choosers, RANDOM, POPULAR])
    raise InputError("There is no such policy", got=trial.policy, allowed=allowed)


def _table(trial: Trial, world: World) -> InterestTable:
    if trial.table is None:
        return planted_table(world, trial.error, trial.seed)
    return by_meaning(world, trial.table)


def figures(run: Run) -> dict[str, float]:
    """What is compared: see `Run`. `satisfied` is of all days, `satisfied_week@W` of week W; `uci@N` counts people."""
    weeks = range(0, run.days - WEEK + 1, WEEK)
    return {
        **{f"satisfied_week@{at // WEEK + 1}": float(run.daily["satisfied"][at : at + WEEK].sum()) for at in weeks},
        **{f"visits_week@{at // WEEK + 1}": float(run.daily["people"][at : at + WEEK].sum()) for at in weeks},
        "novelty": run.novelty,
        "quality": run.quality,
        "novel_quality": run.novel_quality,
        "satisfied": float(run.total("satisfied")),
        "visits": float(run.total("people")),
        "returned": run.returned,
        "discovered": run.discovered,
        **{f"uci@{n}": float(run.uci(n)) for n in UCI},
    }


def try_out(trial: Trial) -> dict[str, float]:
    """One run's figures."""
    world = _world(trial.config, trial.seed, trial.days, trial.fitted)
    return figures(simulate(world, policy_of(trial, world)))


@lru_cache(maxsize=2)
def _world(config: WorldConfig, seed: int, days: int, fitted: Fitted | None) -> World:
    """Policies that are tried in a row in one world share it."""
    if fitted is not None:
        return FittedWorld(fitted, config, seed, days)
    return SyntheticWorld(config, seed, days)
