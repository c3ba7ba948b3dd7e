"""The ledger: every answer that was paid for, kept before anyone sees it, found again by the request's hash."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from palate.data.dataset import FloatArray
from palate.errors import StorageError
from palate.llm.request import Answer, Request

_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, engine TEXT NOT NULL, purpose TEXT NOT NULL,
    entity TEXT NOT NULL, request TEXT NOT NULL, text TEXT NOT NULL, value TEXT, probabilities TEXT,
    finish_reason TEXT NOT NULL, tokens_in INTEGER NOT NULL, tokens_cached INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL, seconds REAL NOT NULL, cost REAL NOT NULL, created REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failures (
    key TEXT NOT NULL, model TEXT NOT NULL, purpose TEXT NOT NULL, entity TEXT NOT NULL,
    error TEXT NOT NULL, created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS vectors (key TEXT PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID;
"""
_ANSWER_COLUMNS = (
    "text, value, probabilities, finish_reason, tokens_in, tokens_cached, tokens_out, seconds, cost, model, engine"
)
_COUNTS = ("calls", "tokens_in", "tokens_cached", "tokens_out", "seconds", "cost", "first", "last")
_TOTALS = ("model", "engine", "purpose", *_COUNTS)
_LOOKUP = 500  # keys in one SELECT, below SQLite's limit on variables


class Ledger:
    """A SQLite file in WAL mode; several processes may use it at once.

    Each `put` is one committed transaction (`synchronous=FULL`): after it returns, neither `kill -9` nor a
    power cut loses the answer.

    Raises:
        StorageError: if the file cannot be opened or written (a full disk, another format).
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=60.0, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_TABLES)
        except (sqlite3.Error, OSError) as error:
            raise self._broken(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    def get(self, keys: Iterable[str]) -> dict[str, Answer]:
        """The kept answers among `keys`."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, Answer] = {}
        for start in range(0, len(wanted), _LOOKUP):
            part = wanted[start : start + _LOOKUP]
            marks = ",".join("?" * len(part))
            sql = f"SELECT key, {_ANSWER_COLUMNS} FROM answers WHERE key IN ({marks})"
            for key, *row in self._run(sql, part):
                found[key] = _answer(row)
        return found

    def put(self, key: str, request: Request, answer: Answer) -> None:
        """Keep an answer. An answer already there stays: what was paid for first is what was used."""
        row = (
            key,
            answer.model,
            answer.engine,
            request.purpose,
            request.entity,
            json.dumps([[m.role, m.content] for m in request.messages], ensure_ascii=False),
            answer.text,
            None if answer.value is None else json.dumps(answer.value, ensure_ascii=False),
            None if answer.probabilities is None else json.dumps(answer.probabilities),
            answer.finish_reason,
            answer.tokens_in,
            answer.tokens_cached,
            answer.tokens_out,
            answer.seconds,
            answer.cost,
            time.time(),
        )
        self._write(f"INSERT OR IGNORE INTO answers VALUES ({','.join('?' * len(row))})", [row])

    def fail(self, key: str, request: Request, model: str, error: str) -> None:
        """Keep a failed ask with its cause; the next run asks again."""
        row = (key, model, request.purpose, request.entity, error, time.time())
        self._write("INSERT INTO failures VALUES (?,?,?,?,?,?)", [row])

    def get_vectors(self, keys: Sequence[str]) -> dict[str, FloatArray]:
        found: dict[str, FloatArray] = {}
        for start in range(0, len(keys), _LOOKUP):
            part = list(keys[start : start + _LOOKUP])
            marks = ",".join("?" * len(part))
            for key, blob in self._run(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", part):
                found[key] = np.frombuffer(blob, dtype=np.float32)
        return found

    def put_vectors(self, vectors: dict[str, FloatArray]) -> None:
        rows = [(key, vector.astype(np.float32).tobytes()) for key, vector in vectors.items()]
        self._write("INSERT OR IGNORE INTO vectors VALUES (?,?)", rows)

    def totals(self) -> list[dict[str, Any]]:
        """What was asked, of whom, for how much: one row for each model, engine and purpose."""
        sql = """SELECT model, engine, purpose, COUNT(*), SUM(tokens_in), SUM(tokens_cached), SUM(tokens_out),
                 SUM(seconds), SUM(cost), MIN(created), MAX(created)
                 FROM answers GROUP BY model, engine, purpose ORDER BY model, purpose"""
        return [dict(zip(_TOTALS, row, strict=True)) for row in self._run(sql, [])]

    def count(self) -> int:
        return int(self._run("SELECT COUNT(*) FROM answers", [])[0][0])

    def _run(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def _write(self, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        try:
            with self._db:
                self._db.executemany(sql, rows)
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> StorageError:
        return StorageError(
            "The ledger of answers could not be read or written.",
            where=str(self.path),
            got=error,
            hint="Answers already kept are safe. Check free space and permissions of its folder, then run again.",
        )


def _answer(row: Sequence[Any]) -> Answer:
    text, value, probabilities, *rest = row
    names = (
        "finish_reason",
        "tokens_in",
        "tokens_cached",
        "tokens_out",
        "seconds",
        "cost",
        "model",
        "engine",
    )
    return Answer(
        text=text,
        value=None if value is None else json.loads(value),
        probabilities=None if probabilities is None else tuple(json.loads(probabilities)),
        **dict(zip(names, rest, strict=True)),
    )
