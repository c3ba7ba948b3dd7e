"""Refresh: what came since the last time is asked about, within a budget; the next snapshot is built and used."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
import polars as pl

from palate.errors import BudgetError
from palate.knowledge.as_of import newest
from palate.knowledge.factors import load_factors
from palate.knowledge.fresh import CATALOGUE, visit
from palate.knowledge.profiles import Interview, ProfileConfig, notes, seen_windows, user_profiles
from palate.knowledge.shifts import shifts
from palate.knowledge.store import in_schema
from palate.llm.budget import Budget
from palate.llm.noting import NotingLLM
from palate.llm.plan import plan
from palate.llm.request import LLM
from palate.project.knowledge_steps import read_kind
from palate.project.lock import alone
from palate.project.progress import Bars
from palate.project.project import Project
from palate.project.run import Run
from palate.project.visits import Visits
from palate.serving.landing import ELSEWHERE, compact, land, land_items
from palate.serving.state import State
from palate.serving.versions import current_name, prune

T = TypeVar("T")
_CHUNK = 16  # items or users asked about before what was said of them is kept


@dataclass(frozen=True)
class Limits:
    """What one refresh may spend beyond what palate.yaml says of a run; None: without limit."""

    calls: int | None = None
    tokens: int | None = None
    money: float | None = None


@dataclass(frozen=True)
class Due:
    """What must be asked, the most valuable first: items, each with its rows of `fresh.DUE`, and user_nums."""

    items: list[pl.DataFrame]
    users: list[int]
    drifting: int  # of the users, those who have a profile
    why: dict[str, int]  # items by reason


class Refresh:
    """One refresh of a project. `due` asks nothing and changes nothing."""

    def __init__(self, project: Project, bars: Bars, limits: Limits | None = None, state: State | None = None) -> None:
        self.project, self.bars, self.state = project, bars, state
        self.limits = limits or Limits()
        self.run, self.visits = Run(project, bars), Visits(project)
        self.config = project.config.refresh
        project.budget = _budget(project, self.limits)
        if self.visits.catalogue is None:  # the first time: what the files hold is no news
            self.visits.catalogue = visit(project.own_data, None, datetime.now(UTC)).select(list(CATALOGUE))

    def land(self) -> None:
        """Have what the state holds landed, server or none; before anything is read."""
        landing = self.project.state / "landing"
        if self.state is not None:
            if not (landing / ELSEWHERE).exists():  # else they would never come to where the server sends them
                land(self.state, landing)
            land_items(self.state, landing)
        compact(landing)

    @cached_property
    def due(self) -> Due:
        """Items: those that events name most first. Users: those whose taste moved most, then those without profile.

        Items of the project's sample are the step's own: it asks about these again by itself.
        """
        dataset, sampled = self.project.dataset, set(self.run.sampled)
        rows = self.visits.due().filter(~pl.col("item_id").is_in(list(sampled)))
        counts = dataset.item_counts
        parts = rows.partition_by("item_id", maintain_order=True) if rows.height else []
        parts.sort(key=lambda part: -int(counts[dataset.item_nums[part["item_id"][0]]]))
        drifting, unknown = self._users()
        why = dict(rows.group_by("why").agg(pl.col("item_id").n_unique()).sort("why").iter_rows())
        return Due(parts, [*drifting, *unknown], len(drifting), why)

    def plan(self) -> dict[str, Any]:
        """What would be asked about items and users, and what it comes to at most."""
        due, project = self.due, self.project
        noting = NotingLLM(project.engine.model)
        if due.items:
            self.visits.ask(pl.concat(due.items), noting)
        if due.users:
            self._profiles(due.users, noting)
        found = plan(noting.requests, project.ledger, noting.model, project.prices(noting.model))
        return {
            **self._found(),
            "questions": found.requests,
            "calls": found.calls,
            "tokens_at_most": found.tokens_in + found.tokens_out,
            "cost_at_most": found.money,
            "seconds": found.seconds,
        }

    def renew(self) -> dict[str, Any]:
        """Ask what is due as far as the budget goes; what was answered is kept, and costs nothing again."""
        due, project = self.due, self.project
        labels, items_ended = spending(_chunks(due.items), self._ask_items)
        asked_of = {entity for rows in labels if rows.height for entity in rows["entity"]}
        if due.items:
            rows = [part for part in labels if part.height]
            self.visits.remember(pl.concat(due.items), pl.concat(rows, how="diagonal") if rows else pl.DataFrame())
        profiles, users_ended = spending(_chunks([] if items_ended else due.users), self._ask_users)
        users = {entity for rows in profiles for entity in rows["entity"]}
        if self.state is not None:
            still = {part["item_id"][0] for part in due.items} - asked_of
            known = project.dataset.item_nums
            self.state.asked([item for item in self.state.queued() if item in known and item not in still])
        return {
            "items_answered": len(asked_of),
            "users_answered": len(users),
            "budget_ended": items_ended or users_ended,
        }

    def build(self, keep: int) -> dict[str, Any]:
        """Make the steps that changed, check and use the snapshot, and remove old ones but `keep`."""
        folder = self.project.state / "snapshots"
        before = current_name(folder)
        made = self.run.all()
        return {
            "steps_made": [artefact.name for artefact in made.steps.made if artefact.state == "made"],
            "snapshot": made.snapshot.detail["name"],
            "snapshot_before": before,
            "snapshots_removed": prune(folder, keep),
        }

    def all(self) -> dict[str, Any]:
        """Everything, and what it came to."""
        begun, before = time.perf_counter(), self._spent()
        found = self._found()
        answer = {**found, **self.renew(), **self.build(self.config.keep)}
        spent = {name: value - before[name] for name, value in self._spent().items()}
        return {**answer, **spent, "seconds": time.perf_counter() - begun}

    def _found(self) -> dict[str, Any]:
        due = self.due
        users = {"users_drifting": due.drifting, "users_without_profile": len(due.users) - due.drifting}
        return {"landed": self.project.joined.facts(), "items_due": len(due.items), "items_why": due.why, **users}

    def _spent(self) -> dict[str, float]:
        totals = self.project.ledger.totals()
        return {
            "calls": sum(row["calls"] for row in totals),
            "tokens": sum(row["tokens_in"] + row["tokens_out"] for row in totals),
            "cost": sum(row["cost"] for row in totals),
        }

    @cached_property
    def _llm(self) -> LLM:
        return self.run.asking("refresh")

    def _ask_items(self, items: Sequence[pl.DataFrame]) -> pl.DataFrame:
        return self.visits.ask(pl.concat(items), self._llm)

    def _ask_users(self, users: Sequence[int]) -> pl.DataFrame:
        rows = self._profiles(users, self._llm)
        self.visits.keep_profiles(rows)
        return rows

    def _profiles(self, users: Sequence[int], llm: LLM) -> pl.DataFrame:
        """Each user's next profile: of the one before, and of what was chosen since (streaming extraction)."""
        assert self.config.factors is not None
        dataset, config = self.project.dataset, ProfileConfig(answer=self.config.answer)
        factors = load_factors(self._factors_file(self.config.factors))
        ends = np.diff(dataset.histories.offsets)
        starts = ends.copy()
        for user in users:
            cut = np.searchsorted(dataset.histories.times_of(user), self._written.get(user, -(2**62)), side="right")
            starts[user] = max(int(cut), int(ends[user]) - config.cap)
        interview = Interview(factors, llm, config, self.project.salt)
        return user_profiles(dataset, seen_windows(dataset, starts, ends), interview, self._texts)

    def _factors_file(self, name: str) -> str:
        file = self.project.path(Path(name))
        return str(file) if file.is_file() else name

    @cached_property
    def _newest(self) -> pl.DataFrame:
        """The newest profile of each user, whoever wrote it."""
        rows = [in_schema("profile", read_kind(self.run.recorded, "profile")), self.visits.profiles]
        return newest(pl.concat(rows).filter(pl.col("as_of").is_not_null()))

    @cached_property
    def _written(self) -> dict[int, int]:
        """By user_num the time of the last event that the profile rests on, in microseconds."""
        nums = self.project.dataset.user_nums
        pairs = self._newest.select("entity", pl.col("as_of").to_physical()).iter_rows()
        return {nums[entity]: moment for entity, moment in pairs if entity in nums}

    @cached_property
    def _texts(self) -> dict[int, str]:
        nums = self.project.dataset.user_nums
        return {nums[entity]: text for entity, text in notes(self._newest).items() if entity in nums}

    def _users(self) -> tuple[list[int], list[int]]:
        if self.config.factors is None:
            return [], []
        dataset, config = self.project.dataset, self.config
        vectors = np.load(self.run.vectors.folder / "vectors.npy")
        moved = shifts(dataset, vectors, self._written, config.window, config.least)
        drifting = [each.user_num for each in moved if each.amount >= config.shift]
        counts = np.diff(dataset.histories.offsets)
        without = [user for user in np.argsort(-counts, kind="stable").tolist() if user not in self._written]
        return drifting, [user for user in without if counts[user] >= config.least]


def refreshed(
    folder: Path, bars: Bars, limits: Limits | None = None, state: State | None = None, plan: bool = False
) -> dict[str, Any]:
    """Refresh the project in `folder`, alone, and say what it came to; `plan`: what it would come to.

    Raises:
        PalateError: Another refresh of it is running; retryable.
        BudgetError: A step could not be made within the budget. What was answered is kept, and the snapshot too.
    """
    with alone(folder / ".palate" / "refresh.lock", "A refresh of this project"), closing(Project(folder)) as project:
        work = Refresh(project, bars, limits, state)
        work.land()
        return work.plan() if plan else work.all()


def spending(
    chunks: Sequence[Sequence[T]], ask: Callable[[Sequence[T]], pl.DataFrame]
) -> tuple[list[pl.DataFrame], bool]:
    """What `ask` says of chunk after chunk, and whether the budget ended it.

    Then the chunk is asked one by one: what of it was answered before the end is in the ledger, and costs nothing.
    """
    parts: list[pl.DataFrame] = []
    for chunk in chunks:
        try:
            parts.append(ask(chunk))
        except BudgetError:
            single = [[one] for one in chunk] if len(chunk) > 1 else []
            return [*parts, *spending(single, ask)[0]], True
    return parts, False


def _chunks(things: Sequence[T]) -> list[Sequence[T]]:
    return [things[at : at + _CHUNK] for at in range(0, len(things), _CHUNK)]


def _budget(project: Project, limits: Limits) -> Budget:
    """The narrower of what palate.yaml and the command allow."""
    section = project.config.llm

    def narrower(one: Any, other: Any) -> Any:
        return min((limit for limit in (one, other) if limit is not None), default=None)

    return Budget(
        f"refresh {uuid4().hex}",
        narrower(section.max_calls, limits.calls),
        narrower(section.max_tokens, limits.tokens),
        narrower(section.max_money, limits.money),
    )
