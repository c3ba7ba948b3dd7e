"""The ledger's tables, how a row is packed, and how a ledger of an earlier version is brought up to date."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Sequence
from typing import Any

from palate.llm.request import Answer, Drafts

VERSION = 2
TABLES = """
CREATE TABLE IF NOT EXISTS names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS templates (id INTEGER PRIMARY KEY, purpose INTEGER NOT NULL, text BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, model INTEGER NOT NULL, engine INTEGER NOT NULL,
    purpose INTEGER NOT NULL, entity TEXT NOT NULL, template INTEGER, request BLOB NOT NULL, answer BLOB NOT NULL,
    tokens_in INTEGER NOT NULL, tokens_cached INTEGER NOT NULL, tokens_out INTEGER NOT NULL,
    seconds REAL NOT NULL, cost INTEGER NOT NULL, created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS failures (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL, model INTEGER NOT NULL, purpose INTEGER NOT NULL,
    entity TEXT NOT NULL, error TEXT NOT NULL, created REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS failures_key ON failures (key);
CREATE TABLE IF NOT EXISTS books (
    day INTEGER NOT NULL, model INTEGER NOT NULL, engine INTEGER NOT NULL, purpose INTEGER NOT NULL,
    calls INTEGER NOT NULL, failed INTEGER NOT NULL, tokens_in INTEGER NOT NULL, tokens_cached INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL, seconds REAL NOT NULL, cost INTEGER NOT NULL, first REAL NOT NULL, last REAL NOT NULL,
    PRIMARY KEY (day, model, engine, purpose)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (
    key BLOB PRIMARY KEY, owner TEXT NOT NULL, run TEXT NOT NULL,
    calls INTEGER NOT NULL, tokens INTEGER NOT NULL, cost INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS budgets (
    run TEXT PRIMARY KEY, calls INTEGER NOT NULL, tokens INTEGER NOT NULL, cost INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS vectors (key TEXT PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID;
"""
NANO = 10**9  # money is kept in whole billionths: sums of integers do not drift
DAY = 86_400.0
_DICTIONARY = 4096  # bytes of a template that compression looks back into
_REPEATED = "="  # in the place of a value that is the parsed text


def pack(text: bytes, template: bytes) -> bytes:
    """`text` compressed against one like it: requests of one purpose differ in little."""
    squeeze = zlib.compressobj(1, zlib.DEFLATED, -12, 5, zdict=template[:_DICTIONARY])
    return squeeze.compress(text) + squeeze.flush()


def unpack(blob: bytes, template: bytes) -> bytes:
    """Raises `zlib.error` where the blob is damaged."""
    swell = zlib.decompressobj(-12, zdict=template[:_DICTIONARY])
    text = swell.decompress(blob)
    if not swell.eof:
        raise zlib.error("cut short")
    return text


def pack_answer(answer: Answer) -> str:
    """What an answer says as JSON; counts have columns of their own."""
    said: dict[str, Any] = {"t": answer.text}
    if answer.value is not None:
        said["v"] = _REPEATED if _is_parsed(answer) else [answer.value]
    if answer.probabilities is not None:
        said["p"] = answer.probabilities
    if answer.logprobs is not None:
        said["l"] = answer.logprobs
    if answer.finish_reason != "stop":
        said["f"] = answer.finish_reason
    if answer.method:
        said["m"] = answer.method
    if answer.attempts != 1:
        said["a"] = answer.attempts
    if answer.drafts is not None:
        said["d"] = answer.drafts
    return _ENCODER.encode(said)


def unpack_answer(said_json: str, counts: Sequence[Any], model: str, engine: str) -> Answer:
    """The answer of a row; `counts` are its tokens in, cached, out, seconds and billionths of money."""
    said = json.loads(said_json)
    tokens_in, tokens_cached, tokens_out, seconds, cost = counts
    kept = said.get("v")
    return Answer(
        text=said["t"],
        value=json.loads(said["t"]) if kept == _REPEATED else None if kept is None else kept[0],
        probabilities=tuple(said["p"]) if "p" in said else None,
        method=said.get("m", ""),
        logprobs=tuple(tuple((t, p) for t, p in place) for place in said["l"]) if "l" in said else None,
        finish_reason=said.get("f", "stop"),
        tokens_in=tokens_in,
        tokens_cached=tokens_cached,
        tokens_out=tokens_out,
        seconds=seconds,
        cost=cost / NANO,
        model=model,
        engine=engine,
        attempts=said.get("a", 1),
        drafts=Drafts(*said["d"]) if "d" in said else None,
    )


def _is_parsed(answer: Answer) -> bool:
    try:
        return bool(json.loads(answer.text) == json.loads(json.dumps(answer.value, default=_plain)))
    except ValueError:
        return False


def _plain(value: Any) -> Any:
    """A pydantic object as plain data."""
    return value.model_dump(mode="json")


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_plain)


def prepare(db: sqlite3.Connection) -> None:
    """Make the tables, or bring those of version 1 (no version number, text keys) up to date in one transaction."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == VERSION:
        return
    if version > VERSION:
        raise sqlite3.DatabaseError(f"written by a newer Palate (tables of version {version})")
    db.execute("BEGIN IMMEDIATE")
    try:
        (version,) = db.execute("PRAGMA user_version").fetchone()  # another process may have been first
        if version < VERSION:
            _upgrade(db)
            db.execute(f"PRAGMA user_version={VERSION}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _upgrade(db: sqlite3.Connection) -> None:
    old = db.execute("SELECT name FROM sqlite_master WHERE name='answers'").fetchone() is not None
    if old:
        db.execute("ALTER TABLE answers RENAME TO answers_1")
        db.execute("ALTER TABLE failures RENAME TO failures_1")
    for statement in TABLES.split(";"):
        db.execute(statement)
    if old:
        _copy_version_1(db)
        db.execute("DROP TABLE answers_1")
        db.execute("DROP TABLE failures_1")


def _copy_version_1(db: sqlite3.Connection) -> None:
    """Requests of version 1 were kept as their messages alone: `template` is NULL, their keys cannot be verified."""
    rows = db.execute(
        """SELECT key, model, engine, purpose, entity, request, text, value, probabilities, finish_reason,
           tokens_in, tokens_cached, tokens_out, seconds, cost, created FROM answers_1"""
    )
    for key, model, engine, purpose, entity, request, text, value, shares, reason, *counts, cost, created in rows:
        answer = Answer(
            text=text,
            value=None if value is None else json.loads(value),
            probabilities=None if shares is None else tuple(json.loads(shares)),
            finish_reason=reason,
        )
        ids = [name_id(db, name) for name in (model, engine, purpose)]
        money = round(cost * NANO)
        values = [bytes.fromhex(key), *ids, entity, None, pack(request.encode(), b""), pack_answer(answer)]
        db.execute(f"INSERT INTO answers VALUES (NULL{',?' * 14})", [*values, *counts, money, created])
        book(db, (int(created // DAY), *ids), (1, 0, *counts, money, created, created))
    for key, model, purpose, entity, error, created in db.execute("SELECT * FROM failures_1"):
        ids = [name_id(db, name) for name in (model, purpose)]
        db.execute(f"INSERT INTO failures VALUES (NULL{',?' * 6})", [bytes.fromhex(key), *ids, entity, error, created])


def name_id(db: sqlite3.Connection, name: str) -> int:
    """The number that stands for `name`."""
    db.execute("INSERT OR IGNORE INTO names (name) VALUES (?)", (name,))
    return int(db.execute("SELECT id FROM names WHERE name=?", (name,)).fetchone()[0])


def book(db: sqlite3.Connection, where: tuple[int, ...], figures: Sequence[float]) -> None:
    """Add calls, failed, tokens in, cached, out, seconds, money, first and last to (day, model, engine, purpose)."""
    db.execute(
        """INSERT INTO books VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET
           calls=calls+excluded.calls, failed=failed+excluded.failed, tokens_in=tokens_in+excluded.tokens_in,
           tokens_cached=tokens_cached+excluded.tokens_cached, tokens_out=tokens_out+excluded.tokens_out,
           seconds=seconds+excluded.seconds, cost=cost+excluded.cost,
           first=MIN(first, excluded.first), last=MAX(last, excluded.last)""",
        [*where, *figures],
    )
