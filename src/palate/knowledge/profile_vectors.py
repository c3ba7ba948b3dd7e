"""Answers about users and items as matrices: closed answers as their probabilities, notes through an encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from palate.data.dataset import FloatArray
from palate.knowledge.profiles import notes
from palate.knowledge.store import in_schema
from palate.knowledge.tables import SCHEMA
from palate.llm.encoders import Encoder


def vector_rows(rows: pl.DataFrame, encoder: Encoder) -> pl.DataFrame:
    """Rows of kind `vector`, one for each entity and `as_of` of `rows`, with their provenance.

    Closed answers: the log-probabilities of all factors' values side by side, less their mean over each factor, so that
    users and items stand in one space. Notes: what `encoder` makes of their text.
    """
    if rows.is_empty():
        return pl.DataFrame(schema=SCHEMA)
    moment = pl.col("as_of").cast(pl.Int64).cast(pl.String).fill_null("")
    keyed = rows.with_columns(key=pl.col("entity") + "\0" + moment)  # versions of an entity stand apart
    first = keyed.unique("key", keep="first", maintain_order=True)
    apart, keys = keyed.with_columns(entity="key"), first["key"].to_list()
    if rows["vector"].null_count() == rows.height:
        said, model = notes(apart), first["model"] + f" + {encoder.name}"
        vectors = encoder.encode([said[key] for key in keys]).tolist()
    else:
        closed, model = _log_odds(apart), first["model"]
        vectors = [closed[key].tolist() for key in keys]
    made = pl.Series("vector", vectors, dtype=pl.List(pl.Float32))
    kept = first.select("entity", "source", "content_hash", "prompt_hash", "as_of")
    return in_schema("vector", kept.with_columns(made, model=model, name=pl.lit("knowledge")))


def _log_odds(rows: pl.DataFrame) -> dict[str, FloatArray]:
    """By entity [sum of the factors' values]; a factor without an answer is even."""
    widths = {name: len(vector) for name, vector in rows.select("name", "vector").drop_nulls().iter_rows()}
    begins = dict(zip(widths, np.cumsum([0, *widths.values()]).tolist(), strict=False))
    found: dict[str, FloatArray] = {}
    for entity, name, vector in rows.select("entity", "name", "vector").drop_nulls().iter_rows():
        row = found.setdefault(entity, np.zeros(sum(widths.values()), dtype=np.float32))
        logs = np.log(np.maximum(np.asarray(vector, dtype=np.float32), 1e-6))
        row[begins[name] : begins[name] + widths[name]] = logs - logs.mean()
    return found


def same_space(users: FloatArray, items: FloatArray, width: int) -> tuple[FloatArray, FloatArray]:
    """Both sides on the first principal axes of what is known of either, at most `width`, in units of their spread.

    Each side is centred on its own: that notes about people differ from notes about items says nothing of either. Rows
    of zeros stay. Sides of different widths get axes of their own.
    """
    if users.shape[1] != items.shape[1]:
        return _on_axes(users, _axes([users], width)), _on_axes(items, _axes([items], width))
    axes = _axes([users, items], width)
    return _on_axes(users, axes), _on_axes(items, axes)


def _axes(sides: Sequence[FloatArray], width: int) -> FloatArray:
    """[n, width]: principal axes of the centred sides together, each divided by the spread along it."""
    centred = [side[side.any(axis=1)] - side[side.any(axis=1)].mean(axis=0) for side in sides if side.any()]
    if not centred:
        return np.zeros((sides[0].shape[1], 0), dtype=np.float32)
    weighed = np.concatenate([side / np.sqrt(len(side)) for side in centred])
    _, lengths, right = np.linalg.svd(weighed.astype(np.float64), full_matrices=False)
    kept = min(width, int((lengths > 1e-6 * lengths[0]).sum())) if lengths[0] > 0 else 0
    spread = lengths[:kept] / np.sqrt(len(centred))
    return np.asarray(right[:kept].T / spread, dtype=np.float32)


def _on_axes(side: FloatArray, axes: FloatArray) -> FloatArray:
    known = side.any(axis=1)
    made = np.zeros((len(side), axes.shape[1]), dtype=np.float32)
    if known.any():
        made[known] = (side[known] - side[known].mean(axis=0)) @ axes
    return made
