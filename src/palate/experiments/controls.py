"""The control suite: one model with knowledge, and with each control in the knowledge's place.

A claim that knowledge helps must beat no knowledge (*off*), Gaussian *noise* of the same shape, the true rows on the
wrong entities (*permuted*), and what an encoder makes of the raw text without any LLM (*raw text*).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray
from palate.errors import InputError
from palate.evaluation.bootstrap import Groups
from palate.evaluation.controls import Contrast, Flags, Judged, Statistic, judge_arms, weighted_mean
from palate.experiments.study import Chart, ReportTable

OFF, RAW = "off", "raw text, no LLM"


@dataclass(frozen=True)
class Arm:
    """What a model is given in one arm: a vector for each user and each item, either of them or none.

    A row of zeros says that nothing is known of that entity, and stays so in every control.
    """

    name: str
    user: FloatArray | None = None  # [n_users, du]
    item: FloatArray | None = None  # [n_items, di]
    tokens: int | None = 0  # that the LLM read and wrote for it; None: not recorded
    seconds: float = 0.0  # that it took to ask


Draw = Callable[[int], Arm]  # a seed -> the arm with that seed's noise or permutation
Judge = Callable[[Arm, int], npt.ArrayLike]  # an arm and a seed -> what was measured, [n]


@dataclass(frozen=True)
class ControlSuite:
    """What `run_controls` found: the figures of all rows, and of each slice; `seconds` of training and judging an arm.

    `survives` says of each knowledge whether it is better than every one of its controls after Holm's correction.
    """

    metric: str
    seeds: int
    judged: Judged
    slices: dict[str, Judged]
    tokens: dict[str, int | None]
    asked_seconds: dict[str, float]
    seconds: dict[str, float]
    survives: dict[str, bool]

    def contrast(self, arm: str, against: str, within: str | None = None) -> Contrast:
        judged = self.judged if within is None else self.slices[within]
        return next(c for c in judged.contrasts if (c.arm, c.against) == (arm, against))

    def rows(self) -> list[dict[str, Any]]:
        """One row an arm, as `ReportTable` has them."""
        found = []
        for name, figure in self.judged.figures.items():
            row: dict[str, Any] = {"knowledge": name, **_keys(self.metric, figure)}
            if name != OFF:
                row |= _keys("against off", self.contrast(name, OFF).difference)
            row |= {"tokens": self.tokens[name], "LLM seconds": self.asked_seconds[name]}
            found.append({**row, "seconds": self.seconds[name]})
        return found

    def tables(self, title: str) -> list[ReportTable]:
        """The figures, what knowledge has over each control, and the slices."""
        against = [
            {"knowledge": c.arm, "less": c.against, **_keys("difference", c.difference), "p": c.p_value}
            for c in self.judged.contrasts
            if c.arm in self.survives
        ]
        sliced = [
            {"slice": name, "knowledge": c.arm, "less": c.against, **_keys("difference", c.difference)}
            for name, judged in self.slices.items()
            for c in judged.contrasts
            if c.arm in self.survives and c.against in (OFF, RAW)
        ]
        said = f"{self.metric}, {self.seeds} seeds, intervals over users and seeds"
        tables = [ReportTable(title, self.rows(), said)]
        if against:
            tables.append(ReportTable(f"{title}: against the controls", against, "p after Holm over all of these"))
        if sliced:
            tables.append(ReportTable(f"{title}: by slice", sliced, "not corrected for their number"))
        return tables

    def chart(self, title: str) -> Chart:
        """A dot with its interval for each arm."""
        rows = [{"knowledge": name, **_keys("figure", found)} for name, found in self.judged.figures.items()]
        return Chart(title, "intervals", rows, "knowledge", "figure", note=self.metric)

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        facts = {"metric": self.metric, "seeds": self.seeds, "survives": self.survives, "arms": self.rows()}
        slices = {name: _plain(judged) for name, judged in self.slices.items()}
        return {**facts, "contrasts": _plain(self.judged), "slices": slices}


def control_arms(knowledge: Sequence[Arm], raw: Arm | None = None) -> dict[str, Draw]:
    """Every arm of a suite: off, noise, each knowledge permuted, raw text, and each knowledge itself."""
    if not knowledge:
        raise InputError("There is no knowledge to hold against controls", hint="give at least one arm")
    arms: dict[str, Draw] = {OFF: lambda seed: Arm(OFF), "noise": _drawn(knowledge[0], "noise", noise_like)}
    for arm in knowledge:
        arms[permuted_name(arm, knowledge)] = _drawn(arm, permuted_name(arm, knowledge), permuted_rows)
    for arm in ([] if raw is None else [raw]) + list(knowledge):
        arms[arm.name] = _same(arm)
    return arms


def run_controls(
    knowledge: Sequence[Arm],
    raw: Arm | None,
    judge: Judge,
    users: Groups,
    metric: str,
    *,
    statistic: Statistic = weighted_mean,
    slices: Mapping[str, Flags] | None = None,
    seeds: int = 5,
    n_resamples: int = 1000,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> ControlSuite:
    """Measure every arm with every seed, and compare.

    Args:
        knowledge: Each is held against off, noise, its own permutation and `raw`.
        judge: Trains and measures one arm with one seed: values of the test rows, or their scores where `statistic`
            is one of scores (`weighted_auc`).
        users: Of the test rows: what the bootstrap draws.
        metric: Its name, higher is better.
        slices: Name to flags of test rows.
        seeds: Of the model, of the noise and of the permutation; 5 or more for a claim.
    """
    arms = control_arms(knowledge, raw)
    found: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in arms}
    seconds = dict.fromkeys(arms, 0.0)
    facts: dict[str, Arm] = {}
    for seed in range(seeds):
        for place, (name, draw) in enumerate(arms.items()):
            begun = time.perf_counter()
            facts[name] = draw(seed)
            found[name].append(np.asarray(judge(facts[name], seed), dtype=np.float64))
            seconds[name] += time.perf_counter() - begun
            progress("controls", seed * len(arms) + place + 1, seeds * len(arms))
    own = {
        arm.name: [OFF, "noise", permuted_name(arm, knowledge), *([] if raw is None else [raw.name])]
        for arm in knowledge
    }
    pairs = [(name, control) for name, controls in own.items() for control in controls]
    others = [(name, OFF) for name in arms if name != OFF and name not in own]

    values = {name: np.stack(rows) for name, rows in found.items()}

    def judged(within: Flags | None) -> Judged:
        return judge_arms(values, users, pairs, statistic, beside=others, within=within, n_resamples=n_resamples)

    whole = judged(None)
    survives = {
        name: all(c.better for c in whole.contrasts if c.arm == name and c.against in own[name]) for name in own
    }
    return ControlSuite(
        metric,
        seeds,
        whole,
        {name: judged(np.asarray(flags, dtype=np.bool_)) for name, flags in (slices or {}).items() if np.any(flags)},
        {name: arm.tokens for name, arm in facts.items()},
        {name: arm.seconds for name, arm in facts.items()},
        seconds,
        survives,
    )


def permuted_name(arm: Arm, knowledge: Sequence[Arm]) -> str:
    return "permuted" if len(knowledge) == 1 else f"permuted {arm.name}"


def noise_like(matrix: FloatArray, seed: int) -> FloatArray:
    """Gaussian, with the mean and spread of each column of the rows that are known."""
    known, rng = matrix.any(axis=1), np.random.default_rng(seed)
    made = np.zeros_like(matrix)
    if known.any():
        drawn = rng.standard_normal((int(known.sum()), matrix.shape[1]), dtype=np.float32)
        made[known] = matrix[known].mean(axis=0) + matrix[known].std(axis=0) * drawn
    return made


def permuted_rows(matrix: FloatArray, seed: int) -> FloatArray:
    """Rows that are known change places among themselves."""
    known = np.flatnonzero(matrix.any(axis=1))
    made = matrix.copy()
    made[known] = matrix[np.random.default_rng(seed).permutation(known)]
    return made


def _drawn(arm: Arm, name: str, control: Callable[[FloatArray, int], FloatArray]) -> Draw:
    def draw(seed: int) -> Arm:
        user = None if arm.user is None else control(arm.user, seed)
        item = None if arm.item is None else control(arm.item, seed + 1_000_003)
        return Arm(name, user, item)

    return draw


def _same(arm: Arm) -> Draw:
    return lambda seed: arm


def _keys(name: str, interval: Any) -> dict[str, float]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _plain(judged: Judged) -> list[dict[str, Any]]:
    return [asdict(contrast) for contrast in judged.contrasts]
