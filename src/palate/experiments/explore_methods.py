"""The methods of an exploration study: who names the next interest, who ranks items, and what each slate came to."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from palate.data.dataset import FloatArray, IntArray
from palate.data.splits import TRAIN
from palate.experiments.explore_measures import (
    Lists,
    Numbers,
    Values,
    interests_taken,
    novelty,
    ranked,
    ranked_within,
    taken,
)
from palate.experiments.explore_study import LEVEL, ExploreStudy
from palate.interests.bandit import chosen_bandit
from palate.interests.counts import InterestPopularity, NearestInterest, chosen_count_table
from palate.interests.meetings import first_meetings
from palate.interests.next_interest import AtRandom, best, reciprocal_rank
from palate.models.recommender import Recommender

COUNTS, PLAIN, OWN, BOOSTED, TOWERS = (
    "count table",
    "sequence model",
    "sequence model, new interests only",
    "novelty-boosted sequence model",
    "two-tower",
)
CALIBRATED, BOTH = "LLM, calibrated", "LLM, calibrated + count table"
SHARES = tuple(round(0.1 * k, 1) for k in range(11))
TOLERANCE = 0.95  # of the plain model's recall that a slate must keep in validation: "equal overall recall"
_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
_CONTEXT = 16  # principal components that the bandit sees
Tables = dict[str, list[FloatArray]]  # method to scores [pairs, n_interests] of each seed


def without_llm(work: ExploreStudy) -> Tables:
    """Scores of every pair by the methods that ask no language model."""
    train, held, n = work.train, work.validation.meetings, work.n_interests
    vectors = work.vectors - work.vectors.mean(axis=0)
    axes = np.linalg.svd(vectors, full_matrices=False)[2][:_CONTEXT]
    contexts = NearestInterest.of(np.asarray(vectors @ axes.T, dtype=np.float32), work.interest_of, n).centres
    counts = chosen_count_table(train, held, n)
    bandit = chosen_bandit(work.tree, LEVEL, contexts, train, work.known_in_training, held)
    work.notes.append(
        f"Chosen on validation: back-off of the count table {counts.pair_strength:g} and {counts.single_strength:g} "
        f"pseudo-counts, exploration of the bandit {bandit.alpha:g}."
    )
    methods = (
        counts,
        NearestInterest.of(work.vectors, work.interest_of, n),
        InterestPopularity.of(train, n),
        bandit,
    )
    chance = [AtRandom(n, seed).scores(work.pairs) for seed in range(work.study.seeds)]
    return {method.name: [method.scores(work.pairs)] for method in methods} | {"at random": chance}


def beside_counts(work: ExploreStudy, llm: str, tables: Tables) -> Tables:
    """The method `llm` calibrated, and mixed with the count table; both as validation likes best."""
    even = [calibrated(work, scores) for scores in tables[llm]]
    mixed = [with_counts(work, tables[COUNTS][0], scores) for scores, _ in even]
    work.notes.append(
        f"Chosen on validation for {llm}: share of its bias taken out {even[0][1]:g}, weight beside the count table "
        f"{mixed[0][1]:g} (0: it adds nothing)."
    )
    return {CALIBRATED: [scores for scores, _ in even], BOTH: [scores for scores, _ in mixed]}


def calibrated(work: ExploreStudy, llm: FloatArray) -> tuple[FloatArray, float]:
    """log P(c | pair) less a share of its mean over all pairs, and the share that validation likes best.

    What a model says whatever it is asked is the name's, not the pair's (batch calibration: Zhou et al. 2024, arXiv
    2309.17249).
    """
    held = work.validation
    rows, labels = work.rows(held.meetings.pair), held.meetings.label
    finite = np.isfinite(llm)
    mean = np.where(finite, llm, 0).sum(axis=0) / np.maximum(finite.sum(axis=0), 1)
    made = {share: np.asarray(llm - share * mean, dtype=np.float32) for share in (0.0, 0.5, 1.0)}
    if not len(labels):
        return made[0.0], 0.0
    judged = {
        share: reciprocal_rank(np.where(held.known, -np.inf, scores[rows]), labels) for share, scores in made.items()
    }
    best_share = max(judged, key=lambda share: judged[share])
    return made[best_share], best_share


def with_counts(work: ExploreStudy, counts: FloatArray, llm: FloatArray) -> tuple[FloatArray, float]:
    """log P of the count table plus a weight times that of the LLM, and the weight that validation likes best."""
    held = work.validation
    rows, labels = work.rows(held.meetings.pair), held.meetings.label.astype(np.int64)

    def likelihood(weight: float) -> float:
        scores = np.where(held.known, -np.inf, _mixed(counts, llm, weight)[rows])
        top = scores.max(axis=1, keepdims=True)
        partition = top[:, 0] + np.log(np.exp(scores - top).sum(axis=1))
        return float((scores[np.arange(len(labels)), labels] - partition).mean())

    weight = max(_WEIGHTS, key=likelihood) if len(labels) else 0.0
    return _mixed(counts, llm, weight), weight


def _mixed(counts: FloatArray, llm: FloatArray, weight: float) -> FloatArray:
    possible = np.isfinite(counts) & np.isfinite(llm)
    floor = np.where(np.isfinite(llm), llm, -1e4)
    return np.where(np.isfinite(counts), counts + weight * np.where(possible, llm, floor), -np.inf).astype(np.float32)


def item_models(work: ExploreStudy, seed: int) -> dict[str, Recommender]:
    """The models that rank items, trained on the training events; each stops on validation."""
    from palate.models.sasrec import SasRec, SasRecConfig
    from palate.models.two_tower import TwoTower, TwoTowerConfig

    begun = time.perf_counter()
    report, split = work.study.progress, work.split
    shape = {
        "dimensions": 48,
        "epochs": 12,
        "patience": 2,
        "learning_rate": 3e-3,
        "seed": seed,
        "validation_queries": 500,
    }
    sequence, towers = SasRecConfig(blocks=1, **shape), TwoTowerConfig(**shape)  # type: ignore[arg-type]
    novel = first_meetings(work.dataset, work.interest_of, k=1).place
    labels = np.isin(np.flatnonzero(split.part == TRAIN), novel)

    def told(name: str) -> object:
        return lambda _, done, total, figures: report(f"{name}, seed {seed}", done, total)

    found: dict[str, Recommender] = {
        PLAIN: SasRec(sequence, on_progress=told(PLAIN)).fit(split.train, validation=split.validation),  # type: ignore[arg-type]
        BOOSTED: SasRec(sequence, on_progress=told(BOOSTED), labels=labels).fit(  # type: ignore[arg-type]
            split.train, validation=work.novel_validation
        ),
        TOWERS: TwoTower(towers, on_progress=told(TOWERS)).fit(split.train, validation=split.validation),  # type: ignore[arg-type]
    }
    work.spent[f"training item models, seed {seed}"] = (0, time.perf_counter() - begun)
    return found


@dataclass(frozen=True)
class Outcome:
    """What slates of one method came to at one share of exploration; arrays are by person, `novel_hit` by meeting."""

    share: float
    novelty: Values
    positive: Values  # share of the slate that the person took later
    recall: Values  # share of what the person took later that the slate holds
    interests: Numbers  # of how many interests something was taken out of the slate
    novel_hit: Values  # whether the first item in a new interest is in the slate


class Slates:
    """Judges slates on the study's visits and meetings; the sequence model of one seed ranks what is explored."""

    def __init__(self, work: ExploreStudy, models: Mapping[str, Recommender]) -> None:
        self.work, self.models = work, models
        held = (work.visits_in_validation.queries, work.visits.queries, work.test.queries)
        self.scores = [models[PLAIN].score(queries) for queries in held]
        self.plain = [ranked(scores, queries) for scores, queries in zip(self.scores, held, strict=True)]
        self.unrestricted = self.curve([Lists(plain, plain) for plain in self.plain], (0.0,))[0]

    def of_table(self, table: FloatArray) -> tuple[list[Outcome], float]:
        """Explored by a method's scores [pairs, n_interests]: outcomes by share, and the share of equal recall."""
        work = self.work
        asked = (
            (work.visits_in_validation.pairs, work.visits_in_validation.known),
            (work.visits.pairs, work.visits.known),
            (work.test.meetings.pair, work.test.known),
        )
        picked = [best(table[work.rows(pairs)], known, work.settings.explored) for pairs, known in asked]
        return self._explored(picked)

    def of_own(self) -> tuple[list[Outcome], float]:
        """The sequence model itself says which new interests: its best items in any of them."""
        work = self.work
        knowns = (work.visits_in_validation.known, work.visits.known, work.test.known)
        return self._explored([np.where(known, -1, np.arange(work.n_interests)) for known in knowns])

    def of_model(self, name: str) -> Outcome:
        """A model's own slate, nothing explored."""
        work = self.work
        held = (work.visits_in_validation.queries, work.visits.queries, work.test.queries)
        lists = [ranked(self.models[name].score(queries), queries) for queries in held]
        return self.curve([Lists(each, each) for each in lists], (0.0,))[0]

    def _explored(self, interests: Sequence[Numbers]) -> tuple[list[Outcome], float]:
        work = self.work
        held = (work.visits_in_validation.queries, work.visits.queries, work.test.queries)
        within = [
            ranked_within(scores, queries, work.interest_of, chosen)
            for scores, queries, chosen in zip(self.scores, held, interests, strict=True)
        ]
        lists = [Lists(plain, inside) for plain, inside in zip(self.plain, within, strict=True)]
        return self.curve(lists, SHARES), self._equal_share(lists[0])

    def _equal_share(self, lists: Lists) -> float:
        """The largest share at which validation keeps `TOLERANCE` of the plain model's recall."""
        targets = self.work.visits_in_validation.targets
        if not targets:
            return 0.0
        recalls = [float(_recall(lists.slates(share), targets).mean()) for share in SHARES]
        return max(s for s, recall in zip(SHARES, recalls, strict=True) if recall >= TOLERANCE * recalls[0])

    def curve(self, lists: Sequence[Lists], shares: Sequence[float]) -> list[Outcome]:
        """Outcomes in the test of `lists` (validation visits, test visits, test meetings)."""
        work, found = self.work, []
        firsts = [work.test.meetings.item[i : i + 1] for i in range(len(work.test.meetings))]
        for share in shares:
            slates, on_meetings = lists[1].slates(share), lists[2].slates(share)
            hits = taken(slates, work.visits.targets)
            found.append(
                Outcome(
                    share,
                    novelty(slates, work.visits.known, work.interest_of),
                    np.asarray(hits.mean(axis=1), dtype=np.float64),
                    _recall(slates, work.visits.targets),
                    interests_taken(slates, hits, work.interest_of),
                    np.asarray(taken(on_meetings, firsts).any(axis=1), dtype=np.float64),
                )
            )
        return found


def _recall(slates: Numbers, targets: Sequence[IntArray]) -> Values:
    return np.asarray(taken(slates, targets).sum(axis=1) / np.array([len(items) for items in targets]))
