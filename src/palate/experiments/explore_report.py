"""The rows of an exploration study's report; intervals are over people, the figures of several seeds together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from palate.evaluation.bootstrap import Interval, bootstrap_mean, paired_difference
from palate.experiments.explore_llm import PERMUTED, RANDOM, TUNED, UNTUNED, Taught
from palate.experiments.explore_measures import Values, evenness, found_interest, resampled_evenness
from palate.experiments.explore_methods import COUNTS, PLAIN, Outcome, Tables
from palate.experiments.explore_study import ExploreStudy
from palate.interests.next_interest import best

Row = dict[str, Any]
KS = (1, 3, 5)
K = 3  # of the figures that are compared
UNSEEN = "pairs never seen in training"


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


def words_rows(work: ExploreStudy, tables: Tables) -> list[Row]:
    """What knowing the words is worth: the tuned model less the one tuned on shuffled names, on the same meetings."""
    if not {TUNED, PERMUTED} <= set(tables):
        return []
    held, rows = work.test, []
    users, unseen = np.tile(np.array(held.users), work.study.seeds), np.tile(held.unseen, work.study.seeds)
    hits = recalls(work, {name: tables[name] for name in (TUNED, PERMUTED)}, K)
    for where, kept in (("all pairs", np.ones(len(unseen), dtype=bool)), (UNSEEN, unseen)):
        row: Row = {"on": where}
        for name, column in ((TUNED, "names"), (PERMUTED, "shuffled_names")):
            row |= cells(column, bootstrap_mean(hits[name][kept], users[kept]))
        difference = paired_difference(hits[TUNED][kept], hits[PERMUTED][kept], users[kept])
        rows.append(row | cells("names_less_shuffled", difference))
    return rows


def curation_rows(work: ExploreStudy, tables: Tables) -> list[Row]:
    """Balanced against random curation on the same pairs, by the bootstrap over pairs."""
    if not {TUNED, RANDOM} <= set(tables):
        return []
    answers = [_first(work, tables[name][0]) for name in (TUNED, RANDOM)]
    even = [evenness(each, work.n_interests) for each in answers]
    differences = resampled_evenness(answers[0], answers[1], work.n_interests)
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


def verdict(
    recall: Sequence[Row], answers: Sequence[Row], words: Sequence[Row], curation: Sequence[Row], slates: Sequence[Row]
) -> list[str]:
    """Plain words, the worst news first; what says nothing of a language model comes last."""
    said: list[tuple[int, str]] = []
    by_llm = [row for row in recall if "LLM" in row["method"]]
    for row in by_llm:
        for where, key in ((UNSEEN, "unseen_against_counts"), ("all pairs", "against_counts")):
            said.append(_compared(f"Recall@{K} of {row['method']} less the count table's on {where}", row, key))
    for row in answers:
        rate = row["free_match_rate"]
        if rate is not None and row["method"] != UNTUNED:
            word = "reaches" if rate >= 0.99 else "misses"
            said.append((2 if rate >= 0.99 else 0, f"{row['method']}: free match rate {rate:.1%} {word} 99%."))
    for row in words:
        said.append(
            _compared(f"Recall@{K} with names less with shuffled names on {row['on']}", row, "names_less_shuffled")
        )
    for row in curation:
        rank, line = _compared(f"{row['measure']} of balanced less random curation", row, "balanced_less_random")
        said.append((2 - rank, line))  # less is better
    for row in slates:
        if "LLM" in row["method"]:
            what = f"Hits on first items in new interests, {row['method']} at {row['explored_share']:.0%} explored"
            said.append(_compared(f"{what} less the plain model's", row, "novel_hit_against_plain"))
    others = [row for row in recall if row not in by_llm and row["method"] not in (COUNTS, "at random")]
    rest = [
        _compared(f"Recall@{K} of {r['method']} less the count table's on all pairs", r, "against_counts")
        for r in others
    ]
    return [
        _headline(by_llm),
        *(line for _, line in sorted(said, key=lambda each: each[0])),
        *(line for _, line in rest),
    ]


def _headline(by_llm: Sequence[Row]) -> str:
    """Does the LLM beat the count table on unseen pairs? Of the tuned model; without one, of the untuned."""
    row = next((row for row in by_llm if row["method"] == TUNED), next(iter(by_llm), None))
    if row is None:
        return f"No language model was asked: whether one beats the count table on {UNSEEN} is not known."
    mean, low, high = (row[f"unseen_against_counts{end}"] for end in ("", "_low", "_high"))
    if np.isnan(mean):
        return f"No held-out person had one of the {UNSEEN}: whether the LLM beats the count table there is not known."
    word = "beats" if low > 0 else "loses to" if high < 0 else "neither beats nor loses to"
    figures = f"recall@{K} {row[f'unseen_recall@{K}']:.3f}, {mean:+.3f} [{low:+.3f}, {high:+.3f}] against it"
    return f"On {UNSEEN} the {row['method'].removeprefix('LLM, ')} LLM {word} the count table: {figures}.".replace(
        "untuned LLM LLM", "untuned LLM"
    )


def _compared(what: str, row: Row, key: str) -> tuple[int, str]:
    mean, low, high = row[key], row[f"{key}_low"], row[f"{key}_high"]
    rank = 2 if low > 0 else 0 if high < 0 else 1
    word = ("below nought", "not told from nought", "above nought")[rank]
    return rank, f"{what}: {mean:+.3f} [{low:+.3f}, {high:+.3f}], {word}."
