"""The same policies before people of the stated model and before people that a language model plays: one order?"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

from palate.experiments.worlds.fit import FittedWorld
from palate.experiments.worlds.lineup import LLM, POPULAR, RANDOM, Trial, policy_of
from palate.experiments.worlds.llm_people import LLMPeople
from palate.experiments.worlds.simulate import Run, simulate
from palate.llm import request

POLICIES = (RANDOM, POPULAR, "content", LLM)
PLACES = 10  # of a slate: every place that is looked at is a question


def played_rows(trial: Trial, llm: request.LLM) -> list[dict[str, Any]]:
    """Each policy twice in one fitted world: shares of impressions taken and satisfying, said by either.

    Args:
        trial: Of a fitted world, its policy aside.
    """
    fitted = trial.fitted
    assert fitted is not None
    config = trial.config.model_copy(update={"places": PLACES})
    trial = replace(trial, config=config, ranker="content")
    world = FittedWorld(fitted, config, trial.seed, trial.days)
    rows = []
    for name in POLICIES:
        by_model = simulate(world, policy_of(replace(trial, policy=name), world))
        people = LLMPeople(llm, world.titles, fitted.names)
        by_llm = simulate(world, policy_of(replace(trial, policy=name), world), answers=people)
        row: dict[str, Any] = {"policy": name}
        for who, run in (("stated model", by_model), ("language model", by_llm)):
            row |= {f"taken, {who}": _share(run, "taken"), f"satisfied, {who}": _share(run, "satisfied")}
        rows.append(row | {"questions": people.asked, "failed": people.failed})
    return rows


def order_said(rows: list[dict[str, Any]]) -> str:
    """In how many pairs of policies either kind of people satisfies the same one more."""
    same = tied = 0
    for one, other in combinations(rows, 2):
        stated, played = (one[f"satisfied, {w}"] - other[f"satisfied, {w}"] for w in ("stated model", "language model"))
        same += stated * played > 0
        tied += stated * played == 0
    pairs = len(rows) * (len(rows) - 1) // 2
    return (
        f"People played by the language model put {same} of {pairs} pairs of policies in the order of the stated "
        f"model, {tied} level."
    )


def _share(run: Run, what: str) -> float:
    return run.total(what) / max(1, run.total("impressions"))
