"""KAR (Xi et al., RecSys 2024, arXiv 2306.10933): do an LLM's notes about people and items help a ranking model?

Claim: preferences and facts by the same factors, asked for offline, encoded, and mapped by a hybrid-expert adaptor to
two more fields, raise the AUC of nine backbones by about 1 to 1.5% (relative). The published runs have no validation
split (early stop on test) and no control.
Baselines: each backbone without knowledge. Controls: Gaussian noise of the same shape, the true vectors on the wrong
people and items, and the raw text through the same encoder without any LLM. Knowledge: the LLM at hand and, where there
are any, recorded answers of another model. Test by AUC, LogLoss beside; users and seeds resampled together, Holm over
the claims of each backbone and over those of the mean of all backbones.

No profile knows an event of its user's samples; who was not asked about is unknown in every arm.
Settings: `palate.experiments.kar_study.KarSettings`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from palate.evaluation.controls import Contrast, Judged, judge_arms, weighted_auc
from palate.evaluation.rating import log_loss
from palate.experiments.controls import OFF, RAW, ControlSuite, control_arms, permuted_name, run_controls
from palate.experiments.kar_study import KarSettings, KarStudy, stacked
from palate.experiments.study import Chart, Report, ReportTable, Study

PUBLISHED = 0.01  # the lower end of the published mean gain in AUC, relative
_RESAMPLES = 1000
Row = dict[str, Any]


def kar(study: Study) -> Report:
    """Every backbone with every arm and seed; see the module for what is compared."""
    work = KarStudy(study, KarSettings.of(study))
    knowledge, raw = work.arms.knowledge(), work.arms.raw()
    test, names = work.samples.test, work.settings.chosen
    auc = weighted_auc(test.labels[:, 0])
    suites: dict[str, ControlSuite] = {}
    for place, backbone in enumerate(names):
        suites[backbone] = run_controls(
            knowledge,
            raw,
            work.judge(backbone),
            test.users,
            "AUC",
            statistic=auc,
            seeds=study.seeds,
            n_resamples=_RESAMPLES,
            progress=lambda what, done, total: study.progress(f"{backbone}: {what}", done, total),  # noqa: B023
        )
        study.progress("backbones", place + 1, len(names))
    arms = {name: stacked(work.predictions, name) for name in control_arms(knowledge, raw)}
    controls = {arm.name: [OFF, "noise", permuted_name(arm, knowledge), RAW] for arm in knowledge}
    claims = [(name, control) for name, listed in controls.items() for control in listed]
    beside = [(name, OFF) for name in arms if name not in (OFF, *controls)]

    def judged(within: Any = None) -> Judged:
        return judge_arms(arms, test.users, claims, auc, beside=beside, within=within, n_resamples=_RESAMPLES)

    whole = judged()
    slices = {name: judged(flags) for name, flags in work.slices().items() if flags.any()}
    tables = [
        _means(work, whole, suites),
        ReportTable(
            "Mean of the backbones: against the controls", [_contrast(c) for c in whole.contrasts[: len(claims)]]
        ),
        _by_backbone(work, suites, list(controls)),
        ReportTable(
            "By slice, mean of the backbones", _sliced(slices, list(controls)), "not corrected for their number"
        ),
        ReportTable("Facts", work.facts()),
        ReportTable("Discrete IDs that are shared", work.collisions(knowledge)),
    ]
    rows = [{"arm": name, **_keys("auc", figure)} for name, figure in whole.figures.items()]
    chart = Chart("AUC, mean of the backbones", "intervals", rows, "arm", "auc")
    return Report("KAR", _verdict(whole, suites, list(controls)), [t for t in tables if t.rows], [chart], _notes(work))


def _means(work: KarStudy, whole: Judged, suites: dict[str, ControlSuite]) -> ReportTable:
    base, labels, rows = whole.figures[OFF].mean, work.samples.test.labels[:, 0], []
    for name, figure in whole.figures.items():
        losses = [log_loss(labels, p) for p in stacked(work.predictions, name)]
        row: Row = {"arm": name, **_keys("auc", figure), "log_loss": float(np.mean(losses))}
        row["relative gain %"] = 100 * (figure.mean / base - 1)
        found = next(iter(suites.values()))
        row |= {"tokens": found.tokens[name], "LLM seconds": found.asked_seconds[name]}
        rows.append(row | {"training seconds": work.seconds[name]})
    return ReportTable(f"Mean of {len(suites)} backbones", rows, "test; intervals over users, backbones and seeds")


def _by_backbone(work: KarStudy, suites: dict[str, ControlSuite], names: list[str]) -> ReportTable:
    rows = []
    for backbone, suite in suites.items():
        base = suite.judged.figures[OFF].mean
        row: Row = {"backbone": backbone} | {arm: figure.mean for arm, figure in suite.judged.figures.items()}
        for name in names:
            gain = suite.contrast(name, OFF).difference
            row |= {f"{name}: gain %": 100 * gain.mean / base, f"{name}: survives": suite.survives[name]}
        rows.append(row)
    return ReportTable("AUC by backbone", rows, f"{work.study.seeds} seeds; survives: better than all controls, Holm")


def _sliced(slices: dict[str, Judged], names: list[str]) -> list[Row]:
    return [
        {"slice": name, **_contrast(c)}
        for name, judged in slices.items()
        for c in judged.contrasts
        if (c.arm in names and c.against in (OFF, RAW)) or (c.arm == RAW and c.against == OFF)
    ]


def _verdict(whole: Judged, suites: dict[str, ControlSuite], names: list[str]) -> list[str]:
    said = []
    for name in names:
        claims = [c for c in whole.contrasts if c.arm == name]
        lost = [c.against for c in claims if not c.better]
        off = next(c for c in claims if c.against == OFF)
        gain = 100 * off.difference.mean / whole.figures[OFF].mean
        what = f"does not beat {', '.join(lost)}" if lost else "beats every control"
        singly = sum(suite.survives[name] for suite in suites.values())
        mark = "at or above" if gain >= 100 * PUBLISHED else "below"
        said.append(
            f"Knowledge of {name} {what}: AUC {off.difference.mean:+.4f} [{off.difference.low:+.4f}, "
            f"{off.difference.high:+.4f}] against none ({gain:+.2f}%, {mark} the published 1%); it survives all "
            f"controls on {singly} of {len(suites)} backbones."
        )
    raw = next(c for c in whole.contrasts if (c.arm, c.against) == (RAW, OFF))
    gain = 100 * raw.difference.mean / whole.figures[OFF].mean
    said.append(f"Raw text without any LLM: AUC {raw.difference.mean:+.4f} against none ({gain:+.2f}%).")
    return sorted(said, key=lambda line: "beats every" in line)


def _notes(work: KarStudy) -> list[str]:
    settings, factors = work.settings, work.arms.factors
    return [
        f"Split {work.split}. Profiles rest on the first half of a history, {settings.cap} events at most.",
        f"Adapter {settings.adapter}, {settings.extraction} extraction, answers {settings.answer}.",
        f"Factors of {factors.scenario}: {', '.join(factor.name for factor in factors.factors)}.",
        "Tokens and seconds of recorded answers are not recorded.",
    ]


def _contrast(c: Contrast) -> Row:
    return {"knowledge": c.arm, "less": c.against, **_keys("difference", c.difference), "p": c.p_value}


def _keys(name: str, interval: Any) -> Row:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
