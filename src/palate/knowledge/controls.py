"""Controls of labels: transforms `Knowledge -> Knowledge` that a claim of usefulness must beat.

*noise* is the same shape but random values, *permuted* the true values on the wrong entities. For vectors that a
recommender reads see `palate.experiments.controls`.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from palate.knowledge.tables import Knowledge


def noise(knowledge: Knowledge, seed: int = 0) -> Knowledge:
    """Values are normal noise with the mean and spread of each name's own, clipped to 0..1 as labels are."""
    rng = np.random.default_rng(seed)

    def replaced(table: pl.DataFrame) -> pl.DataFrame:
        mean, spread = pl.col("value").mean().over("name"), pl.col("value").std().over("name")
        drawn = pl.Series("drawn", rng.standard_normal(table.height).astype(np.float32))
        return table.with_columns(value=(mean + spread * drawn).clip(0, 1).cast(pl.Float32))

    return Knowledge({kind: replaced(table) for kind, table in knowledge.tables.items()})


def permuted(knowledge: Knowledge, seed: int = 0) -> Knowledge:
    """Every entity gets another's rows whole: all distributions stay, only the join is wrong."""
    rng = np.random.default_rng(seed)

    def shuffled(table: pl.DataFrame) -> pl.DataFrame:
        entities = table["entity"].unique(maintain_order=True)
        others = entities.gather(rng.permutation(len(entities)))
        return table.with_columns(entity=pl.col("entity").replace_strict(entities, others))

    return Knowledge({kind: shuffled(table) for kind, table in knowledge.tables.items()})
