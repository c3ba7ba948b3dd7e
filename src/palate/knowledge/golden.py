"""Golden labels: what people say, and how well every teacher and student agrees with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.dataset import FloatArray
from palate.evaluation.binary import binary_report
from palate.evaluation.bootstrap import Interval, bootstrap_mean
from palate.knowledge.attributes import Attribute

Truth = npt.NDArray[np.float64]  # [n_items, n_names], NaN: nobody judged
MIN_POSITIVES = 5  # fewer say nothing about an attribute


def golden_from_tags(tags: pl.DataFrame, attributes: Sequence[Attribute]) -> pl.DataFrame:
    """Golden rows from people's free tags (`item_id`, `tag`).

    Yes: somebody gave the item one of the attribute's `human_labels`. No: the item is tagged, but by nobody
    with those. A missing tag is no real "no", so precision is understated: AUC is the figure to read.
    """
    plain = tags.select("item_id", tag=pl.col("tag").str.to_lowercase().str.strip_chars())
    items = plain.select("item_id").unique(maintain_order=True)
    tables = []
    for attribute in attributes:
        yes = plain.filter(pl.col("tag").is_in(list(attribute.human_labels))).select("item_id").unique()
        label = pl.col("item_id").is_in(yes["item_id"].implode()).cast(pl.Int8)
        tables.append(items.with_columns(attribute=pl.lit(attribute.name), rater=pl.lit("user tags"), label=label))
    return pl.concat(tables)


def truth_matrix(golden: pl.DataFrame, item_ids: Sequence[str], names: Sequence[str]) -> Truth:
    """[n_items, n_names]: 1 or 0 by the raters' mean value, NaN where nobody was sure or they are split.

    `golden` has the columns item_id, attribute and value (`palate.knowledge.golden_set.SCHEMA`).
    """
    votes = golden.drop_nulls("value").group_by("item_id", "attribute").agg(share=pl.col("value").mean())
    numbers = {item_id: num for num, item_id in enumerate(item_ids)}
    columns = {name: column for column, name in enumerate(names)}
    truth = np.full((len(item_ids), len(names)), np.nan)
    for item_id, attribute, share in votes.iter_rows():
        if attribute in columns and share != 0.5:
            truth[numbers[item_id], columns[attribute]] = float(share > 0.5)
    return truth


@dataclass(frozen=True)
class Agreement:
    """One source against people on one attribute, on the held-out side; `threshold` was chosen on the dev side."""

    attribute: str
    source: str
    n: int
    positives: int
    threshold: float  # NaN: dev has no yes, or no item that the source spoke of
    auc: Interval
    precision: Interval
    recall: Interval
    f1: Interval
    kappa: Interval

    def row(self) -> dict[str, Any]:
        """Flat: `auc`, `auc_low`, `auc_high`, ..."""
        flat: dict[str, Any] = {}
        for name, value in asdict(self).items():
            if isinstance(value, dict):
                flat |= {name: value["mean"], f"{name}_low": value["low"], f"{name}_high": value["high"]}
            else:
                flat[name] = value
        return flat


def measure(
    dev: Truth, held_out: Truth, scores: Mapping[str, FloatArray], names: Sequence[str], seed: int = 0
) -> list[Agreement]:
    """Every source ([n_items, n_names], NaN: said nothing) against people, attribute by attribute.

    AUC, and precision, recall, F1 and kappa at the threshold of the best F1 on `dev`, are taken on `held_out` (both as
    `truth_matrix` gives them), the same way for every source. The row `all` is the mean over attributes with at least
    `MIN_POSITIVES` held-out positives; its interval resamples attributes.
    """
    rows = []
    for source, matrix in scores.items():
        found = []
        for column, name in enumerate(names):
            y, s = _judged(held_out[:, column], matrix[:, column])
            if MIN_POSITIVES <= y.sum() <= len(y) - MIN_POSITIVES:
                threshold = best_threshold(*_judged(dev[:, column], matrix[:, column]))
                ranked = binary_report(y, s, seed=seed)
                yes = np.full(len(s), np.nan) if np.isnan(threshold) else (s >= threshold).astype(np.float64)
                decided = binary_report(y, yes, seed=seed)
                figures = (ranked.auc, decided.precision, decided.recall, decided.f1, decided.kappa)
                found.append(Agreement(name, source, len(y), int(y.sum()), threshold, *figures))
        if len(found) > 1:
            found.append(_mean_of(found, source))
        rows += found
    return rows


def best_threshold(y: npt.NDArray[np.float64], s: npt.NDArray[np.float64]) -> float:
    """The score at which saying yes gives the highest F1; NaN without a yes to find."""
    if not y.sum():
        return float("nan")
    order = np.argsort(-s, kind="stable")
    hits = np.cumsum(y[order])
    f1 = 2 * hits / (np.arange(1, len(y) + 1) + y.sum())
    last_of_tie = np.append(s[order][1:] != s[order][:-1], True)
    return float(s[order][np.argmax(np.where(last_of_tie, f1, -1.0))])


def _judged(truth: npt.NDArray[np.float64], score: FloatArray) -> tuple[npt.NDArray[np.float64], ...]:
    both = ~np.isnan(truth) & ~np.isnan(score)
    return truth[both], score[both].astype(np.float64)


def _mean_of(found: Sequence[Agreement], source: str) -> Agreement:
    figures = {
        figure: bootstrap_mean(np.array([getattr(row, figure).mean for row in found]))
        for figure in ("auc", "precision", "recall", "f1", "kappa")
    }
    n, positives = max(row.n for row in found), sum(row.positives for row in found)
    return Agreement("all", source, n, positives, float("nan"), **figures)
