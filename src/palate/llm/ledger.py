"""The ledger: every answer that was paid for, kept before anyone sees it, found again by the request's hash."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from palate.data.dataset import FloatArray
from palate.errors import StorageError
from palate.llm.canonical import key_of
from palate.llm.ledger_tables import DAY, NANO, book, name_id, pack, pack_answer, prepare, unpack_answer
from palate.llm.request import Answer, Request

_COUNTS = ("calls", "failed", "tokens_in", "tokens_cached", "tokens_out", "seconds", "cost", "first", "last")
_LOOKUP = 500  # keys in one SELECT, below SQLite's limit on variables


@dataclass(frozen=True)
class Entry:
    """An answer on its way into the ledger, with the request that it belongs to."""

    key: str
    canonical: str
    answer: Answer
    purpose: str = ""
    entity: str = ""

    @classmethod
    def of(cls, request: Request, answer: Answer, model: str) -> Entry:
        canonical = request.canonical(model)
        return cls(key_of(canonical), canonical, answer, request.purpose, request.entity)


class Ledger:
    """A SQLite file in WAL mode; several processes may use it at once.

    Each `keep` is one committed transaction (`synchronous=FULL`): after it returns, neither `kill -9` nor a
    power cut loses an answer. One object may be shared by threads.

    Raises:
        StorageError: if the file cannot be opened or written (a full disk, another format).
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        self._ids: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._templates: dict[int, tuple[int, bytes]] = {}  # by the purpose's id
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = open_ledger(self.path, "FULL")
            prepare(self._db)
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
        found: dict[str, Answer] = {}
        columns = "key, answer, model, engine, tokens_in, tokens_cached, tokens_out, seconds, cost"
        for row in self._lookup(f"SELECT {columns} FROM answers WHERE key IN", [bytes.fromhex(k) for k in keys]):
            key, said, model, engine, *counts = row
            found[key.hex()] = unpack_answer(said, counts, self._name(model), self._name(engine))
        return found

    def keep(self, entries: Sequence[Entry], settle: Callable[[sqlite3.Connection], None] | None = None) -> None:
        """Keep answers, and failed asks with their cause, in one transaction; `settle` runs inside it.

        An answer already there stays: what was paid for first is what was used.
        """
        now = time.time()
        with self._transaction() as db:
            rows: list[tuple[Any, ...]] = []
            sums: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [0, 0, 0, 0, 0, 0.0, 0])
            for entry in entries:
                answer = entry.answer
                model, engine, purpose = (self._id(n) for n in (answer.model, answer.engine, entry.purpose))
                money = round(answer.cost * NANO)
                counts = (answer.tokens_in, answer.tokens_cached, answer.tokens_out, answer.seconds, money)
                if answer.error is None:
                    rows.append((*self._packed(db, entry, (model, engine, purpose)), *counts, now))
                else:
                    values = (bytes.fromhex(entry.key), model, purpose, entry.entity, answer.error, now)
                    db.execute(f"INSERT INTO failures VALUES (NULL{',?' * 6})", values)
                figures = sums[int(now // DAY), model, engine, purpose]
                for place, figure in enumerate((answer.attempts, answer.error is not None, *counts)):
                    figures[place] += figure
            db.executemany(f"INSERT OR IGNORE INTO answers VALUES (NULL{',?' * 14})", rows)
            for where, figures in sums.items():
                book(db, where, (*figures, now, now))
            if settle is not None:
                settle(db)

    def put(self, request: Request, answer: Answer, model: str) -> None:
        """Keep one answer."""
        self.keep([Entry.of(request, answer, model)])

    def get_vectors(self, keys: Sequence[str]) -> dict[str, FloatArray]:
        rows = self._lookup("SELECT key, vector FROM vectors WHERE key IN", list(keys))
        return {key: np.frombuffer(blob, dtype=np.float32) for key, blob in rows}

    def put_vectors(self, vectors: dict[str, FloatArray]) -> None:
        rows = [(key, vector.astype(np.float32).tobytes()) for key, vector in vectors.items()]
        with self._transaction() as db:
            db.executemany("INSERT OR IGNORE INTO vectors VALUES (?,?)", rows)

    def totals(self, by_day: bool = False) -> list[dict[str, Any]]:
        """What was asked, of whom, for how much: one row for each model, engine and purpose (and day, ISO, UTC)."""
        names = (*(("day",) if by_day else ()), "model", "engine", "purpose")
        keys = ", ".join("date(day * 86400, 'unixepoch')" if n == "day" else f"{n}.name" for n in names)
        sums = ", ".join(f"{'MIN' if c == 'first' else 'MAX' if c == 'last' else 'SUM'}({c})" for c in _COUNTS)
        sql = f"""SELECT {keys}, {sums} FROM books JOIN names model ON model.id=books.model
                  JOIN names engine ON engine.id=books.engine JOIN names purpose ON purpose.id=books.purpose
                  GROUP BY {", ".join(str(i + 1) for i in range(len(names)))}
                  ORDER BY {", ".join(str(i + 1) for i in range(len(names)))}"""
        rows = [dict(zip((*names, *_COUNTS), row, strict=True)) for row in self._run(sql)]
        return [{**row, "cost": row["cost"] / NANO} for row in rows]

    def count(self) -> int:
        """Answers kept."""
        return int(self._run("SELECT COUNT(*) FROM answers")[0][0])

    def _packed(self, db: sqlite3.Connection, entry: Entry, ids: tuple[int, ...]) -> tuple[Any, ...]:
        number, template = self._template(db, ids[2], entry.canonical)
        request = pack(entry.canonical.encode(), template)
        return (bytes.fromhex(entry.key), *ids, entry.entity, number, request, pack_answer(entry.answer))

    def _template(self, db: sqlite3.Connection, purpose: int, canonical: str) -> tuple[int, bytes]:
        """The first request of a purpose, against which its others are packed."""
        if purpose not in self._templates:
            sql = "SELECT id, text FROM templates WHERE purpose=?"
            row = db.execute(sql, (purpose,)).fetchone()
            if row is None:
                db.execute("INSERT INTO templates (purpose, text) VALUES (?,?)", (purpose, canonical.encode()))
                row = db.execute(sql, (purpose,)).fetchone()
            self._templates[purpose] = row
        return self._templates[purpose]

    def _id(self, name: str) -> int:
        if name not in self._ids:
            self._ids[name] = name_id(self._db, name)
        return self._ids[name]

    def _name(self, number: int) -> str:
        if number not in self._names:
            self._names[number] = self._run("SELECT name FROM names WHERE id=?", [number])[0][0]
        return self._names[number]

    def _lookup(self, sql: str, keys: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(keys), _LOOKUP):
            part = keys[start : start + _LOOKUP]
            yield from self._run(f"{sql} ({','.join('?' * len(part))})", part)

    def _run(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._broken(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                with transaction(self._db):
                    yield self._db
            except BaseException as error:
                self._ids.clear()  # names and templates of a transaction that was undone
                self._templates.clear()
                if isinstance(error, sqlite3.Error):
                    raise self._broken(error) from error
                raise

    def _broken(self, error: Exception) -> StorageError:
        return StorageError(
            "The ledger of answers could not be read or written.",
            where=str(self.path),
            got=error,
            hint="Answers already kept are safe. Check free space and permissions of its folder, then run again.",
        )


def open_ledger(path: Path, synchronous: str) -> sqlite3.Connection:
    """A connection without implicit transactions. NORMAL survives a killed process but not a power cut."""
    db = sqlite3.connect(path, timeout=60.0, check_same_thread=False, isolation_level=None)
    _use_wal(db)
    db.execute(f"PRAGMA synchronous={synchronous}")
    db.execute("PRAGMA cache_size=-65536")
    return db


def _use_wal(db: sqlite3.Connection, patience: float = 60.0) -> None:
    """SQLite does not wait for others when it changes the journal's mode: we do."""
    deadline = time.monotonic() + patience
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; waits for other writers at its beginning."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
