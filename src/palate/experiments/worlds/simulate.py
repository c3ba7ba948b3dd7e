"""`simulate`: one policy, one world, day by day. A day is a few array operations over everybody who comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from palate.data.dataset import IntArray
from palate.errors import InputError
from palate.experiments.worlds.crowd import Answers, Crowd, Feedback, Shown
from palate.experiments.worlds.log import DAY, EPOCH, WorldLog
from palate.experiments.worlds.policies import Policy
from palate.experiments.worlds.truth import stream
from palate.experiments.worlds.world import Asked, World

Counts = npt.NDArray[np.int64]
WEEK = 7
DAILY = ("people", "sessions", "impressions", "taken", "satisfied", "novel", "novel_taken", "novel_satisfied", "gone")


@dataclass(frozen=True)
class Run:
    """What came of a policy in a world; counts are by day, [days].

    people: who came; impressions: places that held an item; novel: those of an interest that the person had never taken
    anything of; gone: who has left for good by then. Interests are the planted ones, not those that a policy sees.
    """

    policy: str
    days: int
    daily: dict[str, Counts]
    log: WorldLog
    week: IntArray  # [people], planted interests of which something was taken in the last 7 days
    returned: float  # share of everybody there a week before the end, left or not, who came in the last 7 days
    discovered: float  # mean over everybody of interests they have, did not know, and took something of that satisfied

    def total(self, what: str) -> int:
        return int(self.daily[what].sum())

    @property
    def novelty(self) -> float:
        """Share of impressions of interests new to the person."""
        return self.total("novel") / max(1, self.total("impressions"))

    @property
    def quality(self) -> float:
        """Share of impressions that satisfied."""
        return self.total("satisfied") / max(1, self.total("impressions"))

    @property
    def novel_quality(self) -> float:
        """Share of novel impressions that satisfied."""
        return self.total("novel_satisfied") / max(1, self.total("novel"))

    def uci(self, n: int) -> int:
        """People who took something of at least `n` interests in the last 7 days (UCI@N)."""
        return int((self.week >= n).sum())


@dataclass
class _Tally:
    days: int
    counts: dict[str, Counts] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = {name: np.zeros(self.days, np.int64) for name in DAILY}

    def add(self, day: int, items: IntArray, answer: Feedback) -> None:
        found = {
            "sessions": len(items),
            "impressions": int((items >= 0).sum()),
            "taken": int(answer.taken.sum()),
            "satisfied": int(answer.satisfied.sum()),
            "novel": int(answer.novel.sum()),
            "novel_taken": int((answer.novel & answer.taken).sum()),
            "novel_satisfied": int((answer.novel & answer.satisfied).sum()),
        }
        for name, count in found.items():
            self.counts[name][day] += count


def simulate(
    world: World,
    policy: Policy,
    days: int | None = None,
    answers: Answers | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Run:
    """Live `days` in a world with a policy; the same seeds give the same run, bit for bit.

    Args:
        answers: Who says what is taken; None: the world's model.
        progress: Called after each day with days done and in all.

    Raises:
        InputError: The world was not made for so many days.
    """
    days = world.days if days is None else days
    if not 1 <= days <= world.days:
        raise InputError("The world cannot be lived in for so long", got=days, allowed=f"1 to {world.days} days")
    crowd, log, tally = world.crowd(), world.log(policy.name), _Tally(days)
    policy.begin(world.catalogue, log.n_people, world.seed)
    for day in range(days):
        log.before = world.log(day=day).before  # of who has arrived
        policy.learn(log, day)
        people, sessions = crowd.comers(day)
        tally.counts["people"][day] = len(people)
        for session in range(int(sessions.max(initial=0))):
            _round(world, policy, crowd, log, tally, people[sessions > session], day, session, answers)
        crowd.night(day, people)
        tally.counts["gone"][day] = int(crowd.gone.sum())
        progress(day + 1, days)
    found = discovered(world, log, crowd)
    return Run(
        policy.name, days, tally.counts, log, week_interests(world, log, days), _returned(world, log, days), found
    )


def _round(
    world: World,
    policy: Policy,
    crowd: Crowd,
    log: WorldLog,
    tally: _Tally,
    people: IntArray,
    day: int,
    session: int,
    answers: Answers | None,
) -> None:
    """One session of everybody who has one more today."""
    asked = Asked(people, crowd.histories(people), day)
    slates = policy.slates(asked, world.config.places, stream(world.seed, "policy", day, session))
    _check(slates.items, people, world, day, policy.name)
    looked = crowd.looked(people, slates.items.shape[1], day, session)
    answer = crowd.answer(Shown(people, slates.items, looked, day, session), answers)
    policy.hear(asked, slates, answer.taken, answer.satisfied)
    log.add(people, slates.items, slates.propensity, answer.taken, answer.satisfied, day, session)
    tally.add(day, slates.items, answer)


def _check(items: IntArray, people: IntArray, world: World, day: int, name: str) -> None:
    size = int(world.catalogue.sizes[day])
    if items.shape != (len(people), world.config.places) or items.max(initial=-1) >= size or items.min(initial=0) < -1:
        got = f"shape {items.shape}, items up to {items.max(initial=-1)}"
        allowed = f"shape {(len(people), world.config.places)}, items -1 to {size - 1} on day {day}"
        raise InputError("A policy gave slates that cannot be shown", where=name, got=got, allowed=allowed)


def week_interests(world: World, log: WorldLog, days: int) -> IntArray:
    """Distinct planted interests that each person took something of in the last 7 days, [people]."""
    rows = log.rows
    late = rows.taken & (rows.time >= EPOCH + (days - WEEK) * DAY)
    interests = world.truth.items.nearest[rows.item[late], 0].astype(np.int64)
    pairs = np.unique(rows.person[late] * np.int64(world.config.interests) + interests)
    return np.bincount(pairs // world.config.interests, minlength=log.n_people).astype(np.int32)


def discovered(world: World, log: WorldLog, crowd: Crowd) -> float:
    """Interests that people have and did not know, of which something satisfied: the mean over everybody there."""
    rows, people = log.rows, world.truth.people
    interests = world.truth.items.nearest[rows.item[rows.satisfied], 0]
    found = np.zeros(people.affinity.shape, dtype=bool)
    found[rows.person[rows.satisfied], interests] = True
    return float((found & (people.affinity > 0) & ~people.known).sum() / len(people.arrives))


def _returned(world: World, log: WorldLog, days: int) -> float:
    rows = log.rows
    came = np.unique(rows.person[rows.time >= EPOCH + (days - WEEK) * DAY])
    there = np.flatnonzero(world.truth.people.arrives <= days - WEEK)
    return float(np.isin(there, came).mean()) if len(there) else float("nan")
