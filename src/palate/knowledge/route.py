"""Routing: the cheapest judge that may be trusted answers; what none may answer goes to people.

A promise is calibrated on people's dev labels, attribute by attribute, for a cascade of judges, cheapest first (with
the exact bounds of `palate.evaluation.selective`). Yes is rare, so "at most α of all answers are wrong" would be kept
by saying no to everything. Two promises are offered that are more:

- `class`: at most α of the items that people call yes are answered no, and at most α of the others yes; whoever is
  asked last, the finished labels have that recall. Each judge gets an equal share of α and of δ.
- `answer`: of what is answered yes at most α is wrong, and so of what is answered no. Its no is cheap where fewer than
  α of the items are yes: read the share of misses beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from palate.data.dataset import FloatArray
from palate.errors import InputError
from palate.evaluation.selective import fewest, most_errors, threshold_for

Array = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
PEOPLE = -1
_NEVER = (np.inf, -np.inf)


class RouteConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    alpha: float = Field(default=0.1, gt=0, lt=1)
    """The promised error, at most."""
    delta: float = Field(default=0.1, gt=0, lt=1)
    """The chance, at most, that the promise for an attribute is broken."""
    error: Literal["class", "answer"] = "class"
    """What is promised: errors among items that people call yes (and no), or among answers yes (and no)."""
    wage: float = Field(default=15.0, ge=0)
    """Money for an hour of a person's labelling."""
    seconds: float = Field(default=8.0, gt=0)
    """That a person takes for one label."""
    machine: float = Field(default=0.1, ge=0)
    """Money for an hour of this machine."""


@dataclass(frozen=True)
class Judge:
    """Somebody who scores items. `scores` [n_items, n_names]: the higher, the likelier yes; NaN: not asked yet."""

    name: str
    scores: FloatArray
    cost: float = 0.0  # money for one label


@dataclass(frozen=True)
class Rule:
    """When a judge may answer: yes from the score `yes` up, else no from `no` down; infinite where never."""

    attribute: str
    judge: str
    yes: float = float("inf")
    no: float = float("-inf")

    @property
    def silent(self) -> bool:
        """Never answers, so need not be asked."""
        return (self.yes, self.no) == _NEVER

    def says(self, scores: Array) -> Array:
        """1, 0, or NaN: passes on."""
        return np.where(scores >= self.yes, 1.0, np.where(scores <= self.no, 0.0, np.nan))


@dataclass(frozen=True)
class Silence:
    """An attribute on which no judge may say yes, or none may say no, and the reason."""

    attribute: str
    why: str


@dataclass(frozen=True)
class Routed:
    """Of each item and attribute, [n_items, n_names]: who answers, what is said, and who must be asked first.

    Attributes:
        takes: Number of the judge that answers; `PEOPLE` where none may, or none has yet.
        says: 1 or 0; NaN where nobody answers.
        waits: Number of the judge that was not asked yet and might answer; -1: nobody.
    """

    takes: Numbers
    says: Array
    waits: Numbers


def calibrate(
    judges: Sequence[Judge], truth: Array, names: Sequence[str], config: RouteConfig
) -> tuple[list[list[Rule]], list[Silence]]:
    """Rules [n_names][n_judges] that keep the promise, and where there is none and why.

    Args:
        truth: [n_items, n_names] people's dev labels, 1 or 0, NaN where nobody judged (`golden.truth_matrix`).

    Raises:
        InputError: No judge, or shapes that differ.
    """
    shapes = {judge.scores.shape for judge in judges} | {truth.shape}
    if not judges or len(shapes) > 1 or truth.shape[1:] != (len(names),):
        raise InputError("Judges, labels and attributes do not fit.", got=sorted(shapes), allowed=f"{len(names)} wide")
    rules, silences = [], []
    for column, name in enumerate(names):
        judged = ~np.isnan(truth[:, column])
        y = truth[judged, column]
        scores = [judge.scores[judged, column].astype(np.float64) for judge in judges]
        pairs = _pairs(y, scores, config)
        rules.append([Rule(name, judge.name, *pair) for judge, pair in zip(judges, pairs, strict=True)])
        silences += _silences(rules[-1], y, config)
    return rules, silences


def _pairs(y: Array, scores: Sequence[Array], config: RouteConfig) -> list[tuple[float, float]]:
    """(yes, no) of each judge. Who was not asked by a judge that may answer waits, here as in `route`."""
    cut = _by_class if config.error == "class" else _by_answer
    reached, pairs = np.ones(len(y), dtype=bool), []
    for score in scores:
        asked = reached & ~np.isnan(score)
        yes, no = cut(y, score, asked, config, len(scores))
        pairs.append((yes, no))
        if (yes, no) != _NEVER:
            reached = asked & ~((score >= yes) | (score <= no))
    return pairs


def _by_class(y: Array, score: Array, asked: Mask, config: RouteConfig, judges: int) -> tuple[float, float]:
    """Order statistics: with a chance of 1 - δ, at most α of the true items lie below the (e + 1)-th lowest score of n
    of them, where `upper_bound(e, n, δ)` is at most α (both are quantiles of one beta distribution)."""
    alpha, delta = config.alpha / judges, config.delta / (2 * judges)
    no = _below(score[asked & (y == 1)], int((y == 1).sum()), alpha, delta)
    yes = -_below(-score[asked & (y == 0)], int((y == 0).sum()), alpha, delta)
    return yes, no


def _below(scores: Array, n: int, alpha: float, delta: float) -> float:
    allowed = most_errors(n, alpha, delta)
    if allowed < 0 or not len(scores):
        return float("-inf")
    if allowed >= len(scores):
        return float(scores.max())
    return float(np.nextafter(np.sort(scores)[allowed], -np.inf))


def _by_answer(y: Array, score: Array, asked: Mask, config: RouteConfig, judges: int) -> tuple[float, float]:
    """As two stages of `calibrate_cascade`, one that says yes and behind it one that says no."""
    delta = config.delta / (2 * judges)
    yes, _ = threshold_for(score[asked], 1 - y[asked], config.alpha, delta)
    left = asked & ~(score >= yes)
    no, _ = threshold_for(-score[left], y[left], config.alpha, delta)
    return yes, -no


def _silences(rules: Sequence[Rule], y: Array, config: RouteConfig) -> list[Silence]:
    name, yes, no = rules[0].attribute, int((y == 1).sum()), int((y == 0).sum())
    if not len(y):
        return [Silence(name, "people labelled none of its dev items")]
    needed = labels_needed(config, len(rules))
    found = []
    for word, mute, there in (
        ("yes", all(rule.yes == np.inf for rule in rules), no if config.error == "class" else len(y)),
        ("no", all(rule.no == -np.inf for rule in rules), yes if config.error == "class" else len(y)),
    ):
        if mute and there < needed:
            of = {"yes": "no", "no": "yes"}[word] if config.error == "class" else "dev"
            found.append(
                Silence(name, f"nobody may say {word}: {there} {of} labels of people, {needed} or more needed")
            )
        elif mute:
            found.append(Silence(name, f"nobody may say {word}: even the surest answers are wrong too often"))
    return found


def labels_needed(config: RouteConfig, n_judges: int) -> int:
    """People's labels of one kind without which no promise of the kind can be made, were every answer right."""
    if config.error == "class":
        return fewest(config.alpha / n_judges, config.delta / (2 * n_judges))
    return fewest(config.alpha, config.delta / (2 * n_judges), errors=1)


def route(judges: Sequence[Judge], rules: Sequence[Sequence[Rule]]) -> Routed:
    """Every item and attribute past the judges, in their order. A judge that never answers is not waited for."""
    shape = judges[0].scores.shape
    takes, waits, says = np.full(shape, PEOPLE), np.full(shape, -1), np.full(shape, np.nan)
    for number, judge in enumerate(judges):
        for column, rule in enumerate(row[number] for row in rules):
            here = (takes[:, column] == PEOPLE) & (waits[:, column] < 0)
            if rule.silent:
                continue
            scores = judge.scores[:, column].astype(np.float64)
            said = rule.says(scores)
            waits[here & np.isnan(scores), column] = number
            answers = here & ~np.isnan(said)
            takes[answers, column], says[answers, column] = number, said[answers]
    return Routed(takes, says, waits)


def stage_rows(
    judges: Sequence[Judge],
    rules: Sequence[Sequence[Rule]],
    routed: Routed,
    truth: Array,
    names: Sequence[str],
    people: float,
) -> list[dict[str, Any]]:
    """One row for each attribute (and all together) and stage: labels that reached it, were answered, money, errors.

    Errors are against `truth` where it is known: `error` of the answers; `missed` of true yes that the stage answered
    no and `false_yes` of true no that it answered yes, both over all of the kind, as the promise `class` counts them.
    What waits for an answer of the stage is `waiting`, and not in `answered`.
    """
    rows = []
    silent = np.array([[rule.silent for rule in row] for row in rules])  # [n_names, n_judges]
    for columns, name in [*(([column], name) for column, name in enumerate(names)), (range(len(names)), "all")]:
        at = list(columns)
        takes, waits = routed.takes[:, at], routed.waits[:, at]
        says, y = routed.says[:, at], truth[:, at]
        reached = np.ones(takes.shape, dtype=bool)
        for number, (stage, price) in enumerate([*((judge.name, judge.cost) for judge in judges), ("people", people)]):
            asked = reached & ~(silent[at, number] if number < len(judges) else np.zeros(len(at), dtype=bool))
            last = number == len(judges)
            answers = (takes == PEOPLE) & (waits < 0) if last else takes == number
            waiting = np.zeros_like(answers) if last else waits == number
            rows.append(
                {
                    "attribute": name,
                    "stage": stage,
                    "reached": int(asked.sum()),
                    "answered": int(answers.sum()),
                    "share": float(answers.mean()),
                    "waiting": int(waiting.sum()),
                    "money": float(asked.sum() * price),
                    **({} if last else _errors(says[answers], y[answers], y)),
                }
            )
            reached &= ~(answers | waiting)
    return rows


def _errors(said: Array, y: Array, everything: Array) -> dict[str, float | int]:
    known = ~np.isnan(y)
    wrong = known & (said != y)
    yes, no = int((everything == 1).sum()), int((everything == 0).sum())
    return {
        "checked": int(known.sum()),
        "error": float(wrong.sum() / known.sum()) if known.any() else float("nan"),
        "missed": float((wrong & (y == 1)).sum() / yes) if yes else float("nan"),
        "false_yes": float((wrong & (y == 0)).sum() / no) if no else float("nan"),
    }
