"""Columns of items or users as slots of one table of embeddings, and as numbers: learnt from training rows alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.dataset import FloatArray, IntArray

Counts = npt.NDArray[np.int64]
EMPTY = 0  # the slot of no value: a vector of zeros
_TEXTS = ("title", "text")
_SHARED = 2  # entities with a value, below which it is no more than another name of the one that has it
_COVERED = 0.25  # share of the training rows with a value in the vocabulary, below which a column is left out


@dataclass(frozen=True)
class Fields:
    """Entity `i` has in field `f` the mean of the embeddings `slots[i, s]` over the `s` with `field_of[s] == f`."""

    names: tuple[str, ...]
    slots: IntArray  # [n, S], numbers of embeddings; EMPTY: none
    field_of: IntArray  # [S]
    size: int  # one more than the greatest slot


def field_columns(table: pl.DataFrame, skip: tuple[str, ...] = ()) -> list[str]:
    """Columns of strings or lists of strings that can tell entities apart: no texts, no ids."""
    kinds = (pl.String, pl.List(pl.String))
    named = [name for name in table.columns if table[name].dtype in kinds and not _is_id(name)]
    return [name for name in named if name not in (*_TEXTS, *skip)]


def number_columns(table: pl.DataFrame, skip: tuple[str, ...] = ()) -> list[str]:
    """Numeric and boolean columns but ids."""
    kinds = [name for name in table.columns if table[name].dtype.is_numeric() or table[name].dtype == pl.Boolean]
    return [name for name in kinds if not _is_id(name) and name not in skip]


def make_fields(
    table: pl.DataFrame, columns: list[str], own: str | None, rows: Counts, begin: int, limits: tuple[int, int, int]
) -> Fields:
    """Vocabularies of `columns`, and of the entity itself where it is named `own`.

    Args:
        rows: Training rows of each entity, [n]: what occurs in none of them is in no vocabulary.
        begin: The first free slot.
        limits: Least training rows of a value that gets its own embedding (the others of a field share one), most
            values of a field, most values of a list that are read.
    """
    candidates: list[tuple[str, list[tuple[object, ...]], int]] = []
    if own is not None:
        candidates.append((own, [(i,) for i in range(table.height)], 1))
    candidates += [(name, [_as_tuple(value) for value in table[name].to_list()], _SHARED) for name in columns]
    names, parts = [], []
    for name, values, shared in candidates:
        part = _slots(values, rows, begin, limits, shared)
        named = (part > begin).any(axis=1)
        telling = rows[named].sum() >= _COVERED * rows.sum() and len(np.unique(part[rows > 0])) > 1
        if telling or name == own:
            names.append(name)
            parts.append(part)
            begin = int(part.max()) + 1
    field_of = np.repeat(np.arange(len(parts)), [part.shape[1] for part in parts]).astype(np.int32)
    slots = np.concatenate([*parts, np.zeros((table.height, 0), np.int32)], axis=1)
    return Fields(tuple(names), slots, field_of, begin)


def _slots(
    values: list[tuple[object, ...]], rows: Counts, begin: int, limits: tuple[int, int, int], shared: int
) -> IntArray:
    """[n, S]: slot `begin` for what is not in the vocabulary, then the values, commonest first."""
    least, most, wide = limits
    counts: Counter[object] = Counter()
    owners: Counter[object] = Counter()
    for listed, n in zip(values, rows.tolist(), strict=True):
        if n:
            counts.update(dict.fromkeys(listed[:wide], n))
            owners.update(set(listed[:wide]))
    known = [value for value, n in counts.items() if n >= least and owners[value] >= shared]
    kept = sorted(known, key=lambda value: (-counts[value], str(value)))[:most]
    numbers = {value: begin + 1 + place for place, value in enumerate(kept)}
    width = max([1, *(len(listed) for listed in values)])
    slots = np.full((len(values), min(width, wide)), EMPTY, dtype=np.int32)
    for i, listed in enumerate(values):
        found = [numbers.get(value, begin) for value in dict.fromkeys(listed[:wide])]
        slots[i, : len(found)] = found
    return slots


def _as_tuple(value: object) -> tuple[object, ...]:
    if value is None or value == "":
        return ()
    return tuple(value) if isinstance(value, list) else (value,)


def _is_id(name: str) -> bool:
    return name == "id" or name.endswith(("_id", "_ids", "_num", "_url"))


@dataclass(frozen=True)
class Scale:
    """Mean and spread of numbers over the training rows; what did not vary there says nothing and becomes 0."""

    mean: FloatArray  # [q]
    spread: FloatArray  # [q]

    @classmethod
    def fit(cls, numbers: FloatArray) -> Scale:
        """Of `numbers` [n, q], NaN left out."""
        known = np.isfinite(numbers)
        count = np.maximum(known.sum(0), 1)
        mean = np.where(known, numbers, 0).sum(0, dtype=np.float64) / count
        spread = np.sqrt((np.where(known, numbers - mean, 0) ** 2).sum(0, dtype=np.float64) / count)
        return cls(mean.astype(np.float32), np.where(spread > 1e-6, spread, np.inf).astype(np.float32))

    def __call__(self, numbers: FloatArray) -> FloatArray:
        """Standardised and cut at 5 spreads; NaN stays."""
        with np.errstate(invalid="ignore"):
            scaled: FloatArray = np.clip((numbers - self.mean) / self.spread, -5, 5).astype(np.float32)
        return np.where(np.isfinite(numbers), scaled, np.float32(np.nan))
