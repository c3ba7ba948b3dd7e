"""Did exploring by an LLM help? The live comparison of Wang et al. (RecSys 2024, arXiv 2405.16363), in worlds.

Claim: next to a hierarchical bandit, a novelty-boosted and a plain sequence model and two towers, exploration by a
language model's table shows more of what is new to people, at a quality far above other exploration; people consume
from more interests a week (UCI@N, N = 5 to 200), are satisfied more and come back more. The paper has plots alone.
Baselines: those, and a count table, random exploration, popularity and random slates. Controls: tables of other error
rates, and other assumptions about people.

A simulation proves nothing about people: it says what follows from assumptions (`WorldConfig`), and where another
assumption turns the order round. Worlds are planted, or fitted to the data's popularity, people, sessions and
transitions. A synthetic world has no words: there a table with a stated error rate stands in for the language model; in
the fitted world `--set table=asked` asks a real one, and `--set played=20` has it play twenty people.
Settings: `palate.experiments.worlds.proof.ProofSettings`.
"""

from __future__ import annotations

from functools import partial

from palate.experiments.study import Chart, Report, ReportTable, Study
from palate.experiments.worlds.config import WorldConfig
from palate.experiments.worlds.fit import Fitted, FittedWorld
from palate.experiments.worlds.lineup import EXPLORERS, SEQUENCE
from palate.experiments.worlds.played import PLACES, order_said, played_rows
from palate.experiments.worlds.proof import (
    ASSUMPTIONS,
    Found,
    ProofSettings,
    collected,
    fitted_of,
    flips,
    main_trials,
    played_trial,
    swept_trials,
    table_of,
)
from palate.experiments.worlds.proof_report import (
    Row,
    claims,
    comparison_rows,
    flip_rows,
    flips_by_chance,
    flips_said,
    plane_rows,
    sensitivity_rows,
    series_rows,
    uci_rows,
)
from palate.experiments.worlds.sweep import spread_over, sweep


def proof(study: Study) -> Report:
    """Every policy, world and seed; then each assumption varied, `seeds` times each."""
    settings = ProofSettings.of(study)
    fitted = fitted_of(study.dataset, settings)
    table = table_of(fitted, settings, study.llm)
    trial = played_trial(settings, fitted, table)
    runs = main_trials(settings, study.seeds, fitted, table)
    varied = swept_trials(settings, study.seeds) if settings.sweep else []
    with spread_over(settings.processes, settings.ray) as over:
        main, swept = (
            collected(sweep(trials, over, study.workspace / "runs.jsonl", partial(study.progress, what)))
            for what, trials in (("worlds", runs), ("assumptions", varied))
        )
    played = played_rows(trial, study.llm) if trial is not None else []
    return _report(settings, main, swept, fitted, played, study.seeds)


def _report(
    settings: ProofSettings, main: Found, swept: Found, fitted: Fitted | None, played: list[Row], seeds: int
) -> Report:
    alone = SEQUENCE if settings.sweep_ranker == SEQUENCE else "content"
    turned = flips(swept) if swept else []
    values = sum(len(each.values) for each in ASSUMPTIONS)
    verdict = [*([flips_said(turned, values)] if swept else []), *claims(main)]
    verdict += [order_said(played)] if played else []
    fit = [] if fitted is None else fitted.facts.rows(_lived(fitted, settings).facts())
    chance = f"Each way beyond its 95% interval; by chance alone about {flips_by_chance(1 + len(EXPLORERS)):.1f} would."
    tables = [
        ReportTable("The comparison", comparison_rows(main), _how(settings, seeds)),
        ReportTable("People who took something of N interests in the last week (UCI@N)", uci_rows(main)),
        ReportTable(
            "When an assumption changes",
            sensitivity_rows(swept, alone),
            f"{settings.sweep_people} people, {settings.sweep_days} days, {seeds} seeds, {alone} behind all explorers "
            f"({', '.join(EXPLORERS)}); differences are relative, seed by seed.",
        ),
        ReportTable("Where the order turns round", flip_rows(turned), chance),
        ReportTable("People played by the language model", played, f"Seed 0, slates of {PLACES}, content as ranker."),
        ReportTable("The fitted world beside the log", fit, "What people took before the first day."),
    ]
    return Report(
        "Did it help? Exploration in worlds",
        verdict,
        [t for t in tables if t.rows],
        _charts(main, fit),
        _notes(settings),
    )


def _charts(main: Found, fit: list[dict[str, object]]) -> list[Chart]:
    weeks, uci = series_rows(main, "satisfied_week", "week"), series_rows(main, "uci", "N")
    back = series_rows(main, "visits_week", "week")
    beside = [
        {"rank": place, "share": row[side], "of": side}
        for side in ("log", "world")
        for place, row in enumerate(fit)
        if str(row["figure"]).startswith("share of events")
    ]
    drawn = [
        Chart("Novelty and quality", "points", plane_rows(main), "novelty", "quality", "line", "Share of impressions."),
        Chart("UCI@N", "lines", uci, "N", "uci", "line", "People, in the last 7 days."),
        Chart("Satisfied consumption by week", "lines", weeks, "week", "satisfied_week", "line"),
        Chart("Visits by week", "lines", back, "week", "visits_week", "line"),
    ]
    if fit:
        note = "Share of events on the top 1, 5, 10, 20 and 50% of items."
        drawn.append(Chart("Popularity: log and fitted world", "lines", beside, "rank", "share", "of", note))
    return drawn


def _lived(fitted: Fitted, settings: ProofSettings) -> FittedWorld:
    return FittedWorld(fitted, WorldConfig(people=settings.people), days=settings.days)


def _how(settings: ProofSettings, seeds: int) -> str:
    return (
        f"{settings.people} people, {settings.days} days; {seeds * settings.synthetic} synthetic worlds, a seed each, "
        f"{seeds} seeds of a fitted one. Novelty: impressions of interests of which the person never took anything. "
        f"Quality: impressions that satisfied. Returned: of those there a week before the end, who came in it. "
        f"Discovered: interests that a person had, did not know, and was satisfied with. Intervals: Student, 95%."
    )


def _notes(settings: ProofSettings) -> list[str]:
    table = "answers of the language model" if settings.table == "asked" else "as in synthetic ones"
    varied = "; ".join(f"{each.name} ({each.field}) {each.values}" for each in ASSUMPTIONS)
    return [
        f"In synthetic worlds the table of LLM exploration holds the planted links, {settings.error:.0%} of them wrong "
        f"by chance: it stands in for a language model, and its error rate is assumed. Fitted world: {table}.",
        "Interests in all figures are the planted ones; policies see clusters of noisy vectors.",
        f"Assumptions varied: {varied}.",
        "All explorers share ranker, places and patience, and differ in who names the next interest.",
    ]
