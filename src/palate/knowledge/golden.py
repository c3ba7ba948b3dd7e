"""Golden labels: what people say, and how well every teacher and student agrees with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.dataset import FloatArray
from palate.errors import InputError
from palate.evaluation.binary import binary_report
from palate.evaluation.bootstrap import Interval, bootstrap_mean
from palate.knowledge.attributes import Attribute

COLUMNS = ("item_id", "attribute", "rater", "label")
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


def read_golden(folder: Path, item_ids: Sequence[str], attributes: Sequence[Attribute]) -> pl.DataFrame:
    """All `*.csv` of `folder`: item_id, attribute, rater, label (1 or 0); a pair may have several raters.

    Raises:
        InputError: naming file, row and column of the first row that does not fit.
    """
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise InputError(
            "There are no golden labels.",
            where=str(folder),
            hint=f"Put a CSV with the columns {', '.join(COLUMNS)} there.",
        )
    allowed = {
        "item_id": set(item_ids),
        "attribute": {attribute.name for attribute in attributes},
        "label": {"0", "1"},
    }
    return pl.concat([_read_file(file, allowed) for file in files])


def _read_file(file: Path, allowed: Mapping[str, set[str]]) -> pl.DataFrame:
    try:
        table = pl.read_csv(file, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError("The golden labels are not a readable CSV.", where=str(file), got=error) from error
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise InputError(
            "A column is missing.", where=f"{file}, column {missing[0]}", got=", ".join(table.columns), allowed=COLUMNS
        )
    for column, values in allowed.items():
        bad = table.with_row_index("row", offset=2).filter(
            ~pl.col(column).is_in(list(values)) | pl.col(column).is_null()
        )
        if bad.height:
            shown = ", ".join(sorted(values)) if len(values) < 30 else "an id of the data set"
            raise InputError(
                f"{bad.height} golden row(s) do not fit.",
                where=f"{file}, row {bad['row'][0]}, column {column}",
                got=bad[column][0],
                allowed=shown,
                hint="Mend or remove those rows.",
            )
    return table.select("item_id", "attribute", "rater", pl.col("label").cast(pl.Int8))


def truth_matrix(golden: pl.DataFrame, item_ids: Sequence[str], names: Sequence[str]) -> npt.NDArray[np.float64]:
    """[n_items, n_names]: 1 or 0 by the raters' majority, NaN where nobody judged or they are split."""
    votes = golden.group_by("item_id", "attribute").agg(share=pl.col("label").mean())
    numbers = {item_id: num for num, item_id in enumerate(item_ids)}
    columns = {name: column for column, name in enumerate(names)}
    truth = np.full((len(item_ids), len(names)), np.nan)
    for item_id, attribute, share in votes.iter_rows():
        if attribute in columns and share != 0.5:
            truth[numbers[item_id], columns[attribute]] = float(share > 0.5)
    return truth


@dataclass(frozen=True)
class Agreement:
    """One source against people on one attribute. Threshold figures use thresholds chosen on the other half."""

    attribute: str
    source: str
    n: int
    positives: int
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
    truth: npt.NDArray[np.float64], scores: Mapping[str, FloatArray], names: Sequence[str], seed: int = 0
) -> list[Agreement]:
    """Every source ([n_items, n_names], NaN: said nothing) against `truth`, attribute by attribute.

    Precision, recall, F1 and kappa use a threshold that maximises F1 on the other half of the judged items
    (two-fold), the same way for every source. The row `all` is the mean over attributes with at least
    `MIN_POSITIVES` positives; its interval resamples attributes.
    """
    rows = []
    for source, matrix in scores.items():
        found = []
        for column, name in enumerate(names):
            judged = ~np.isnan(truth[:, column]) & ~np.isnan(matrix[:, column])
            y, s = truth[judged, column], matrix[judged, column].astype(np.float64)
            if MIN_POSITIVES <= y.sum() <= len(y) - MIN_POSITIVES:
                found.append(_agreement(name, source, y, s, seed))
        if len(found) > 1:
            found.append(_mean_of(found, source))
        rows += found
    return rows


def _agreement(name: str, source: str, y: npt.NDArray[np.float64], s: npt.NDArray[np.float64], seed: int) -> Agreement:
    half = np.zeros(len(y), dtype=bool)
    rng = np.random.default_rng(seed)
    for value in (0.0, 1.0):  # stratified: each half has its positives
        members = rng.permutation(np.flatnonzero(y == value))
        half[members[: len(members) // 2]] = True
    shifted = np.where(half, s - _best_threshold(y[~half], s[~half]), s - _best_threshold(y[half], s[half]))
    ranked = binary_report(y, s, seed=seed)
    decided = binary_report(y, (shifted >= 0).astype(np.float64), seed=seed)
    return Agreement(
        name, source, len(y), int(y.sum()), ranked.auc, decided.precision, decided.recall, decided.f1, decided.kappa
    )


def _best_threshold(y: npt.NDArray[np.float64], s: npt.NDArray[np.float64]) -> float:
    """The score at which saying yes gives the highest F1."""
    order = np.argsort(-s, kind="stable")
    hits = np.cumsum(y[order])
    f1 = 2 * hits / (np.arange(1, len(y) + 1) + y.sum())
    last_of_tie = np.append(s[order][1:] != s[order][:-1], True)
    return float(s[order][np.argmax(np.where(last_of_tie, f1, -1.0))])


def _mean_of(found: Sequence[Agreement], source: str) -> Agreement:
    figures = {
        figure: bootstrap_mean(np.array([getattr(row, figure).mean for row in found]))
        for figure in ("auc", "precision", "recall", "f1", "kappa")
    }
    n, positives = max(row.n for row in found), sum(row.positives for row in found)
    return Agreement("all", source, n, positives, **figures)
