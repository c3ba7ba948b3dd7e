"""A golden set: what people said about items, split once into a part to learn from and a part that stays locked."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from palate.errors import InputError, StorageError
from palate.knowledge.attributes import Attribute

COLUMNS = ("item_id", "attribute", "rater", "label")
OPTIONAL = ("comment", "at", "version")  # at: ISO time; version: of the attribute's wording that the rater saw
UNSURE = "unsure"
SCHEMA = {
    "item_id": pl.String,
    "attribute": pl.String,
    "rater": pl.String,
    "value": pl.Float64,  # 1 (the first option) down to 0 (the last); null: unsure
    "label": pl.String,
    **dict.fromkeys(OPTIONAL, pl.String),
}
_SPLIT, _READS = "split.json", "held-out-reads.jsonl"


@dataclass(frozen=True)
class Skipped:
    """Rows that were left out: the first of them, and how many are like it."""

    what: str
    where: str
    got: str
    allowed: str
    count: int

    def __str__(self) -> str:
        return f"{self.count} row(s) left out: {self.what} ({self.where}: {self.got!r}; allowed: {self.allowed})"


@dataclass(frozen=True)
class GoldenSplit:
    """Which items belong to dev. Decided by a salted hash of the id, so that items labelled later have a side too."""

    salt: str
    dev_share: float

    def is_dev(self, item_id: str) -> bool:
        digest = hashlib.sha256(f"{self.salt}:{item_id}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.dev_share * 2**64


class GoldenSet:
    """The golden labels of a folder.

    `dev` may be read as often as one likes: prompts, thresholds and calibration are chosen on it. `held_out` is for
    the final report alone, and each read of it is recorded beside the labels.

    Attributes:
        dev: Rows in `SCHEMA` of the items on the dev side.
        skipped: What was left out when the files were read.
    """

    def __init__(self, folder: Path, rows: pl.DataFrame, skipped: Sequence[Skipped], split: GoldenSplit) -> None:
        self.folder, self.skipped, self.split = folder, tuple(skipped), split
        sides = {item_id: split.is_dev(item_id) for item_id in rows["item_id"].unique()}
        on_dev = pl.Series([sides[item_id] for item_id in rows["item_id"]], dtype=pl.Boolean)
        self.dev, self._locked = rows.filter(on_dev), rows.filter(~on_dev)

    @property
    def key(self) -> str:
        """Hash of labels and split: changes when either does, not when somebody reads."""
        digest = hashlib.sha256(f"{self.split}".encode())
        for table in (self.dev, self._locked):
            digest.update(table.write_csv().encode())
        return digest.hexdigest()[:12]

    @property
    def n_locked(self) -> int:
        """Held-out rows there are."""
        return self._locked.height

    @property
    def judged(self) -> set[str]:
        """Items that somebody labelled, whatever the label: enough to know what is worth asking about."""
        return {*self.dev["item_id"], *self._locked["item_id"]}

    @property
    def answered(self) -> set[tuple[str, str]]:
        """Items with the attributes that somebody labelled, whatever the label."""
        return {pair for rows in (self.dev, self._locked) for pair in rows.select("item_id", "attribute").iter_rows()}

    def worth_asking(self, among: Collection[str], n: int) -> list[str]:
        """As the function of that name, over both sides: which items, and nothing about their labels."""
        return worth_asking(pl.concat([self.dev, self._locked]), among, n)

    def held_out(self, reader: str) -> pl.DataFrame:
        """The locked rows; `reader` (the command, say) goes into the record of reads.

        Raises:
            StorageError: The read cannot be recorded: then it does not happen.
        """
        line = json.dumps({"at": _now(), "reader": reader, "rows": self._locked.height})
        try:
            with (self.folder / _READS).open("a") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError("A read of the held-out labels could not be recorded.", got=error) from error
        return self._locked

    def reads(self) -> list[dict[str, Any]]:
        """When and by whom the held-out labels were read."""
        path = self.folder / _READS
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def read_golden_set(
    folder: Path, item_ids: Sequence[str], attributes: Sequence[Attribute], dev_share: float = 0.5
) -> GoldenSet:
    """All `*.csv` of `folder`; a label is an option, `1` (the first option), `0` (the last) or `unsure`.

    Rows that name an unknown item, attribute or option are left out and reported as `skipped`. The first reading
    draws the split; it is kept in `split.json` and never drawn again.

    Raises:
        InputError: No file, or one that is no CSV with the four columns.
        StorageError: The split cannot be kept.
    """
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise InputError(
            "There are no golden labels.",
            where=str(folder),
            hint=f"Put a CSV with the columns {', '.join(COLUMNS)} there, or label items: palate golden sample.",
        )
    steps = {attribute.name: attribute.steps() for attribute in attributes}
    read = [_read_file(file, set(item_ids), steps) for file in files]
    rows = pl.concat([table for table, _ in read]).unique(COLUMNS[:3], keep="last", maintain_order=True)
    return GoldenSet(folder, rows, [skip for _, found in read for skip in found], golden_split(folder, dev_share))


def golden_split(folder: Path, dev_share: float = 0.5, salt: str | None = None) -> GoldenSplit:
    """The split of `folder`, drawn now if there is none yet; `salt` makes that drawing repeatable.

    Raises:
        InputError: `split.json` is damaged.
        StorageError: It cannot be written.
    """
    path = folder / _SPLIT
    try:
        if not path.exists():
            temporary = path.with_name(f".{_SPLIT}.{os.getpid()}")
            temporary.write_text(json.dumps({"salt": salt or secrets.token_hex(8), "dev_share": dev_share}))
            try:
                os.link(temporary, path)  # fails where another process drew one meanwhile: that one holds
            except FileExistsError:
                pass
            finally:
                temporary.unlink()
        kept = json.loads(path.read_text())
        return GoldenSplit(str(kept["salt"]), float(kept["dev_share"]))
    except OSError as error:
        raise StorageError("The split of the golden set could not be kept.", where=str(path), got=error) from error
    except (ValueError, KeyError, TypeError) as error:
        hint = "Restore it: with another split, what was held out would be seen."
        raise InputError("The split of the golden set is damaged.", where=str(path), got=error, hint=hint) from error


def worth_asking(rows: pl.DataFrame, among: Collection[str], n: int) -> list[str]:
    """`n` of the judged items: half of them with a yes, the attributes taking turns, the rest whichever come.

    A hash of the id decides the order, so that another `n` or other labels change little.
    """
    judged = rows.filter(pl.col("item_id").is_in(list(among)))
    order = sorted(judged["item_id"].unique(), key=lambda item_id: hashlib.sha256(item_id.encode()).digest())
    place = {item_id: at for at, item_id in enumerate(order)}
    yes = judged.filter(pl.col("value") > 0.5).group_by("attribute", maintain_order=True).agg("item_id")
    turns = [sorted(items, key=place.__getitem__) for items in yes["item_id"]]
    chosen: dict[str, None] = {}
    for turn in range(max(map(len, turns), default=0)):
        chosen |= dict.fromkeys(items[turn] for items in turns if turn < len(items))
        if len(chosen) >= n // 2:
            break
    first = [*chosen][: n // 2]
    rest = [item_id for item_id in order if item_id not in {*first}]
    return first + rest[: n - len(first)]


def _read_file(
    file: Path, item_ids: set[str], steps: Mapping[str, Mapping[str, float]]
) -> tuple[pl.DataFrame, list[Skipped]]:
    try:
        table = pl.read_csv(file, infer_schema=False)
    except pl.exceptions.NoDataError:
        return pl.DataFrame(schema=SCHEMA), []
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError("The golden labels are not a readable CSV.", where=str(file), got=error) from error
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        where = f"{file}, column {missing[0]}"
        raise InputError("A column is missing.", where=where, got=", ".join(table.columns), allowed=COLUMNS)
    table = table.with_row_index("row", offset=2)
    values = {name: {**options, "1": 1.0, "0": 0.0, UNSURE: None} for name, options in steps.items()}
    names = table.select("attribute", "label").iter_rows()
    known = [label in values.get(name, {}) for name, label in names]
    found: list[tuple[pl.DataFrame, Skipped]] = []
    for column, good, what, allowed in (
        ("item_id", table["item_id"].is_in(list(item_ids)), "no such item", "ids of the catalogue"),
        ("attribute", table["attribute"].is_in(list(steps)), "no such attribute", ", ".join(sorted(steps))),
        ("rater", table["rater"].is_not_null(), "nobody is named", "a name"),
        ("label", pl.Series(known, dtype=pl.Boolean), "no such option", f"an option, 1, 0 or {UNSURE}"),
    ):
        bad = table.filter(~good.fill_null(False)).join(_rows_of(found), on="row", how="anti")
        if bad.height:
            where = f"{file}, row {bad['row'][0]}, column {column}"
            found.append((bad.select("row"), Skipped(what, where, str(bad[column][0]), allowed, bad.height)))
    table = table.join(_rows_of(found), on="row", how="anti", maintain_order="left")
    value = [values[name][label] for name, label in table.select("attribute", "label").iter_rows()]
    return (
        table.select(
            *COLUMNS,
            *(pl.col(c) if c in table.columns else pl.lit(None, pl.String).alias(c) for c in OPTIONAL),
            value=pl.Series(value, dtype=pl.Float64),
        ).select(list(SCHEMA)),
        [skip for _, skip in found],
    )


def _rows_of(found: Sequence[tuple[pl.DataFrame, Skipped]]) -> pl.DataFrame:
    return pl.concat([rows for rows, _ in found] or [pl.DataFrame(schema={"row": pl.UInt32})])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
