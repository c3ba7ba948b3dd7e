"""The exploration table: what comes next for every pair of interests, in one memory-mapped file.

The look-up of LLMs for User Interest Exploration (Wang et al. 2024, arXiv 2405.16363): all 761 x 761 pairs are
answered offline, and serving reads a row. Interests are two bytes, probabilities two, the hash of the request that
was asked sixteen. Where nearly all pairs are there a row's place is computed; else, and for more than two interests,
the tuples that occur are found by bisection.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.dataset import FloatArray, IntArray
from palate.data.whole_file import replace_file
from palate.errors import InputError, StorageError

FORMAT = 1
NONE = 65_535  # no interest; no probability
_MAGIC = b"palate interests"  # 16 bytes
_HEAD = 4096  # bytes before the arrays, header included; it grows in steps of this
_MODELS = 255
_HASH = 16  # bytes
_DENSE = 0.5  # from this share of all pairs on, absent ones take room too
Numbers = npt.NDArray[np.integer]
_PARTS: dict[str, npt.DTypeLike] = {"keys": "<u8", "next": "<u2", "share": "<u2", "asked": "u1", "by": "u1"}


@dataclass(frozen=True)
class InterestTable:
    """Rows by key of the tuple; see `make_table`. Arrays may be views of a file, and must not be written to."""

    n_interests: int
    k: int
    ordered: bool
    models: tuple[str, ...]
    keys: npt.NDArray[np.uint64]  # [rows] ascending; empty: a row's place is its key
    next: npt.NDArray[np.uint16]  # [rows, n], best first, NONE where there is none
    share: npt.NDArray[np.uint16]  # [rows, n], 65,534 parts of 1
    asked: npt.NDArray[np.uint8]  # [rows, 16]
    by: npt.NDArray[np.uint8]  # [rows], place in `models`
    about: str = ""  # `names_digest` of the interests, where it is known

    @property
    def dense(self) -> bool:
        return len(self.keys) < len(self.next)

    @property
    def digest(self) -> str:
        """Of all that is in it."""
        found = hashlib.sha256(f"{self.n_interests} {self.k} {self.ordered} {self.models} {self.about}".encode())
        for name in _PARTS:
            found.update(np.ascontiguousarray(getattr(self, name)).data)
        return found.hexdigest()[:32]

    def rows_of(self, tuples: Numbers) -> npt.NDArray[np.int64]:
        """The row of each of `tuples` [n, k], -1 where the table has none."""
        keys = _keys(np.asarray(tuples), self.n_interests, self.k, self.ordered, self.dense)
        if not len(self.next):
            return np.full(len(keys), -1)
        if self.dense:
            return np.where(self.next[keys, 0] == NONE, -1, keys)
        rows = np.minimum(np.searchsorted(self.keys, keys.astype(np.uint64)), len(self.keys) - 1)
        return np.where(self.keys[rows] == keys.astype(np.uint64), rows, -1)

    def look_up(self, tuples: Numbers) -> tuple[IntArray, FloatArray]:
        """What comes next, best first, and how probable it is: both [n, candidates].

        -1 where there is none; NaN where the model that was asked gives no probability.

        Raises:
            InputError: Not k interests a row, or a number that is no interest.
        """
        rows = self.rows_of(tuples)
        if not len(self.next):
            absent = np.full((len(rows), self.next.shape[1]), -1, dtype=np.int32)
            return absent, np.full(absent.shape, np.nan, dtype=np.float32)
        found = np.where(rows[:, None] >= 0, self.next[rows], NONE).astype(np.int32)
        share = self.share[rows]
        likely = np.where(share == NONE, np.nan, share / np.float32(NONE - 1)).astype(np.float32)
        return np.where(found == NONE, -1, found), likely

    def source(self, row: int) -> tuple[str, str]:
        """The model that was asked for a row, and the key of its request in the ledger."""
        return self.models[self.by[row]], self.asked[row].tobytes().hex()

    def as_rows(self, nodes: Sequence[int]) -> pl.DataFrame:
        """A table of pairs in the schema of `transitions.parquet`; `nodes[i]` is the tree's number of interest i."""
        if self.k != 2:
            raise InputError("Only a table of pairs can be written as transitions.", got=f"{self.k} interests a row")
        numbers = np.asarray(nodes, dtype=np.int32)
        pairs = _tuples(self)
        keep = np.flatnonzero(self.next[:, 0] != NONE)
        row, place = np.nonzero(self.next[keep] != NONE)
        row = keep[row]
        share = self.share[row, place]
        hashes = np.array([value.tobytes().hex() for value in self.asked]) if len(self.asked) else np.zeros(0, str)
        return pl.DataFrame(
            {
                "node_a": numbers[pairs[row, 0]],
                "node_b": numbers[pairs[row, 1]],
                "next_node": numbers[self.next[row, place]],
                "probability": np.where(share == NONE, np.nan, share / np.float32(NONE - 1)).astype(np.float32),
                "model": np.array(self.models, dtype=object)[self.by[row]].tolist(),
                "prompt_hash": hashes[row].tolist(),
            }
        ).with_columns(pl.col("probability").fill_nan(None), pl.col("model", "prompt_hash").cast(pl.String))


def names_digest(names: Sequence[str]) -> str:
    """Of the interests a table is about, in their order."""
    return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()[:32]


def make_table(
    n_interests: int,
    tuples: Numbers,
    candidates: Numbers,
    probabilities: FloatArray,
    models: Sequence[str],
    hashes: Sequence[str],
    *,
    ordered: bool = False,
    about: str = "",
) -> InterestTable:
    """A table of what was answered.

    Args:
        tuples: [n, k] interests; their order counts only if `ordered`.
        candidates: [n, c], best first, -1 for none.
        probabilities: [n, c], NaN where the model gives none.
        models: Who was asked, one a row.
        hashes: `Request.key` of what was asked, one a row ("" if unknown).
        about: `names_digest` of the interests: a table of other interests is told by it.

    Raises:
        InputError: Shapes that disagree, numbers that are no interests, a tuple that is there twice, too many
            interests (65,534), models (255) or tuples (2**63).
    """
    tuples, candidates = np.asarray(tuples), np.asarray(candidates)
    n, k = tuples.shape
    _check(n_interests, tuples, candidates, probabilities, models, hashes)
    total = n_interests**2 if ordered else n_interests * (n_interests + 1) // 2
    dense = k == 2 and n >= _DENSE * total
    keys = _keys(tuples, n_interests, k, ordered, dense)
    order = np.argsort(keys, kind="stable")
    twice = np.flatnonzero(np.diff(keys[order]) == 0)
    if len(twice):
        raise InputError("A tuple of interests has two rows.", got=tuples[order[twice[0] + 1]].tolist())
    names = sorted(set(models))
    place = {name: number for number, name in enumerate(names)}
    rows = keys[order] if dense else np.arange(n)
    size = total if dense else n
    parts: dict[str, Any] = {name: np.zeros((size, candidates.shape[1]), np.uint16) for name in ("next", "share")}
    parts |= {"asked": np.zeros((size, _HASH), np.uint8), "by": np.zeros(size, np.uint8)}
    parts["next"][:] = NONE
    parts["next"][rows] = np.where(candidates[order] < 0, NONE, candidates[order])
    likely = np.asarray(probabilities, dtype=np.float64)[order]
    parts["share"][rows] = np.where(np.isnan(likely), NONE, np.rint(np.nan_to_num(likely) * (NONE - 1)))
    joined = b"".join(bytes.fromhex(text or "00" * _HASH) for text in hashes)
    parts["asked"][rows] = np.frombuffer(joined, np.uint8).reshape(-1, _HASH)[order]
    parts["by"][rows] = np.array([place[name] for name in models], dtype=np.uint8)[order]
    kept = np.zeros(0, np.uint64) if dense else keys[order].astype(np.uint64)
    return InterestTable(n_interests, k, ordered, tuple(names), kept, **parts, about=about)


def save_table(table: InterestTable, path: Path) -> int:
    """Write the table whole or not at all; the bytes written.

    Raises:
        StorageError: It cannot be written.
    """
    arrays = {name: np.ascontiguousarray(getattr(table, name), dtype=kind) for name, kind in _PARTS.items()}
    body = b"".join(array.tobytes() for array in arrays.values())
    facts = {
        "format": FORMAT,
        "n_interests": table.n_interests,
        "k": table.k,
        "ordered": table.ordered,
        "models": list(table.models),
        "about": table.about,
        "shapes": {name: list(array.shape) for name, array in arrays.items()},
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    header = json.dumps(facts).encode()
    room = -(-(len(_MAGIC) + 4 + len(header)) // _HEAD) * _HEAD
    start = _MAGIC + len(header).to_bytes(4, "little") + header
    content = start.ljust(room, b" ") + body
    replace_file(path, content, "The exploration table")
    return len(content)


def open_table(path: Path) -> InterestTable:
    """The table in a file, memory-mapped, after its checksum was compared.

    Raises:
        StorageError: It is missing, damaged, or of another format.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise ValueError("this is no exploration table")
            length = int.from_bytes(file.read(4), "little")
            facts = json.loads(file.read(min(length, path.stat().st_size)))
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']}, this version reads {FORMAT}")
        body = np.memmap(path, np.uint8, "r", -(-(len(_MAGIC) + 4 + length) // _HEAD) * _HEAD).view(np.ndarray)
        if hashlib.sha256(body.data).hexdigest() != facts["sha256"]:
            raise ValueError("its checksum is wrong")
        parts: dict[str, Any] = {}
        at = 0
        for name, kind in _PARTS.items():
            shape = facts["shapes"][name]
            size = int(np.prod(shape)) * np.dtype(kind).itemsize
            parts[name] = body[at : at + size].view(kind).reshape(shape)
            at += size
        shape = (facts["n_interests"], facts["k"], facts["ordered"], tuple(facts["models"]))
        table = InterestTable(*shape, **parts, about=facts["about"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        got = error.strerror or error if isinstance(error, OSError) else error
        hint = "Make the exploration table again."
        raise StorageError("The exploration table cannot be read.", where=str(path), got=got, hint=hint) from error
    return table


def _keys(tuples: Numbers, n: int, k: int, ordered: bool, dense: bool) -> npt.NDArray[np.int64]:
    """One number a tuple. Dense pairs: their place in the rows of the (upper half of the) matrix."""
    if tuples.ndim != 2 or tuples.shape[1] != k:
        raise InputError("This table is asked for so many interests at once.", got=tuples.shape, allowed=f"[n, {k}]")
    if len(tuples) and (tuples.min() < 0 or tuples.max() >= n):
        raise InputError("There is no such interest in the table.", got=tuples.max(), allowed=f"0 to {n - 1}")
    wide = tuples.astype(np.int64)
    if dense and not ordered:
        low, high = np.minimum(wide[:, 0], wide[:, 1]), np.maximum(wide[:, 0], wide[:, 1])
        place: npt.NDArray[np.int64] = low * n - low * (low - 1) // 2 + high - low
        return place
    if not ordered:
        wide = np.sort(wide, axis=1)
    number = wide[:, 0].copy()
    for column in wide.T[1:]:
        number = number * n + column
    return number


def _tuples(table: InterestTable) -> IntArray:
    """The pair of each row."""
    n = table.n_interests
    if not table.dense:
        return np.stack(np.divmod(table.keys.astype(np.int64), n), axis=1).astype(np.int32)
    pairs = np.indices((n, n)).reshape(2, -1) if table.ordered else np.stack(np.triu_indices(n))
    return pairs.T.astype(np.int32)


def _check(
    n_interests: int,
    tuples: Numbers,
    candidates: Numbers,
    probabilities: FloatArray,
    models: Sequence[str],
    hashes: Sequence[str],
) -> None:
    n = len(tuples)
    lengths = {"candidates": len(candidates), "models": len(models), "hashes": len(hashes)}
    if set(lengths.values()) != {n} or probabilities.shape != candidates.shape:
        facts = {"tuples": n, **lengths, "probabilities": probabilities.shape}
        raise InputError("The columns of the exploration table do not fit each other.", got=facts)
    if not 0 < n_interests < NONE or n_interests ** tuples.shape[1] >= 2**63 or len(set(models)) > _MODELS:
        got = f"{n_interests} interests, {tuples.shape[1]} at once, {len(set(models))} models"
        raise InputError("The exploration table would be too large.", got=got, allowed="65,534 interests, 255 models")
    if n and (candidates.max() >= n_interests or candidates.min() < -1):
        raise InputError("A candidate is no interest.", got=candidates.max(), allowed=f"-1 to {n_interests - 1}")
    given = probabilities[~np.isnan(probabilities)]
    if len(given) and not (given.min() >= 0 and given.max() <= 1):
        raise InputError("A probability is not between 0 and 1.", got=float(given[np.argmax(np.abs(given - 0.5))]))
