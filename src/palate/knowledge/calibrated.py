"""Labels whose probabilities mean what they say: each attribute's map is fitted on people's dev labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import polars as pl

from palate.evaluation.calibration import Method, calibrate
from palate.knowledge.attributes import Attribute
from palate.knowledge.golden import truth_matrix
from palate.knowledge.matrix import label_matrix


def calibrated_labels(
    labels: pl.DataFrame,
    dev: pl.DataFrame,
    item_ids: Sequence[str],
    attributes: Sequence[Attribute],
    method: Method | Literal["auto"] = "auto",
) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
    """`labels` with mapped `value`, and `text` and `confidence` to match; and for each attribute what that was worth.

    Attributes of more than two options are left as they are, as are those with too few dev labels: the report's `note`
    says so.

    Args:
        dev: Golden rows of the dev side.
    """
    names = [attribute.name for attribute in attributes]
    truth, said = truth_matrix(dev, item_ids, names), label_matrix(labels, item_ids, names)
    parts, reports = [], []
    for column, attribute in enumerate(attributes):
        rows = labels.filter(pl.col("name") == attribute.name)
        if len(attribute.options) > 2:
            reports.append({"attribute": attribute.name, "method": "none", "note": "more than two options"})
        else:
            both = ~np.isnan(truth[:, column]) & ~np.isnan(said[:, column])
            mapped, report = calibrate(said[both, column], truth[both, column], method)
            reports.append({"attribute": attribute.name, **asdict(report)})
            rows = rows if report.method == "none" else _with(rows, mapped(rows["value"].to_numpy()), attribute)
        parts.append(rows)
    strange = labels.filter(~pl.col("name").is_in(names))
    return pl.concat([*parts, strange], how="vertical_relaxed"), reports


def _with(rows: pl.DataFrame, values: Any, attribute: Attribute) -> pl.DataFrame:
    yes, no = attribute.options
    return rows.with_columns(
        value=pl.Series(values),
        text=pl.Series(np.where(values >= 0.5, yes, no).tolist(), dtype=pl.String),
        confidence=pl.Series(np.maximum(values, 1 - values)),
    )
