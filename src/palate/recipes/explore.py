"""User interest exploration (Wang et al., RecSys 2024, arXiv 2405.16363): does an LLM know where people go next?

Claim: a language model tuned on successful transitions, asked offline about every pair of interests, takes people to
new interests at the quality of exploitation models. Baselines: a count table with back-off (the paper has none),
interests by popularity and by nearness of vectors, a hierarchical contextual bandit, the untuned model, a plain and a
novelty-boosted sequence model, two towers, and the sequence model held to new interests. Controls: random instead of
balanced curation, and a model tuned on names shuffled between the interests, to which words can say nothing. Judged in
time: which interest is met next, on all pairs and on pairs never seen in training (of which a share is held back); how
even answers are; and what slates of ten bring. Settings: `palate.experiments.explore_study.ExploreSettings`.
"""

from __future__ import annotations

import numpy as np

from palate.experiments.explore_llm import TUNED, Taught, ask_all
from palate.experiments.explore_methods import (
    BOOSTED,
    OWN,
    PLAIN,
    TOWERS,
    Outcome,
    Slates,
    Tables,
    beside_counts,
    item_models,
    without_llm,
)
from palate.experiments.explore_report import (
    K,
    Row,
    answer_rows,
    curation_rows,
    plane_rows,
    recall_rows,
    slate_rows,
    tuning_rows,
    uci_rows,
    verdict,
    words_rows,
)
from palate.experiments.explore_study import ExploreSettings, ExploreStudy
from palate.experiments.study import Chart, Report, ReportTable, Study


def explore(study: Study) -> Report:
    """Every method on the same people, `seeds` times what is random."""
    work = ExploreStudy(study, ExploreSettings.of(study))
    tables = without_llm(work)
    taught = ask_all(work)
    for each in taught:
        tables.setdefault(each.name, []).append(each.scores)
    if taught:
        tables |= beside_counts(work, TUNED if TUNED in tables else taught[0].name, tables)
    curves, outcomes = _slates(work, tables)
    return _report(work, tables, taught, curves, outcomes)


def _slates(work: ExploreStudy, tables: Tables) -> tuple[dict[str, list[list[Outcome]]], dict[str, list[Outcome]]]:
    """By method and seed: outcomes at every share, and the outcome at the share of equal recall."""
    curves: dict[str, list[list[Outcome]]] = {}
    chosen: dict[str, list[Outcome]] = {}
    for seed in range(work.study.seeds):
        slates = Slates(work, item_models(work, seed))
        alone = {PLAIN: slates.unrestricted, BOOSTED: slates.of_model(BOOSTED), TOWERS: slates.of_model(TOWERS)}
        explored = {name: slates.of_table(scores[seed % len(scores)]) for name, scores in tables.items()}
        explored[OWN] = slates.of_own()
        for name, outcome in alone.items():
            curves.setdefault(name, []).append([outcome])
            chosen.setdefault(name, []).append(outcome)
        for name, (curve, share) in explored.items():
            curves.setdefault(name, []).append(curve)
            chosen.setdefault(name, []).append(next(each for each in curve if each.share == share))
    return curves, chosen


def _report(
    work: ExploreStudy,
    tables: Tables,
    taught: list[Taught],
    curves: dict[str, list[list[Outcome]]],
    chosen: dict[str, list[Outcome]],
) -> Report:
    recall, answers = recall_rows(work, tables), answer_rows(work, tables, taught)
    curation, slates, words = curation_rows(work, tables), slate_rows(work, chosen), words_rows(work, tables)
    plane, tuning = plane_rows(curves), tuning_rows(taught)
    cost: list[Row] = [
        {"what": what, "tokens": tokens, "minutes": seconds / 60} for what, (tokens, seconds) in work.spent.items()
    ]
    held = work.test
    people = (
        f"{len(held.meetings)} meetings of {len(set(held.users))} people, {int(held.unseen.sum())} after pairs never"
    )
    said = f"{people} seen in training. Against the count table: the paired difference of recall@{K}."
    shown = (
        f"{len(work.visits)} people, {len(held.meetings)} meetings; slates of ten at the largest share explored that "
    )
    return Report(
        "Interest exploration: where do people go next?",
        verdict(recall, answers, words, curation, slates),
        [
            ReportTable("Which interest is met next?", recall, said),
            ReportTable("Answers to every pair asked", answers, "Free: greedy decoding, word for word a name."),
            ReportTable("Balanced against random curation, same pairs", curation, "Less is more even."),
            ReportTable(f"What knowing the words is worth, recall@{K}", words),
            ReportTable("Slates", slates, f"{shown}keeps 95% of the plain model's recall in validation."),
            ReportTable("People who took something of N interests out of their slate", uci_rows(chosen)),
            ReportTable("Tokens and minutes", cost, "Tokens read by the local model; training counts each pass."),
        ],
        [
            Chart(
                "Novelty and quality",
                "lines",
                plane,
                "novelty",
                "positive",
                "method",
                "Share of a slate in interests "
                "new to the person, against the share of it that the person took later; left to right more explored.",
            ),
            Chart("Recall of the next new interest", "intervals", recall, "method", f"recall@{K}"),
            Chart("On pairs never seen in training", "intervals", recall, "method", f"unseen_recall@{K}"),
            Chart(
                "Tuning by step",
                "lines",
                tuning,
                "step",
                "value",
                "figure",
                "The step of the lowest validation loss is taken.",
            ),
        ],
        [
            *work.notes,
            f"{work.never_trained:.0%} of what people took in the test no model of items saw in training.",
            _names(work),
        ],
    )


def _names(work: ExploreStudy) -> str:
    order = np.random.default_rng(0).permutation(len(work.names))[:8]
    return f"Some of the {len(work.names)} interests: " + "; ".join(work.names[i] for i in order) + "."
