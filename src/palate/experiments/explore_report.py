"""The rows of an exploration study's report; intervals are over people, the figures of several seeds together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from palate.evaluation.bootstrap import Interval, bootstrap_mean, paired_difference
from palate.experiments.explore_llm import RANDOM, TUNED, Taught
from palate.experiments.explore_measures import Values, evenness, found_interest, resampled_evenness
from palate.experiments.explore_methods import COUNTS, PLAIN, Outcome, Tables
from palate.experiments.explore_study import ExploreStudy
from palate.interests.next_interest import best

Row = dict[str, Any]
KS = (1, 3, 5)
K = 3  # of the figures that are compared


def cells(name: str, found: Interval) -> Row:
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def recalls(work: ExploreStudy, tables: Tables, k: int) -> dict[str, Values]:
    """Whether each test meeting's interest is among each method's `k` best: [seeds · meetings], seed by seed."""
    held = work.test
    rows, seeds = work.rows(held.meetings.pair), work.study.seeds
    found = {}
    for name, scores in tables.items():
        one = [found_interest(table[rows], held.known, held.meetings.label, k) for table in scores]
        found[name] = np.concatenate([one[seed % len(one)] for seed in range(seeds)])
    return found


def recall_rows(work: ExploreStudy, tables: Tables) -> list[Row]:
    """Every method: recall at 1, 3 and 5, on all pairs and on those never seen, and against the count table."""
    seeds, held = work.study.seeds, work.test
    users, unseen = np.tile(np.array(held.users), seeds), np.tile(held.unseen, seeds)
    by_k = {k: recalls(work, tables, k) for k in KS}
    rows = []
    for name in tables:
        row: Row = {"method": name}
        for k in KS:
            row |= cells(f"recall@{k}", bootstrap_mean(by_k[k][name], users))
        hits, counts = by_k[K][name], by_k[K][COUNTS]
        row |= cells(f"unseen_recall@{K}", bootstrap_mean(hits[unseen], users[unseen]))
        row |= cells("against_counts", paired_difference(hits, counts, users))
        row |= cells("unseen_against_counts", paired_difference(hits[unseen], counts[unseen], users[unseen]))
        rows.append(row)
    return rows


def answer_rows(work: ExploreStudy, tables: Tables, taught: Sequence[Taught]) -> list[Row]:
    """Of the first answer to every pair asked: how even, and how often a free answer is an interest's name."""
    free = {each.name: each for each in reversed(taught)}
    rows = []
    for name, scores in tables.items():
        top = _first(work, scores[0])
        even = evenness(top, work.n_interests)
        row: Row = {"method": name, "label_gini": even.gini, "never_answered": even.never}
        row["free_match_rate"] = free[name].match_rate if name in free else None
        # An answer along the trie is an interest; -1 would be none.
        row["constrained_match_rate"] = float((top >= 0).mean()) if name in free else None
        row["free_answers_that_match_nothing"] = "; ".join(free[name].strays) if name in free else ""
        rows.append(row)
    return rows


def curation_rows(work: ExploreStudy, tables: Tables) -> list[Row]:
    """Balanced against random curation on the same pairs, by the bootstrap over pairs."""
    if not {TUNED, RANDOM} <= set(tables):
        return []
    answers = [_first(work, tables[name][0]) for name in (TUNED, RANDOM)]
    even = [evenness(each, work.n_interests) for each in answers]
    differences = resampled_evenness(*answers, work.n_interests)
    rows = []
    for measure, key, drawn in zip(("label Gini", "never answered"), ("gini", "never"), differences, strict=True):
        first, second = (getattr(each, key) for each in even)
        low, high = np.quantile(drawn, [0.025, 0.975])
        row: Row = {"measure": measure, "balanced": first, "random": second}
        rows.append(row | cells("balanced_less_random", Interval(first - second, float(low), float(high))))
    return rows


def _first(work: ExploreStudy, scores: Any) -> Any:
    return best(scores, np.zeros(scores.shape, dtype=bool), 1)[:, 0]


def slate_rows(work: ExploreStudy, outcomes: Mapping[str, list[Outcome]]) -> list[Row]:
    """One outcome a seed for each method: what its slates bring at its share, against the plain sequence model."""
    visitors, met = np.array(work.visits.users), np.array(work.test.users)
    plain, rows = outcomes[PLAIN], []
    for name, found in outcomes.items():
        row: Row = {"method": name, "explored_share": float(np.mean([each.share for each in found]))}
        for key, users in (("recall", visitors), ("novel_hit", met), ("novelty", visitors), ("positive", visitors)):
            groups = np.tile(users, len(found))
            values = [np.concatenate([getattr(each, key) for each in side]) for side in (found, plain)]
            row |= cells(key, bootstrap_mean(values[0], groups))
            if key in ("recall", "novel_hit") and name != PLAIN:
                row |= cells(f"{key}_against_plain", paired_difference(values[0], values[1], groups))
        rows.append(row)
    return rows


def plane_rows(curves: Mapping[str, list[list[Outcome]]]) -> list[Row]:
    """Novelty and quality of each method at each share, the mean of all seeds: the paper's figure."""
    rows = []
    for name, by_seed in curves.items():
        for same in zip(*by_seed, strict=True):
            row: Row = {"method": name, "label": f"{same[0].share:.0%} explored"}
            for key in ("novelty", "positive", "recall", "novel_hit"):
                row[key] = float(np.nanmean(np.concatenate([getattr(each, key) for each in same])))
            rows.append(row)
    return rows


def uci_rows(outcomes: Mapping[str, list[Outcome]], most: int = 5) -> list[Row]:
    """UCI@N: the share of people who took something of N interests or more out of their slate; N as far as it goes."""
    counts = {name: np.concatenate([each.interests for each in found]) for name, found in outcomes.items()}
    reached = max((int(each.max(initial=0)) for each in counts.values()), default=0)
    levels = range(1, min(most, max(1, reached)) + 1)
    return [{"method": name} | {f"UCI@{n}": float((each >= n).mean()) for n in levels} for name, each in counts.items()]


def tuning_rows(taught: Sequence[Taught]) -> list[Row]:
    """What each look at a model in training found."""
    rows = []
    for each in taught:
        for look in () if each.tuned is None else each.tuned.looks:
            for measure, value in {**look.figures, "validation loss / 10": look.loss / 10}.items():
                series = f"{each.name}: {measure.replace('_', ' ')}"
                rows.append({"model": each.name, "step": look.step, "figure": series, "value": value})
    return rows


def verdict(recall: Sequence[Row], answers: Sequence[Row], curation: Sequence[Row], slates: Sequence[Row]) -> list[str]:
    """Plain words, the worst news first."""
    said: list[tuple[int, str]] = []
    for row in recall:
        if row["method"] != COUNTS:
            for where, key in (
                ("pairs never seen in training", "unseen_against_counts"),
                ("all pairs", "against_counts"),
            ):
                said.append(_compared(f"{row['method']} against the count table on {where}: recall@{K}", row, key))
    kept = [each for each in said if "LLM" in each[1]]
    others = [each for each in said if "LLM" not in each[1] and "at random" not in each[1]]
    for row in answers:
        rate = row["free_match_rate"]
        if rate is not None and "untuned" not in row["method"]:
            word = "reaches" if rate >= 0.99 else "misses"
            kept.append((rate >= 0.99, f"{row['method']}: free match rate {rate:.1%} {word} 99%."))
    for row in curation:
        text = f"Balanced against random curation, {row['measure']}"
        rank, line = _compared(text, row, "balanced_less_random")
        kept.append((2 - rank, line))  # less is better
    for row in slates:
        if "LLM" in row["method"]:
            kept.append(
                _compared(
                    f"Slates of {row['method']}: hit on the first item in a new interest, against the "
                    f"plain model at {row['explored_share']:.0%} explored",
                    row,
                    "novel_hit_against_plain",
                )
            )
    return [line for _, line in sorted(kept, key=lambda each: each[0])] + [line for _, line in others]


def _compared(what: str, row: Row, key: str) -> tuple[int, str]:
    mean, low, high = row[key], row[f"{key}_low"], row[f"{key}_high"]
    rank = 2 if low > 0 else 0 if high < 0 else 1
    word = ("lower", "no difference told", "higher")[rank]
    return rank, f"{what}: {word} ({mean:+.3f} [{low:+.3f}, {high:+.3f}])."
