"""A jury: several models, or one model asked in several ways, vote on each label (PoLL, arXiv 2404.18796).

Simulated annotators (arXiv 2407.18370) are the jury of one model whose jurors differ in wording, examples and order
(`annotate(..., juror=k)`): how far they agree is a confidence that one answer's probability does not give.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import polars as pl

from palate.errors import InputError

_PLACE = ("entity", "name")


def empanel(tables: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """All jurors' label rows, one after the other; jurors of one model are told apart (`model#1`, `model#2`, ...)."""
    models = [table["model"][0] for table in tables if table.height]
    named = []
    for number, table in enumerate(tables, start=1):
        alone = not table.height or models.count(table["model"][0]) == 1
        named.append(table if alone else table.with_columns(model=pl.format("{}#{}", "model", pl.lit(number))))
    return pl.concat([table for table in named if table.height] or [pl.DataFrame()], how="diagonal")


def jury(jurors: pl.DataFrame) -> pl.DataFrame:
    """One label row for each entity and name on which the jurors, told apart by `model`, agree or disagree.

    `value` is their mean, `text` the option most voted for (a tie: the one voted for with more confidence),
    `confidence` the share of all jurors who voted for it: a juror who did not answer agrees with nobody.

    Raises:
        InputError: Fewer than two jurors, or two rows of one juror on the same label.
    """
    if not jurors.height or jurors["model"].n_unique() < 2:
        got = ", ".join(jurors["model"].unique()) if jurors.height else "no rows"
        raise InputError(
            "A jury has at least two jurors.", got=got, hint="Raise annotate.jury, or give several tables."
        )
    twice = jurors.filter(pl.struct(*_PLACE, "model").is_duplicated())
    if twice.height:
        got = "{entity}, {name}, {model}".format(**twice.row(0, named=True))
        raise InputError("A juror votes twice on one label.", got=got, allowed="one row each")
    size = jurors["model"].n_unique()
    chosen = (
        jurors.group_by(*_PLACE, "text", maintain_order=True)
        .agg(
            votes=pl.len(),
            sure=pl.col("confidence").sum(),
            **{
                c: pl.col(c).drop_nulls().first()
                for c in ("content_hash", "version", "evidence")
                if c in jurors.columns
            },
        )
        .sort("votes", "sure", descending=True, maintain_order=True)
        .unique(_PLACE, keep="first", maintain_order=True)
        .with_columns(confidence=pl.col("votes") / size)
        .drop("votes", "sure")
    )
    names = sorted(jurors["model"].unique())
    means = jurors.group_by(*_PLACE, maintain_order=True).agg(pl.col("value").mean())
    return means.join(chosen, on=_PLACE, maintain_order="left").with_columns(
        model=pl.lit(f"jury of {size}: {', '.join(names)}"),
        source=pl.lit("llm"),
        prompt_hash=pl.lit(hashlib.sha256("\0".join(names).encode()).hexdigest()[:32]),
    )


def disagreement(jurors: pl.DataFrame) -> pl.DataFrame:
    """For each entity and name: `jurors`, `against` (share voting for another option than most), `spread` of values.

    The most disputed first. Give it an LLM's rows and a student's: where they part, one of them was misled.
    """
    return (
        jurors.group_by(*_PLACE, maintain_order=True)
        .agg(
            jurors=pl.len(),
            against=1 - pl.col("text").value_counts(sort=True).first().struct.field("count") / pl.len(),
            spread=pl.col("value").max() - pl.col("value").min(),
        )
        .sort("against", "spread", descending=True, maintain_order=True)
    )
