"""State in one SQLite file in WAL mode: the default, for the processes of one host."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from palate.data.dataset import FloatArray
from palate.serving.state import LANDED, LONGEST_HISTORY, Batch, Event, Impression, KeptItem, Table, unavailable

T = TypeVar("T")

PATIENCE = 2.0  # seconds that a lock is waited for
_ROWS = 90  # of one statement (999 values at most): with one each, the interpreter's lock changes hands for each row
_EVENT = ", ".join(field.name for field in fields(Event))
_IMPRESSION = ", ".join(Impression._fields)
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL, item_id TEXT NOT NULL,
    timestamp INTEGER NOT NULL, event_type TEXT NOT NULL, value REAL, request_id TEXT, received INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS events_of ON events (user_id, seq);
CREATE TABLE IF NOT EXISTS impressions (seq INTEGER PRIMARY KEY AUTOINCREMENT, {_IMPRESSION});
CREATE TABLE IF NOT EXISTS vectors (user_id TEXT PRIMARY KEY, tag TEXT, vector BLOB, expires REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS items (item_id TEXT PRIMARY KEY, version INTEGER NOT NULL UNIQUE, kept TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS llm_queue (item_id TEXT PRIMARY KEY, queued REAL NOT NULL);
CREATE TABLE IF NOT EXISTS landing (name TEXT PRIMARY KEY, landed INTEGER NOT NULL, reserved INTEGER NOT NULL);
INSERT OR IGNORE INTO landing VALUES ('events', 0, 0), ('impressions', 0, 0);
"""


@dataclass
class _Waiting:
    """Events that a thread wants committed."""

    events: Sequence[Event]
    new: int | None = None
    error: sqlite3.Error | None = None


class SqliteState:
    """See `State`. `synchronous=FULL`: an acknowledged event survives a power cut too.

    Threads that add events at the same time share one commit. Reads do not wait for writes.

    Args:
        address: `sqlite:PATH`.

    Raises:
        StorageError: if the file cannot be opened.
    """

    def __init__(self, address: str) -> None:
        self.path = Path(address.removeprefix("sqlite:"))
        self._writing, self._entry = threading.Lock(), threading.Lock()
        self._pending: list[_Waiting] = []
        self._own = threading.local()
        self._opened: list[sqlite3.Connection] = []
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = self._connect()
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise unavailable(str(self.path), error) from error

    def add_events(self, events: Sequence[Event]) -> int:
        mine = _Waiting(events)
        with self._entry:
            self._pending.append(mine)
        with self._writing:
            if mine.new is None and mine.error is None:  # no other thread took it along
                with self._entry:
                    together, self._pending = self._pending, []
                self._commit(together)
        if mine.error is not None:
            raise unavailable(str(self.path), mine.error) from mine.error
        return mine.new or 0

    def _commit(self, together: list[_Waiting]) -> None:
        received = time.time_ns() // 1000
        insert = f"INSERT OR IGNORE INTO events ({_EVENT}, received) VALUES ({'?,' * len(fields(Event))} {received})"
        try:
            new = self._transact(
                lambda db: [sum(db.execute(insert, astuple(e)).rowcount for e in each.events) for each in together]
            )
        except sqlite3.Error as error:
            for each in together:
                each.error = error
        else:
            for each, count in zip(together, new, strict=True):
                each.new = count

    def recent(self, user_id: str) -> list[Event]:
        rows = self._read(
            f"SELECT {_EVENT} FROM events WHERE user_id = ? ORDER BY seq DESC LIMIT ?", user_id, LONGEST_HISTORY
        )
        return [Event(*row) for row in rows[::-1]]

    def add_impressions(self, impressions: Sequence[Impression]) -> None:
        row = f"({', '.join('?' * len(Impression._fields))})"

        def add(db: sqlite3.Connection) -> None:
            for start in range(0, len(impressions), _ROWS):
                some = impressions[start : start + _ROWS]
                insert = f"INSERT INTO impressions ({_IMPRESSION}) VALUES {', '.join([row] * len(some))}"
                db.execute(insert, [value for each in some for value in each])

        self._write(add)

    def vector(self, user_id: str, tag: str) -> FloatArray | None:
        rows = self._read(
            "SELECT vector FROM vectors WHERE user_id = ? AND tag = ? AND expires > ?", user_id, tag, time.time()
        )
        return np.frombuffer(rows[0][0], dtype=np.float32) if rows else None

    def keep_vectors(self, vectors: Sequence[tuple[str, str, FloatArray]], seconds: float) -> None:
        expires = time.time() + seconds
        rows = [(user_id, tag, vector.astype(np.float32).tobytes(), expires) for user_id, tag, vector in vectors]
        self._write(lambda db: db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", rows))

    def put_items(self, items: Sequence[KeptItem]) -> None:
        def put(db: sqlite3.Connection) -> None:
            for kept in items:
                row = (kept.item["item_id"], json.dumps(kept.as_dict()))
                version = "(SELECT coalesce(max(version), 0) + 1 FROM items)"
                db.execute(f"INSERT OR REPLACE INTO items SELECT ?, {version}, ?", row)
                db.execute("DELETE FROM llm_queue WHERE item_id = ?", row[:1])
                if not kept.gone:
                    db.execute("INSERT INTO llm_queue VALUES (?, ?)", (row[0], time.time()))

        self._write(put)

    def items(self, after: int = 0) -> tuple[int, list[KeptItem]]:
        rows = self._read("SELECT version, kept FROM items WHERE version > ? ORDER BY version", after)
        return (rows[-1][0] if rows else after), [KeptItem(**json.loads(kept)) for _, kept in rows]

    def queued(self) -> list[str]:
        return [row[0] for row in self._read("SELECT item_id FROM llm_queue ORDER BY queued, item_id")]

    def asked(self, item_ids: Sequence[str]) -> None:
        self._write(lambda db: db.executemany("DELETE FROM llm_queue WHERE item_id = ?", [(i,) for i in item_ids]))

    def batch(self, table: Table, at_most: int) -> Batch | None:
        """Which rows are next is written down before they are given out, so that a killed flush is done again alike."""

        def reserve(db: sqlite3.Connection) -> tuple[int, int]:
            landed, reserved = db.execute("SELECT landed, reserved FROM landing WHERE name = ?", (table,)).fetchone()
            if reserved <= landed:
                some = f"SELECT seq FROM {table} WHERE seq > ? ORDER BY seq LIMIT ?"
                reserved = db.execute(f"SELECT coalesce(max(seq), 0) FROM ({some})", (landed, at_most)).fetchone()[0]
                db.execute("UPDATE landing SET reserved = ? WHERE name = ?", (reserved, table))
            return landed, reserved

        landed, reserved = self._write(reserve)
        columns = list(LANDED[table])
        rows = self._read(
            f"SELECT seq, {', '.join(columns)} FROM {table} WHERE seq > ? AND seq <= ? ORDER BY seq", landed, reserved
        )
        if not rows:
            return None
        dicts = [dict(zip(columns, row[1:], strict=True)) for row in rows]
        return Batch(table, f"{rows[0][0]:012d}", f"{rows[-1][0]:012d}", dicts)

    def landed(self, batch: Batch) -> None:
        last = int(batch.last)

        def mark(db: sqlite3.Connection) -> None:
            db.execute("UPDATE landing SET landed = max(landed, ?) WHERE name = ?", (last, batch.table))
            if batch.table == "impressions":
                db.execute("DELETE FROM impressions WHERE seq <= ?", (last,))

        self._write(mark)

    def prune(self, before: int) -> int:
        def forget(db: sqlite3.Connection) -> int:
            db.execute("DELETE FROM vectors WHERE expires <= ?", (time.time(),))
            landed = db.execute("SELECT landed FROM landing WHERE name = 'events'").fetchone()[0]
            # Read in order of arrival, so that the look ends at the first young one.
            young = db.execute("SELECT seq FROM events WHERE received >= ? ORDER BY seq LIMIT 1", (before,)).fetchone()
            last = landed if young is None else min(landed, young[0] - 1)
            return db.execute("DELETE FROM events WHERE seq <= ?", (last,)).rowcount

        return self._write(forget)

    def memory(self) -> dict[str, Any]:
        tables = ("events", "impressions", "vectors", "items", "llm_queue")
        rows = {name: self._read(f"SELECT count(*) FROM {name}")[0][0] for name in tables}
        files = [self.path.with_name(self.path.name + end) for end in ("", "-wal", "-shm")]
        size = sum(file.stat().st_size for file in files if file.exists())
        return {"store": "sqlite", "bytes": size, "rows": rows, "durable": True}

    def close(self) -> None:
        for db in self._opened:
            db.close()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=PATIENCE, check_same_thread=False, isolation_level=None)
        db.execute("PRAGMA synchronous=FULL")
        with self._entry:
            self._opened.append(db)
        return db

    def _read(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            if not hasattr(self._own, "db"):
                self._own.db = self._connect()
            found: list[tuple[Any, ...]] = self._own.db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise unavailable(str(self.path), error) from error
        return found

    def _write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._writing:
                return self._transact(change)
        except sqlite3.Error as error:
            raise unavailable(str(self.path), error) from error

    def _transact(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """All or nothing; waits for other processes at its beginning."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            result = change(self._db)
            self._db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # a full disk has rolled back already
                self._db.execute("ROLLBACK")
            raise
        return result
