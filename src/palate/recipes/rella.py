"""ReLLa (Lin et al., WWW 2024, arXiv 2308.11131): does it help to read what resembles the target, not what is latest?

Claim: an LLM asked "will this person like it, yes or no?" ranks better with the K events most like the target (SUBR)
than with the K latest, and better still when it is tuned on a mixture of both forms (ReiT); with 1 to 10% of the rows
it matches or beats CTR models trained on all. In the published figures zero-shot SUBR gains little or loses (AUC
+0.002, -0.018, +0.008); most of the gain is tuning.
Baselines: DIN trained on all rows with its latest events; the cheap form without an LLM (SIM's search): DIN with the K
recent, retrieved, random, K of the same categories, and half recent, half retrieved; DIN that learns from the very rows
that the LLM is tuned on.
Controls: K random events of the history at the same K; tuning on one form alone, with as many steps. Test by AUC with
paired intervals over users, LogLoss beside, Holm over the claims; the step of a tuning is chosen on validation AUC.
Nothing of a row's own moment or later is read in any arm.
Settings: `palate.experiments.rella_study.RellaSettings`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from palate.data.dataset import FloatArray
from palate.data.samples import Samples
from palate.evaluation.controls import Contrast, Judged, judge_arms, weighted_auc
from palate.evaluation.rating import gauc, log_loss
from palate.experiments.rella_llm import Asked, looks, tuned, zero_shot
from palate.experiments.rella_study import (
    BOTH,
    FULL,
    HALVES,
    KIND,
    RANDOM,
    RECENT,
    RETRIEVED,
    RellaSettings,
    RellaStudy,
)
from palate.experiments.study import Chart, Report, ReportTable, Study

_RESAMPLES = 1000
Row = dict[str, Any]


def rella(study: Study) -> Report:
    """Every arm on the same rows; see the module for what is compared."""
    settings = RellaSettings.of(study)
    work, _ = RellaStudy(study, settings), settings.chosen  # what cannot be tuned is said before anything is trained
    everywhere = work.din()
    asked = {f"LLM as it is, {form}": each for form, each in zero_shot(work).items()}
    learnt = tuned(work)
    asked |= {f"LLM tuned on {name}": each for name, each in learnt.items()}
    test, rows = work.samples.test, work.samples.take(work.test)
    place = np.searchsorted(np.flatnonzero(work.samples.part == test.part[0]), work.test)
    arms = {name: each.chances for name, each in asked.items()}
    arms |= {_din(name): found[:, place] for name, found in everywhere.items()}
    whole = {_din(name): found for name, found in everywhere.items()}
    few, many = _judged(arms, rows, _claims(arms)), _judged(whole, test, _din_claims(whole))
    tables = [
        ReportTable(f"{len(rows)} rows that the LLM was asked about", _figures(few, arms, rows, asked), _said(work)),
        ReportTable("The claims", [_contrast(c) for c in few.contrasts], "paired over users; p after Holm"),
        ReportTable(f"DIN by what it reads, all {len(test)} test rows", _trained(work, many, whole, test)),
        ReportTable("The cheap form: DIN against DIN", [_contrast(c) for c in many.contrasts]),
        ReportTable("Facts", [{"what": what, "n": n} for what, n in work.facts().items()]),
    ]
    charts = [
        Chart(f"AUC on {len(rows)} rows", "intervals", tables[0].rows, "arm", "auc"),
        Chart("Validation AUC while tuning", "lines", looks(learnt), "step", "auc", "tuned on"),
    ]
    return Report(
        "ReLLa", _verdict(few, many), [t for t in tables if t.rows], [c for c in charts if c.rows], work.notes
    )


def _din(name: str) -> str:
    return f"DIN, {name}"


def _claims(arms: dict[str, Any]) -> list[tuple[str, str]]:
    """Retrieved against recent and random, both forms against one, tuned against not, the LLM against DIN."""
    as_it_is, on = "LLM as it is, ", "LLM tuned on "
    pairs = [(as_it_is + RETRIEVED, as_it_is + RECENT), (as_it_is + RETRIEVED, as_it_is + RANDOM)]
    pairs += [(on + RETRIEVED, on + RECENT), (on + RETRIEVED, on + RANDOM), (on + BOTH, on + RETRIEVED)]
    pairs += [(on + BOTH, as_it_is + RETRIEVED), (on + BOTH, _din(FULL)), (as_it_is + RETRIEVED, _din(FULL))]
    return [pair for pair in pairs if {*pair} <= set(arms)]


def _din_claims(arms: dict[str, Any]) -> list[tuple[str, str]]:
    pairs = [(RETRIEVED, RECENT), (RETRIEVED, RANDOM), (RETRIEVED, FULL), (KIND, RECENT), (HALVES, RECENT)]
    return [(_din(a), _din(b)) for a, b in pairs if _din(a) in arms]


def _judged(arms: dict[str, FloatArray], rows: Samples, claims: list[tuple[str, str]]) -> Judged:
    return judge_arms(arms, rows.users, claims, weighted_auc(rows.labels[:, 0]), n_resamples=_RESAMPLES)


def _figures(judged: Judged, arms: dict[str, FloatArray], rows: Samples, asked: dict[str, Asked]) -> list[Row]:
    found = []
    for name, figure in judged.figures.items():
        each = asked.get(name)
        row: Row = {"arm": name, **_keys("auc", figure), "log_loss": _loss(arms[name], rows)}
        row |= {"tokens": each.tokens if each else 0, "seconds": each.seconds if each else None}
        found.append(row | {"failed": each.failed if each else None})
    return found


def _trained(work: RellaStudy, judged: Judged, arms: dict[str, FloatArray], rows: Samples) -> list[Row]:
    return [
        {"arm": name, **_keys("auc", figure), "log_loss": _loss(arms[name], rows)}
        | {"auc within users": float(np.mean([gauc(rows.labels[:, 0], each, rows.users) for each in arms[name]]))}
        | {"training seconds": work.seconds[name.removeprefix(_din(""))]}
        for name, figure in judged.figures.items()
    ]


def _loss(found: FloatArray, rows: Samples) -> float:
    return float(np.mean([log_loss(rows.labels[:, 0], each) for each in np.atleast_2d(found)]))


def _said(work: RellaStudy) -> str:
    model, k = work.study.llm.model, work.settings.k
    return (
        f"test; K = {k} of at least {work.settings.least} events; as it is: {model}; DIN with "
        f"{work.study.seeds} seeds. Tokens and seconds of the test questions; LogLoss not calibrated."
    )


def _verdict(few: Judged, many: Judged) -> list[str]:
    """A line a claim: those not won first."""
    return [_line(c) for c in sorted([*few.contrasts, *many.contrasts], key=lambda c: (c.better, not c.worse))]


def _line(c: Contrast) -> str:
    what = "beats" if c.better else "is worse than" if c.worse else "is not told apart from"
    d = c.difference
    return f"{c.arm} {what} {c.against}: AUC {d.mean:+.4f} [{d.low:+.4f}, {d.high:+.4f}], p {c.p_value:.3f}."


def _contrast(c: Contrast) -> Row:
    return {"arm": c.arm, "less": c.against, **_keys("difference", c.difference), "p": c.p_value}


def _keys(name: str, interval: Any) -> Row:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
