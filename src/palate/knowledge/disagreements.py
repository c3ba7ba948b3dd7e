"""Where a source of labels and people disagree, item by item and by kind of item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.dataset import Dataset, FloatArray
from palate.errors import InputError
from palate.knowledge.golden import best_threshold, truth_matrix
from palate.knowledge.keywords import document_tokens, group_keywords
from palate.knowledge.matrix import label_matrix

_CLUSTER = 12  # judged items a cluster holds on average
_MAX_CLUSTERS = 8


@dataclass(frozen=True)
class Disagreements:
    """One source against people on one attribute.

    Attributes:
        judged: Items that people and the source spoke of.
        silent: Items that people judged and the source did not.
        threshold: The value from which the source is taken to say yes.
        errors: Most confident first: item_id, title, kind ("false yes", "false no"), raters, value, margin (how far
            on the wrong side of the threshold, 0..1), confidence, evidence, comments.
        groups: by ("kind", "category", "cluster"), group, judged, false_yes, false_no; most errors first.
    """

    attribute: str
    judged: int
    silent: int
    threshold: float
    errors: pl.DataFrame
    groups: pl.DataFrame


def disagreements(
    golden: pl.DataFrame,
    labels: pl.DataFrame,
    dataset: Dataset,
    attribute: str,
    vectors: FloatArray | None = None,
    threshold: float | None = None,
) -> Disagreements:
    """The errors of `labels` (knowledge rows) on what people judged (`golden`, rows of a golden set).

    Args:
        vectors: [n_items, d], for clusters; rows of items that nobody judged are not read. None: no clusters.
        threshold: None: the one of the best F1 on these items.

    Raises:
        InputError: No item was judged by both.
    """
    ids = dataset.item_ids
    truth = truth_matrix(golden, ids, [attribute])[:, 0]
    score = label_matrix(labels, ids, [attribute])[:, 0].astype(np.float64)
    items = np.flatnonzero(~np.isnan(truth) & ~np.isnan(score))
    if not len(items):
        raise InputError(
            "No item was judged both by people and by this source.",
            where=attribute,
            got=f"{int((~np.isnan(truth)).sum())} items judged by people, {int((~np.isnan(score)).sum())} labelled",
            hint="Label some (palate golden), or let the source answer about items that people judged.",
        )
    y, s = truth[items], score[items]
    if threshold is None:
        best = best_threshold(y, s)
        threshold = 0.5 if np.isnan(best) else best
    wrong = (s >= threshold) - y  # 1: false yes, -1: false no
    silent = int((~np.isnan(truth)).sum()) - len(items)
    errors = _errors(golden, labels, dataset, attribute, items[wrong != 0], s[wrong != 0], threshold)
    groups = _groups(dataset, items, wrong, vectors)
    return Disagreements(attribute, len(items), silent, threshold, errors, groups)


def _errors(
    golden: pl.DataFrame,
    labels: pl.DataFrame,
    dataset: Dataset,
    attribute: str,
    items: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float64],
    threshold: float,
) -> pl.DataFrame:
    room = np.where(scores >= threshold, 1 - threshold, threshold)
    found = pl.DataFrame(
        {
            "item_id": [dataset.item_ids[num] for num in items],
            "title": dataset.items["title"][items.tolist()],
            "kind": ["false yes" if score >= threshold else "false no" for score in scores],
            "value": scores,
            "margin": np.abs(scores - threshold) / np.maximum(room, 1e-9),
        },
        schema_overrides={"item_id": pl.String, "kind": pl.String},
    )
    said = labels.filter(pl.col("name") == attribute).unique("entity", keep="last", maintain_order=True)
    details = [
        (pl.col(c) if c in said.columns else pl.lit(None)).cast(kind).alias(c)
        for c, kind in (("confidence", pl.Float64), ("evidence", pl.String))
    ]
    votes = golden.filter((pl.col("attribute") == attribute) & pl.col("value").is_not_null())
    people = votes.group_by("item_id").agg(raters=pl.len(), comments=pl.col("comment").drop_nulls().str.join("; "))
    found = found.join(said.select(pl.col("entity").alias("item_id"), *details), on="item_id", how="left")
    return found.join(people, on="item_id", how="left").sort("margin", "item_id", descending=[True, False])


def _groups(
    dataset: Dataset, items: npt.NDArray[np.int64], wrong: npt.NDArray[np.float64], vectors: FloatArray | None
) -> pl.DataFrame:
    categories = dataset.items["categories"][items.tolist()].to_list()
    table = [("kind", "all", w) for w in wrong]
    table += [("category", c, w) for w, of in zip(wrong, categories, strict=True) for c in of or ["(none)"]]
    if vectors is not None:
        table += [("cluster", c, w) for w, c in zip(wrong, _clusters(dataset, items, vectors), strict=True)]
    rows = pl.DataFrame(table, schema={"by": pl.String, "group": pl.String, "wrong": pl.Float64}, orient="row")
    counted = rows.group_by("by", "group").agg(
        judged=pl.len(), false_yes=(pl.col("wrong") > 0).sum(), false_no=(pl.col("wrong") < 0).sum()
    )
    order = pl.col("by").replace_strict({"kind": 0, "category": 1, "cluster": 2})
    errors = pl.col("false_yes") + pl.col("false_no")
    return counted.sort(order, errors, "judged", "group", descending=[False, True, False, False])


def _clusters(dataset: Dataset, items: npt.NDArray[np.int64], vectors: FloatArray) -> list[str]:
    """For each item the keywords of its cluster among `items`, by k-means on the vectors."""
    from sklearn.cluster import KMeans

    n = min(_MAX_CLUSTERS, max(1, len(items) // _CLUSTER), len(np.unique(vectors[items], axis=0)))
    numbers = KMeans(n, n_init=4, random_state=0).fit_predict(vectors[items]).astype(np.int64)
    rows = dataset.items[items.tolist()]
    texts = [f"{title} {text or ''}" for title, text in rows.select("title", "text").iter_rows()]
    words = group_keywords([document_tokens(text) for text in texts], numbers)
    return [f"{number + 1}: {', '.join(words[number]) or 'no word of their own'}" for number in numbers]
