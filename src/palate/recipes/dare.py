"""DARE (Xi et al., SIGIR 2025, arXiv 2408.05676): notes written with drafts from earlier ones, and whether it shows.

Claim: drafts retrieved from the notes about similar users and items make generation 3 to 5 times faster (3.45 times
live), and accepting a draft that is only among the likeliest tokens changes nothing downstream (AUC by less than 0.1%).
Baselines: the same model without drafts; *strict* drafts, which write the same text. Controls: of KAR, since what is
judged is the knowledge. Besides: how many tokens were not the likeliest, whether texts repeat each other (distinct-n),
and whether a profile is more like its own history than like others' (no copying of neighbours' profiles).

Settings: `DareSettings`. Speed against other ways is measured by `benchmarks/decoding.py`, on a quiet machine.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import Field

from palate.evaluation.bootstrap import bootstrap_mean, paired_difference
from palate.evaluation.controls import judge_arms, weighted_auc
from palate.experiments.controls import run_controls
from palate.experiments.dare_study import distinct, own_history
from palate.experiments.kar_study import KarSettings, KarStudy
from palate.experiments.study import Report, ReportTable, Study
from palate.knowledge.draft_groups import groups_of
from palate.knowledge.profiles import Asked, notes
from palate.llm.decoding.pools import DecodingConfig

PUBLISHED = 0.001  # the change of AUC, relative, below which relaxed decoding is called harmless
STRICT, RELAXED = "strict", "relaxed"
Row = dict[str, Any]
Said = dict[str, tuple[pl.DataFrame, pl.DataFrame]]


class DareSettings(KarSettings):
    """Of the recipe `dare`: those of `kar`, for notes in words, of few enough for a small model on a CPU."""

    backbones: str = "deepfm"
    answer: Literal["closed", "text"] = "text"
    users: int = Field(default=100, ge=0)
    items: int = Field(default=100, ge=0)
    epochs: int = Field(default=3, ge=1)
    pool: Literal["none", "global", "grouped"] = "grouped"
    rank: int = Field(default=2, ge=1)
    floor: float = Field(default=0.1, ge=0, lt=1)
    at_once: int = Field(default=8, ge=1)
    """Requests computed together."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str | None = None
    model: str | None = None
    """A folder of transformers or a GGUF file; the packaged SmolLM2 where there is none."""


def dare(study: Study) -> Report:
    """The same notes, strict and relaxed, compared as texts and as KAR's knowledge."""
    settings = DareSettings.of(study)
    work = KarStudy(study, settings)
    said, asked = _written(study, settings, work)
    arms = [work.arms.arm(mode, *rows, asked[mode]) for mode, rows in said.items()]
    backbone, test = settings.chosen[0], work.samples.test
    auc = weighted_auc(test.labels[:, 0])
    judge = work.judge(backbone)
    suite = run_controls(
        arms,
        work.arms.raw(),
        judge,
        test.users,
        "AUC",
        statistic=auc,
        seeds=study.seeds,
        progress=lambda what, done, total: study.progress(f"{backbone}: {what}", done, total),
    )
    both = {arm.name: np.stack([judge(arm, seed) for seed in range(study.seeds)]) for arm in arms}
    change = judge_arms(both, test.users, [(RELAXED, STRICT)], auc).contrasts[0].difference
    base = suite.judged.figures[STRICT].mean
    texts, verdict = _texts(study, work, said)
    return Report(
        "DARE",
        [_harm(change, base), *verdict],
        [
            ReportTable("Writing", [_spent(mode, asked[mode]) for mode in said], "by requests computed together"),
            ReportTable("Texts", texts, "own history: share of other people's histories that a profile is less like"),
            *suite.tables(f"As KAR's knowledge, {backbone}"),
        ],
        [suite.chart("AUC on test")],
        [f"Drafts: pool {settings.pool}, relaxed to rank {settings.rank} with {settings.floor:g} at least."],
    )


def _written(study: Study, settings: DareSettings, work: KarStudy) -> tuple[Said, dict[str, Asked]]:
    from palate.llm.engines.torch_lm import TorchEngine

    said: Said = {}
    asked: dict[str, Asked] = {}
    for done, mode in enumerate((STRICT, RELAXED)):
        study.progress("ways of writing", done, 2)
        rules = {"mode": mode, **settings.model_dump(include={"pool", "rank", "floor"})}
        engine = TorchEngine(
            settings.model,
            settings.device,
            settings.at_once,
            settings.dtype,
            decoding=DecodingConfig.model_validate(rules),
            group_of=groups_of(study.dataset),
        )
        interview = work.arms.interview(study.llm.asking(engine))
        said[mode], asked[mode] = work.arms.asked_by(interview), interview.asked
        engine.close()
    return said, asked


def _spent(mode: str, asked: Asked) -> Row:
    written, passes = max(asked.written, 1), max(asked.passes, 1)
    return {
        "mode": mode,
        "answers": asked.calls,
        "tokens written": asked.written,
        "tokens a pass": asked.written / passes,
        "not the likeliest %": 100 * asked.unlike / written,
        "tokens": asked.tokens,
        "seconds": asked.seconds,
    }


def _texts(study: Study, work: KarStudy, said: Said) -> tuple[list[Row], list[str]]:
    """A row for each mode; of what is said the worst first."""
    ids = study.dataset.user_ids
    seen = {ids[one.user_num]: one.items.tolist() for one in work.arms.windows[0]}
    rows, own = [], {}
    for mode, (items, profiles) in said.items():
        told = notes(profiles)
        own[mode] = own_history(told, seen, study.dataset, study.encoder)
        interval = bootstrap_mean(own[mode])
        row: Row = {"mode": mode, "own history": interval.mean}
        row |= {"own history_low": interval.low, "own history_high": interval.high}
        for side, texts in (("profiles", list(told.values())), ("facts", list(notes(items).values()))):
            row |= {f"distinct-{n} of {side}": distinct(texts, n) for n in (1, 2, 3)}
        rows.append(row)
    if len(own[STRICT]) != len(own[RELAXED]):
        return rows, ["Not all profiles were written in both ways, so that they cannot be compared one by one."]
    change = paired_difference(own[RELAXED], own[STRICT])
    worse = "less" if change.high < 0 else "as well as can be told"
    return rows, [
        f"Relaxed profiles tell their owner's history from others' {worse}: {change.mean:+.3f} [{change.low:+.3f}, "
        f"{change.high:+.3f}] of {rows[0]['own history']:.3f} (0.5: chance)."
    ]


def _harm(change: Any, base: float) -> str:
    inside = max(abs(change.low), abs(change.high)) < PUBLISHED * base
    what = (
        "changes nothing downstream"
        if inside
        else "costs something downstream"
        if change.high < 0
        else "is not shown to be harmless"
    )
    return (
        f"Relaxed writing {what}: AUC {change.mean:+.4f} [{change.low:+.4f}, {change.high:+.4f}] against strict "
        f"({100 * change.mean / base:+.2f}%; published: less than 0.1%)."
    )
