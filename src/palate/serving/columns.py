"""What items have, in leaf order of the interest tree: the columns that restricts are answered from.

A value that many items have is a row of packed bits, one that few have a sorted list of places: the two containers
of Roaring bitmaps (Chambi et al. 2016, arXiv 1402.6407) without its chunks, as plain arrays that a file is mapped to
and all workers of a host share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.dataset import FloatArray
from palate.errors import InputError
from palate.interests.tree import InterestTree

Positions = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Where: TypeAlias = slice | Positions  # places in leaf order: a stretch of them, or some

SPARSE = 1 / 32  # below this share four bytes a place take less than a bit an item
RESERVED = ("attr", "node", "leaf", "category", "seen", "and", "or", "not", "in")
_MOST_VALUES = 4096  # a column of texts with more values is prose, not a category
_COLUMNS = {"field": pl.String, "value": pl.String, "kind": pl.String, "start": pl.Int64, "count": pl.Int64}


@dataclass(frozen=True)
class Having:
    """Which items have a value: `bits` [ceil(n_items / 8)] uint8, lowest bit first, or sorted `places` uint32."""

    count: int
    bits: npt.NDArray[np.uint8] | None = None
    places: npt.NDArray[np.uint32] | None = None

    def holds(self, where: Where) -> Mask:
        """For each of the places whether its item has the value."""
        if self.places is not None:
            return in_list(self.places, where)
        assert self.bits is not None
        if isinstance(where, slice):
            stretch = np.unpackbits(self.bits[where.start // 8 : -(-where.stop // 8)], bitorder="little")
            offset = where.start % 8
            return stretch.view(np.bool_)[offset : offset + where.stop - where.start]
        found: Mask = (self.bits[where >> 3] >> (where & 7).astype(np.uint8) & 1).view(np.bool_)
        return found


@dataclass(frozen=True)
class ItemColumns:
    """`values` by field and value; `numbers` [n_items] float64, NaN where there is none; all in leaf order.

    `probabilities` of attributes are by item_num, as a snapshot holds them.
    """

    tree: InterestTree
    values: Mapping[str, Mapping[str, Having]] = field(default_factory=dict)
    numbers: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    probabilities: Mapping[str, FloatArray] = field(default_factory=dict)

    @cached_property
    def attribute_bits(self) -> tuple[list[str], npt.NDArray[np.uint8], Floats, Floats]:
        """Attributes that any item has: their names, packed bits [A, ceil(n_items / 8)], shares of the items, and the
        standard deviations of whether an item has one."""
        n = len(self.tree.order)
        havings = {name: each for name, each in self.values.get("attr", {}).items() if each.count}
        bits = [each.bits if each.places is None else packed(each.places, n) for each in havings.values()]
        base = np.array([each.count / n for each in havings.values()])
        rows = np.array(bits, dtype=np.uint8) if bits else np.zeros((0, -(-n // 8)), dtype=np.uint8)
        return list(havings), rows, base, np.sqrt(base * (1 - base))


def make_columns(
    tree: InterestTree,
    attributes: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    items: pl.DataFrame | None = None,
    probabilities: Mapping[str, FloatArray] | None = None,
    like: ItemColumns | None = None,
) -> ItemColumns:
    """Columns of attributes (masks [n_items] by item_num) and of the items' own: `categories`, numbers and words.

    Left out are columns whose name is a word of the language of restricts, and texts that hardly repeat. With `like`
    there are just the fields and values that it has, also those that no item of these has.

    Raises:
        InputError: for items of another number than the tree's.
    """
    n = len(tree.order)
    values = {"attr": {name: _having(np.flatnonzero(mask[tree.order]), n) for name, mask in (attributes or {}).items()}}
    numbers: dict[str, npt.NDArray[np.float64]] = {}
    ordered = None if items is None else _fitting(items, n)[tree.order]
    for column in () if ordered is None else ordered.iter_columns():
        kind, name = column.dtype, column.name
        if name == "categories":
            values["category"] = _by_value(column, n)
        elif name in RESERVED:
            continue
        elif kind.is_numeric() or kind == pl.Boolean:
            numbers[name] = column.cast(pl.Float64).fill_null(np.nan).to_numpy()
        elif name not in ("item_id", "title", "text") and (kind == pl.String or kind == pl.List(pl.String)):
            found = column.explode() if kind != pl.String else column
            if like is not None or 2 * found.n_unique() <= min(n, 2 * _MOST_VALUES):
                values[name] = _by_value(column, n)
    made = ItemColumns(tree, values, numbers, probabilities or {})
    return made if like is None else _alike(made, like)


def _alike(made: ItemColumns, like: ItemColumns) -> ItemColumns:
    n = len(made.tree.order)
    nothing, no_number = _having(np.zeros(0, dtype=np.uint32), n), np.full(n, np.nan)
    unlikely = np.full(n, np.nan, dtype=np.float32)
    return ItemColumns(
        made.tree,
        {
            name: {value: made.values.get(name, {}).get(value, nothing) for value in havings}
            for name, havings in like.values.items()
        },
        {name: made.numbers.get(name, no_number) for name in like.numbers},
        {name: made.probabilities.get(name, unlikely) for name in like.probabilities},
    )


def save_columns(columns: ItemColumns, folder: Path) -> None:
    """Write `columns.parquet` and the arrays it points into."""
    n_bytes = -(-len(columns.tree.order) // 8)
    rows: list[tuple[str, str, str, int, int]] = []
    bits: list[npt.NDArray[np.uint8]] = []
    places: list[npt.NDArray[np.uint32]] = []
    n_places = 0
    for name, havings in columns.values.items():
        for value, having in havings.items():
            if having.bits is not None:
                rows.append((name, value, "bits", len(bits), having.count))
                bits.append(having.bits)
            elif having.places is not None:
                rows.append((name, value, "places", n_places, having.count))
                places.append(having.places)
                n_places += having.count
    rows += [(name, "", "number", row, len(columns.tree.order)) for row, name in enumerate(columns.numbers)]
    pl.DataFrame(rows, schema=_COLUMNS, orient="row").write_parquet(folder / "columns.parquet")
    np.save(folder / "bits.npy", np.stack(bits) if bits else np.zeros((0, n_bytes), dtype=np.uint8))
    np.save(folder / "places.npy", np.concatenate(places) if places else np.zeros(0, dtype=np.uint32))
    numbers = list(columns.numbers.values())
    np.save(folder / "numbers.npy", np.stack(numbers) if numbers else np.zeros((0, len(columns.tree.order))))


def columns_from(
    table: pl.DataFrame,
    arrays: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32], npt.NDArray[np.float64]],
    tree: InterestTree,
    probabilities: Mapping[str, FloatArray],
) -> ItemColumns:
    """What `save_columns` wrote, as views of the (mapped) arrays `bits`, `places` and `numbers`."""
    bits, places, numbers = arrays
    values: dict[str, dict[str, Having]] = {"attr": {}}
    columns: dict[str, npt.NDArray[np.float64]] = {}
    for name, value, kind, start, count in table.iter_rows():
        if kind == "number":
            columns[name] = numbers[start]
        elif kind == "bits":
            values.setdefault(name, {})[value] = Having(count, bits=bits[start])
        else:
            values.setdefault(name, {})[value] = Having(count, places=places[start : start + count])
    return ItemColumns(tree, values, columns, probabilities)


def _fitting(items: pl.DataFrame, n: int) -> pl.DataFrame:
    if items.height != n:
        raise InputError("The items do not fit the tree", where="items", got=items.height, allowed=f"{n} rows")
    return items


def _by_value(column: pl.Series, n: int) -> dict[str, Having]:
    """Of texts or lists of texts, in leaf order."""
    table = pl.DataFrame({"value": column, "place": pl.int_range(n, dtype=pl.UInt32, eager=True)})
    if column.dtype != pl.String:
        table = table.explode("value")
    groups = table.drop_nulls("value").unique().sort("value", "place").group_by("value", maintain_order=True)
    return {str(key[0]): _having(group["place"].to_numpy(), n) for key, group in groups}


def _having(places: npt.NDArray[np.integer], n: int) -> Having:
    if len(places) < SPARSE * n or not len(places):
        return Having(len(places), places=places.astype(np.uint32))
    return Having(len(places), bits=packed(places, n))


def packed(places: npt.NDArray[np.integer], n: int) -> npt.NDArray[np.uint8]:
    mask = np.zeros(n, dtype=np.bool_)
    mask[places] = True
    return np.packbits(mask, bitorder="little")


def union(lists: Iterable[npt.NDArray[np.uint32]]) -> Positions:
    """Sorted, each place once."""
    found = list(lists)
    if len(found) == 1:
        return found[0].astype(np.int64)
    return np.unique(np.concatenate([*found, np.zeros(0, dtype=np.uint32)])).astype(np.int64)


def in_list(places: npt.NDArray[np.integer], where: Where) -> Mask:
    """For each place of `where` whether it is one of the sorted `places`."""
    if isinstance(where, slice):
        low, high = np.searchsorted(places, [where.start, where.stop])
        mask = np.zeros(where.stop - where.start, dtype=np.bool_)
        mask[places[low:high].astype(np.int64) - where.start] = True
        return mask
    if not len(places):
        return np.zeros(len(where), dtype=np.bool_)
    found = np.minimum(np.searchsorted(places, where.astype(places.dtype)), len(places) - 1)
    return np.asarray(places[found] == where)
