"""One rater's labels on disk: a label is there, whole, before anybody is told that it was saved."""

from __future__ import annotations

import fcntl
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from palate.data.whole_file import replace_file
from palate.errors import InputError, PalateError, StorageError, printable
from palate.knowledge.golden_set import COLUMNS, OPTIONAL

LONGEST_NAME, LONGEST_COMMENT = 60, 2000  # characters
_LOCK = ".labels.lock"


@dataclass(frozen=True)
class Label:
    """What one rater said of one attribute of one item."""

    item_id: str
    attribute: str
    rater: str
    label: str  # an option, 1, 0 or unsure
    comment: str | None = None
    at: str | None = None
    version: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.item_id, self.attribute

    @property
    def said(self) -> tuple[str, str | None]:
        return self.label, self.comment


class ConflictError(PalateError):
    """Somebody else changed the label meanwhile: another tab of the same rater."""

    def __init__(self, now: Label | None) -> None:
        super().__init__("This was labelled in another window.", got=None if now is None else now.label)
        self.now = now


class RaterLabels:
    """The file `<rater>.csv` of a golden folder.

    A label said again is a row behind the first: readers take the last, and undo takes it away again. The file is
    replaced whole under a lock, so that a kill leaves the old file or the new one, and two windows of one rater, or
    two servers, lose nothing. Rows of other raters and further columns, put there by hand, stay.

    Raises:
        InputError: The file is there but is no CSV with the four columns.
    """

    def __init__(self, folder: Path, rater: str) -> None:
        self.folder, self.rater = folder, rater
        self.path = folder / f"{file_stem(rater)}.csv"

    def current(self) -> dict[tuple[str, str], Label]:
        """The label that holds for each item and attribute."""
        return {label.key: label for label in _labels(self._own(self._read()))}

    def add(self, labels: Sequence[Label]) -> None:
        """Keep `labels`, on the disk when this returns.

        Raises:
            StorageError: They could not be written; what was there before is whole.
        """
        with self._locked():
            self._write(self._behind(labels))

    def say(self, label: Label, seen: tuple[str, str | None] | None) -> None:
        """Keep one label if what the rater saw there (label and comment; None: nothing) still holds.

        Raises:
            ConflictError: Something else is there now.
            StorageError: as `add`.
        """
        with self._locked():
            now = self.current().get(label.key)
            if (None if now is None else now.said) != seen:
                raise ConflictError(now)
            self._write(self._behind([label]))

    def undo(self) -> tuple[Label, Label | None] | None:
        """Take back the newest label; returns it and what holds there now. None: there is nothing to take back."""
        with self._locked():
            table = self._read().with_row_index("_row")
            own = self._own(table)
            if own.is_empty():
                return None
            last = _labels(own.tail(1))[0]
            self._write(table.filter(pl.col("_row") != own["_row"][-1]).drop("_row"))
            return last, self.current().get(last.key)

    def _behind(self, labels: Sequence[Label]) -> pl.DataFrame:
        rows = pl.DataFrame([asdict(label) for label in labels], schema=_SCHEMA)
        return pl.concat([self._read(), rows], how="diagonal")

    def _own(self, table: pl.DataFrame) -> pl.DataFrame:
        return table.filter(pl.col("rater") == self.rater)

    def _read(self) -> pl.DataFrame:
        if not self.path.exists():
            return pl.DataFrame(schema=_SCHEMA)
        try:
            table = pl.read_csv(self.path, infer_schema=False)
        except pl.exceptions.NoDataError:
            return pl.DataFrame(schema=_SCHEMA)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError("This rater's labels are not a readable CSV.", where=str(self.path), got=error) from error
        missing = [column for column in COLUMNS if column not in table.columns]
        if missing:
            got = ", ".join(table.columns)
            raise InputError("A column is missing.", where=f"{self.path}, column {missing[0]}", got=got)
        absent = [pl.lit(None, pl.String).alias(column) for column in OPTIONAL if column not in table.columns]
        return table.with_columns(absent)

    def _write(self, table: pl.DataFrame) -> None:
        replace_file(self.path, table.write_csv().encode())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, of threads and of processes."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / _LOCK).open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise StorageError("The label was not saved.", where=str(self.path), got=error) from error


_SCHEMA = dict.fromkeys((*COLUMNS, *OPTIONAL), pl.String)


def _labels(table: pl.DataFrame) -> list[Label]:
    """Rows as labels; one that names no item, attribute or label was made by hand and says nothing here."""
    whole = table.drop_nulls(COLUMNS).select(*COLUMNS, *OPTIONAL)
    return [Label(**row) for row in whole.iter_rows(named=True)]


def rater_name(text: str) -> str:
    """`text` as a rater's name: spaces put in order.

    Raises:
        InputError: Nothing is left, it is too long, or it holds what cannot be shown.
    """
    name = " ".join(text.split())
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        allowed = f"1 to {LONGEST_NAME} letters, digits or signs"
        raise InputError("This cannot be a rater's name.", where="rater", got=printable(text, 80), allowed=allowed)
    return name


def file_stem(rater: str) -> str:
    """A file name that no rater's name can lead out of the folder, and that no two raters share."""
    slug = re.sub(r"[^a-z0-9]+", "-", rater.lower()).strip("-")[:40]
    if slug == rater:
        return slug
    return f"{slug or 'rater'}-{hashlib.sha256(rater.encode()).hexdigest()[:8]}"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
