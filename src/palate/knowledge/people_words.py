"""Golden sets from people's free words for items, and the words worth asking about."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from palate.data.dataset import Dataset
from palate.errors import InputError
from palate.knowledge.attributes import Attribute
from palate.knowledge.golden import golden_from_tags
from palate.knowledge.golden_set import SCHEMA

_LONGEST = 40  # characters of a word that can be asked about


def attributes_from_labels(labels: pl.DataFrame, dataset: Dataset, n: int, fewest: int = 20) -> list[Attribute]:
    """The `n` commonest words of `labels` (item_id, label), each as a yes-or-no question.

    Words that stand in the items' categories are left out: they are shown to whoever is asked. So are words of fewer
    than `fewest` items or of more than half of those that have any.

    Raises:
        InputError: No word is left.
    """
    shown = {word.lower() for words in dataset.items["categories"].drop_nulls() for word in words}
    known = labels.filter(pl.col("item_id").is_in(dataset.item_ids)).unique(["item_id", "label"])
    counts = known.group_by("label").len().filter(pl.col("len") >= fewest)
    counts = counts.filter(
        (pl.col("len") <= known["item_id"].n_unique() / 2) & (pl.col("label").str.len_chars() <= _LONGEST)
    )
    words = counts.filter(~pl.col("label").is_in(list(shown))).sort("len", "label", descending=[True, False])["label"]
    made: dict[str, Attribute] = {}
    for word in words:
        name = re.sub(r"[^a-z0-9]+", "_", word).strip("_")
        if re.match(r"[a-z]", name) and name not in made and len(made) < n:
            question = f"Would people use the word “{word}” for this item?"
            made[name] = Attribute(name=name, question=question, description=word, human_labels=(word,))
    if not made:
        raise InputError(
            "No label is common enough to ask about.",
            got=f"{labels.height} labels, {labels['label'].n_unique()} different",
            allowed=f"a label of {fewest} items or more that is no category",
            hint="Give a folder of attributes with human_labels: --attributes DIR.",
        )
    return list(made.values())


def golden_from_labels(labels: pl.DataFrame, attributes: Sequence[Attribute]) -> pl.DataFrame:
    """Golden rows (`golden_set.SCHEMA`) from `labels` (item_id, label), as `golden_from_tags` reads them."""
    rows = golden_from_tags(labels.select("item_id", tag="label"), attributes)
    rows = rows.with_columns(value=pl.col("label").cast(pl.Float64), label=pl.col("label").cast(pl.String))
    return rows.select((pl.col(c) if c in rows.columns else pl.lit(None).alias(c)).cast(t) for c, t in SCHEMA.items())
