"""Better definitions from errors: propose on one half of dev, score on the other, keep what is significantly better.

The published loop (Long et al. 2025, arXiv 2510.06657: edge cases of the golden set go back into the definition) with
three guards against fooling oneself: proposals never see the items that score them, the best of K candidates is tested
as one of K (Holm 1979), and a further round is asked only where the one before found something (fixed-sequence
testing). A later round starts from what the scoring half chose, so dev flatters what is kept a little: the last word
is `confirm`, on held-out items, once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from palate.data.dataset import Dataset, IntArray
from palate.errors import InputError
from palate.evaluation.binary import auc
from palate.evaluation.paired import auc_difference, holm
from palate.knowledge.annotate import annotate
from palate.knowledge.attributes import Attribute
from palate.knowledge.disagreements import disagreements
from palate.knowledge.golden import MIN_POSITIVES, truth_matrix
from palate.knowledge.golden_set import GoldenSplit
from palate.knowledge.matrix import label_matrix
from palate.knowledge.proposals import Candidate, asked_for, refusal
from palate.knowledge.tables import SCHEMA
from palate.knowledge.versions import Fate, History, Version, wording
from palate.llm.request import LLM


class RefineConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    rounds: int = Field(default=3, ge=1)
    """At most; the loop stops at the first round in which nothing is significantly better."""
    candidates: int = Field(default=3, ge=1)
    """Wordings asked for in a round."""
    items: int = Field(default=200, ge=10)
    """Items of each half of dev that are asked about, as many true as untrue where there are enough."""
    level: float = Field(default=0.05, gt=0, lt=1)
    """The chance that a round in which no candidate is better keeps one."""
    seed: int = 0


class Judge:
    """Asks about the same judged items with any wording; the ledger sees to it that nothing is asked twice."""

    def __init__(self, golden: pl.DataFrame, dataset: Dataset, name: str, llm: LLM, size: int, seed: int = 0) -> None:
        truth = truth_matrix(golden, dataset.item_ids, [name])[:, 0]
        self.golden, self.dataset, self.name, self.llm = golden, dataset, name, llm
        self.items = balanced(truth, size, seed)
        self.truth = truth[self.items]

    def labels(self, attribute: Attribute) -> pl.DataFrame:
        rows = annotate(self.dataset, self.items, [attribute], self.llm)
        return pl.DataFrame(schema=SCHEMA) if rows.is_empty() else rows

    def scores(self, attribute: Attribute) -> npt.NDArray[np.float64]:
        """Values [n_items]; NaN: not answered."""
        ids = [self.dataset.item_ids[num] for num in self.items]
        return label_matrix(self.labels(attribute), ids, [self.name])[:, 0].astype(np.float64)

    def check(self, where: str) -> None:
        """Raises `InputError` where there are too few judged items to tell wordings apart."""
        yes = int(self.truth.sum())
        if min(yes, len(self.truth) - yes) < MIN_POSITIVES:
            raise InputError(
                "Too few items were judged to tell two wordings apart.",
                where=f"{self.name}, {where}",
                got=f"{yes} true, {len(self.truth) - yes} untrue",
                allowed=f"{MIN_POSITIVES} or more of each",
                hint="Label more items: palate golden sample.",
            )


@dataclass
class Refinement:
    """The way from `start` to `final`; `rounds` holds the versions of each round, refused ones among them."""

    start: Attribute
    final: Attribute
    items: int
    positives: int
    auc: float
    rounds: list[list[Version]] = field(default_factory=list)


def propose_side(split: GoldenSplit) -> GoldenSplit:
    """Which items of dev proposals may be made from (its "dev"); the others score them."""
    return GoldenSplit(f"{split.salt}/refine", 0.5)


def on_side(golden: pl.DataFrame, split: GoldenSplit, proposing: bool) -> pl.DataFrame:
    """Rows of `golden` (dev) on one side of `propose_side`."""
    side = propose_side(split)
    wanted = [item_id for item_id in golden["item_id"].unique() if side.is_dev(item_id) == proposing]
    return golden.filter(pl.col("item_id").is_in(wanted))


def refine(
    attribute: Attribute,
    judge: Judge,
    propose: Callable[[Attribute, int], Sequence[Candidate]],
    history: History,
    config: RefineConfig | None = None,
    others: Sequence[Attribute] = (),
) -> Refinement:
    """Rounds of candidates, each scored by `judge`, until none is significantly better than what stands.

    Args:
        judge: Of the half of dev that scores.
        propose: From what stands and the number of the round to candidates (`by_model`, or a file's); none ends it.
        history: Keeps every candidate with its figures as soon as its round is judged.
        others: The other attributes, for overlap.

    Raises:
        InputError: Too few judged items.
    """
    config = config or RefineConfig()
    judge.check("the scoring half of dev")
    standing = judge.scores(attribute)
    found = Refinement(attribute, attribute, len(judge.items), int(judge.truth.sum()), _auc(judge, standing))
    figures = {"auc": found.auc, "items": found.items, "yes": found.positives, "model": judge.llm.model}
    history.add(attribute.name, _version(attribute, "current", figures=figures))
    for number in range(config.rounds):
        candidates = propose(found.final, number)
        if not candidates:
            break
        versions, better, scores = _round(found.final, standing, candidates, judge, config, others)
        found.rounds.append([history.add(attribute.name, version) for version in versions])
        if better is None:
            break
        found.final, standing = better, scores
    return found


def by_model(
    golden: pl.DataFrame, dataset: Dataset, labeller: LLM, proposer: LLM, config: RefineConfig
) -> Callable[[Attribute, int], Sequence[Candidate]]:
    """Candidates that `proposer` writes from the errors that `labeller` makes on `golden` (the proposing half)."""

    def propose(current: Attribute, number: int) -> Sequence[Candidate]:
        judge = Judge(golden, dataset, current.name, labeller, config.items, config.seed)
        judge.check("the proposing half of dev")
        scores = judge.scores(current)
        known = scores[~np.isnan(scores)]  # below: yes as often as people say it, for errors of both kinds
        as_many = float(np.quantile(known, 1 - judge.truth.mean())) if len(known) else None
        errors = disagreements(golden, judge.labels(current), dataset, current.name, threshold=as_many)
        seed = config.seed + 1000 * number
        return asked_for(current, errors, dataset, proposer, config.candidates, seed=seed)

    return propose


def confirm(start: Attribute, final: Attribute, judge: Judge, seed: int = 0) -> dict[str, Any]:
    """Held-out figures of two wordings, for the final report: `judge` is of the held-out rows, read once."""
    judge.check("held-out")
    old, new = judge.scores(start), judge.scores(final)
    return _figures(judge, new, old, seed) | {"start": start.version, "final": final.version}


def balanced(truth: npt.NDArray[np.float64], size: int, seed: int = 0) -> IntArray:
    """`size` items with a verdict, half of them true where there are enough: AUC does not mind, and is surer of it."""
    rng = np.random.default_rng(seed)
    yes, no = (rng.permutation(np.flatnonzero(truth == verdict)) for verdict in (1, 0))
    n_yes = min(len(yes), max(size // 2, size - len(no)))
    return np.sort(np.concatenate([yes[:n_yes], no[: size - n_yes]])).astype(np.int32)


def _round(
    current: Attribute,
    standing: npt.NDArray[np.float64],
    candidates: Sequence[Candidate],
    judge: Judge,
    config: RefineConfig,
    others: Sequence[Attribute],
) -> tuple[list[Version], Attribute | None, npt.NDArray[np.float64]]:
    """Versions with their figures, the significantly best candidate (None: none is) and its scores."""
    versions: list[Version] = []
    tried: list[Candidate] = []
    scores, figures = [], []
    for one in candidates:
        reason = one.refusal or refusal(one.attribute, current, others)
        if reason is None and one.attribute.version in {other.attribute.version for other in tried}:
            reason = "the same wording as another of this round"
        if reason is not None:
            versions.append(_version(one.attribute, "refused", current, one.by, f"{one.why} [{reason}]".strip()))
            continue
        before = _tokens(judge.llm)
        scores.append(judge.scores(one.attribute))
        tried.append(one)
        figures.append(_figures(judge, scores[-1], standing, config.seed))
        figures[-1] |= {"tokens": _tokens(judge.llm) - before, "model": judge.llm.model}
    adjusted = holm([row["p"] for row in figures])
    passed = [k for k, p in enumerate(adjusted) if p <= config.level and figures[k]["difference"] > 0]
    best = max(passed, key=lambda k: figures[k]["difference"], default=None)
    for k, one in enumerate(tried):
        fate: Fate = "kept" if k == best else "better" if k in passed else "not better"
        row = figures[k] | {"p_holm": float(adjusted[k])}
        versions.append(_version(one.attribute, fate, current, one.by, one.why, row))
    return (versions, None, standing) if best is None else (versions, tried[best].attribute, scores[best])


def _figures(
    judge: Judge, score: npt.NDArray[np.float64], standing: npt.NDArray[np.float64], seed: int
) -> dict[str, Any]:
    """Of one wording against another, on the items that both answered."""
    both = ~(np.isnan(score) | np.isnan(standing))
    yes = int(judge.truth[both].sum())
    figures: dict[str, Any] = {"items": int(both.sum()), "yes": yes, "unanswered": int((~both).sum())}
    if min(yes, int(both.sum()) - yes) < MIN_POSITIVES:  # a wording that the model cannot answer is not better
        return figures | {"auc": None, "difference": 0.0, "p": 1.0}
    found = auc_difference(judge.truth, score, standing, seed=seed)
    span = found.difference
    return figures | {
        "auc": auc(judge.truth[both], score[both]),
        "parent_auc": auc(judge.truth[both], standing[both]),
        "difference": span.mean,
        "low": span.low,
        "high": span.high,
        "p": found.p_value,
    }


def _auc(judge: Judge, score: npt.NDArray[np.float64]) -> float:
    known = ~np.isnan(score)
    return auc(judge.truth[known], score[known])


def _version(
    attribute: Attribute,
    fate: Fate,
    parent: Attribute | None = None,
    by: str = "",
    why: str = "",
    figures: dict[str, Any] | None = None,
) -> Version:
    return Version(
        version=attribute.version,
        parent=None if parent is None else parent.version,
        fate=fate,
        why=why,
        by=by,
        definition=wording(attribute),
        figures=figures or {},
    )


def _tokens(llm: LLM) -> int:
    """What this object has spent so far, where it keeps count."""
    spent = getattr(llm, "spent", None)
    return 0 if spent is None else int(spent.tokens_in + spent.tokens_out)
