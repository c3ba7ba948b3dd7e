"""Care for a ledger: is it whole, copy it to Parquet, drop what is no longer wanted, take in another one."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import jsonschema

from palate.errors import InputError, StorageError
from palate.llm.canonical import key_of
from palate.llm.ledger import Ledger, open_ledger, transaction
from palate.llm.ledger_tables import NANO, TABLES, VERSION, unpack, unpack_answer

_PART = 50_000  # rows of one Parquet row group

_ROWS = """SELECT answers.key, model.name, engine.name, purpose.name, entity, templates.text, answers.template, request,
    answer, tokens_in, tokens_cached, tokens_out, seconds, cost, created FROM answers
    LEFT JOIN names model ON model.id=model LEFT JOIN names engine ON engine.id=engine
    LEFT JOIN names purpose ON purpose.id=answers.purpose LEFT JOIN templates ON templates.id=answers.template
    ORDER BY answers.id"""


@dataclass(frozen=True)
class Finding:
    """Something wrong, or worth knowing, of which there are `count`."""

    kind: str  # "damaged", "orphan", "drift" or "note"
    what: str
    count: int
    example: str
    hint: str


def verify(path: Path) -> list[Finding]:
    """Integrity of the file and of every row, orphans, drift of schema. An empty list: all is well.

    Raises:
        StorageError: Not a ledger at all.
    """
    _existing(path)
    found: Counter[tuple[str, str, str]] = Counter()
    examples: dict[tuple[str, str, str], str] = {}

    def note(kind: str, what: str, hint: str, example: str) -> None:
        found[kind, what, hint] += 1
        examples.setdefault((kind, what, hint), example)

    try:
        with closing(sqlite3.connect(path)) as db:
            for (line,) in db.execute("PRAGMA integrity_check"):
                if line != "ok":
                    note(
                        "damaged",
                        "SQLite's own check fails",
                        "Restore the file from a copy, or export what reads.",
                        line,
                    )
            _check_tables(db, note)
            for row in db.execute(_ROWS):
                _check_row(row, note)
            _check_orphans(db, note)
    except sqlite3.DatabaseError as error:
        raise _unreadable(path, error) from error
    return [Finding(kind, what, n, examples[kind, what, hint], hint) for (kind, what, hint), n in found.items()]


def export(path: Path, out: Path) -> int:
    """All answers with their requests to a Parquet file, written whole or not at all. Returns their number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    _existing(path)
    fields = {"key": pa.string(), "model": pa.string(), "engine": pa.string(), "purpose": pa.string()}
    fields |= {"entity": pa.string(), "request": pa.string(), "text": pa.string(), "value": pa.string()}
    fields |= {"probabilities": pa.list_(pa.float64()), "method": pa.string(), "finish_reason": pa.string()}
    fields |= {"attempts": pa.int32(), "tokens_in": pa.int64(), "tokens_cached": pa.int64(), "tokens_out": pa.int64()}
    fields |= {"seconds": pa.float64(), "cost": pa.float64(), "created": pa.timestamp("us", tz="UTC")}
    schema, partial, n = pa.schema(list(fields.items())), out.with_name(f".partial-{out.name}"), 0
    try:
        with pq.ParquetWriter(partial, schema) as writer:
            rows = records(path)
            while part := list(islice(rows, _PART)):
                writer.write_table(pa.Table.from_pylist(part, schema=schema))
                n += len(part)
        partial.replace(out)
    except sqlite3.DatabaseError as error:
        raise _unreadable(path, error) from error
    except OSError as error:
        raise StorageError("The export could not be written.", where=str(out), got=error) from error
    finally:
        partial.unlink(missing_ok=True)
    return n


def records(path: Path) -> Iterator[dict[str, Any]]:
    """All answers with their requests, one after the other, as `export` writes them."""
    _existing(path)
    with closing(sqlite3.connect(path, timeout=60)) as db:
        for row in db.execute(_ROWS):
            yield _record(row)


def prune(
    path: Path,
    *,
    before: datetime | None = None,
    model: str | None = None,
    purpose: str | None = None,
    failures: bool = False,
    dry_run: bool = True,
) -> int:
    """Drop answers (or, with `failures`, failed asks) to which every given condition applies. The books stay.

    Returns how many there are (`dry_run`) or were. Their requests would be asked, and paid, again.
    """
    _existing(path)
    conditions: list[str] = ["1"]
    values: list[object] = []
    if before is not None:
        conditions.append("created < ?")
        values.append(before.timestamp())
    for column, name in (("model", model), ("purpose", purpose)):
        if name is not None:
            conditions.append(f"{column} = (SELECT id FROM names WHERE name=?)")
            values.append(name)
    table, where = "failures" if failures else "answers", " AND ".join(conditions)
    with closing(open_ledger(path, "FULL")) as db:
        n = int(db.execute(f"SELECT COUNT(*) FROM {table} WHERE {where}", values).fetchone()[0])
        if n and not dry_run:
            with transaction(db):
                db.execute(f"DELETE FROM {table} WHERE {where}", values)
            db.execute("VACUUM")
    return n


def merge(path: Path, other: Path) -> int:
    """Take the answers, failures, vectors and books of another ledger in; a second time changes nothing.

    Returns how many answers were new. Books are taken of what is new only.
    """
    _existing(other)
    with closing(Ledger(other)):  # brings an older one up to date
        pass
    with closing(Ledger(path)):
        pass
    with closing(open_ledger(path, "FULL")) as db:
        db.execute("ATTACH ? AS other", (str(other),))
        with transaction(db):
            before = db.execute("SELECT COUNT(*) FROM answers").fetchone()[0]
            for statement in _MERGE.split(";"):
                db.execute(statement)
            after = db.execute("SELECT COUNT(*) FROM answers").fetchone()[0]
    return int(after - before)


_MERGE = """
INSERT OR IGNORE INTO main.names (name) SELECT name FROM other.names;
CREATE TEMP TABLE ids AS SELECT o.id AS theirs, m.id AS ours FROM other.names o JOIN main.names m USING (name);
CREATE TEMP TABLE new AS SELECT * FROM other.answers r
    WHERE NOT EXISTS (SELECT 1 FROM main.answers a WHERE a.key=r.key);
CREATE TEMP TABLE lost AS SELECT * FROM other.failures r
    WHERE NOT EXISTS (SELECT 1 FROM main.failures f WHERE f.key=r.key AND f.created=r.created);
CREATE TEMP TABLE their_templates AS SELECT t.id AS theirs, p.ours AS purpose, t.text AS text
    FROM other.templates t JOIN ids p ON p.theirs=t.purpose WHERE t.id IN (SELECT template FROM new);
INSERT INTO main.templates (purpose, text) SELECT purpose, text FROM their_templates t
    WHERE NOT EXISTS (SELECT 1 FROM main.templates m WHERE m.purpose=t.purpose AND m.text=t.text);
INSERT INTO main.answers SELECT NULL, key, m.ours, e.ours, p.ours, entity,
    (SELECT MIN(x.id) FROM main.templates x JOIN their_templates t ON x.purpose=t.purpose AND x.text=t.text
     WHERE t.theirs=new.template),
    request, answer, tokens_in, tokens_cached, tokens_out, seconds, cost, created FROM new
    JOIN ids m ON m.theirs=new.model JOIN ids e ON e.theirs=new.engine JOIN ids p ON p.theirs=new.purpose;
INSERT INTO main.failures SELECT NULL, key, m.ours, p.ours, entity, error, created FROM lost
    JOIN ids m ON m.theirs=lost.model JOIN ids p ON p.theirs=lost.purpose;
INSERT INTO main.books SELECT CAST(created / 86400 AS INTEGER), m.ours, e.ours, p.ours, COUNT(*), 0, SUM(tokens_in),
    SUM(tokens_cached), SUM(tokens_out), SUM(seconds), SUM(cost), MIN(created), MAX(created) FROM new
    JOIN ids m ON m.theirs=new.model JOIN ids e ON e.theirs=new.engine JOIN ids p ON p.theirs=new.purpose
    GROUP BY 1, 2, 3, 4
    ON CONFLICT DO UPDATE SET calls=calls+excluded.calls, tokens_in=tokens_in+excluded.tokens_in,
    tokens_cached=tokens_cached+excluded.tokens_cached, tokens_out=tokens_out+excluded.tokens_out,
    seconds=seconds+excluded.seconds, cost=cost+excluded.cost, first=MIN(first, excluded.first),
    last=MAX(last, excluded.last);
INSERT OR IGNORE INTO main.vectors SELECT * FROM other.vectors;
DROP TABLE ids; DROP TABLE new; DROP TABLE lost; DROP TABLE their_templates
"""


def _check_tables(db: sqlite3.Connection, note: Any) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        hint = "Open it once with this Palate, which brings it up to date."
        note("drift", "the tables are of another version", hint, f"version {version}, expected {VERSION}")
        return
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(TABLES)
        for (table,) in fresh.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall():
            ours = fresh.execute(f"PRAGMA table_info({table})").fetchall()
            theirs = db.execute(f"PRAGMA table_info({table})").fetchall()
            if ours != theirs:
                note("drift", "a table has other columns", "Was the file edited? Export it and import it anew.", table)


def _check_row(row: tuple[Any, ...], note: Any) -> None:
    key, model, engine, purpose, entity, template, number, request, said, *counts, _ = row
    name = key.hex() if isinstance(key, bytes) else repr(key)
    if model is None or engine is None or purpose is None or (number is not None and template is None):
        note("orphan", "an answer names a model, engine, purpose or template that is not there", "Prune it.", name)
        return
    try:
        canonical = unpack(request, template or b"").decode()
        answer = unpack_answer(said, counts, model, engine)
    except (zlib.error, ValueError, KeyError, TypeError) as error:
        note("damaged", "an answer cannot be read", "Prune it: it will be asked again.", f"{name}: {error}")
        return
    if number is None:
        note("note", "kept by an earlier version: its key cannot be verified", "Nothing to do.", name)
        return
    if key_of(canonical) != name:
        note("damaged", "a request does not hash to its key", "Prune it: it will be asked again.", name)
        return
    schema = json.loads(canonical).get("schema")
    if schema is not None:
        try:
            jsonschema.validate(answer.value, schema)
        except jsonschema.ValidationError as error:
            what = f"an answer does not fit the schema it was asked with ({purpose})"
            note("drift", what, "Prune it: it will be asked again.", f"{name} ({entity}): {error.message[:100]}")


def _check_orphans(db: sqlite3.Connection, note: Any) -> None:
    for (owner,) in db.execute("SELECT owner FROM claims"):
        hint = "A run in progress has them; those of a killed run are released by the next run."
        note("note", "requests are claimed", hint, owner)
    for (key,) in db.execute("SELECT key FROM failures WHERE key IN (SELECT key FROM answers)"):
        note("note", "a failed ask was answered later", "palate llm ledger prune --failures drops them.", key.hex())
    sql = "SELECT text FROM templates WHERE id NOT IN (SELECT template FROM answers WHERE template IS NOT NULL)"
    for (text,) in db.execute(sql):
        note("orphan", "a template that no answer uses", "Harmless; it goes with the next prune.", text[:60].decode())


def _record(row: tuple[Any, ...]) -> dict[str, Any]:
    key, model, engine, purpose, entity, template, _, request, said, *counts, created = row
    answer = unpack_answer(said, counts, model, engine)
    return {
        "key": key.hex(),
        "model": model,
        "engine": engine,
        "purpose": purpose,
        "entity": entity,
        "request": unpack(request, template or b"").decode(),
        "text": answer.text,
        "value": None if answer.value is None else json.dumps(answer.value, ensure_ascii=False),
        "probabilities": answer.probabilities,
        "method": answer.method,
        "finish_reason": answer.finish_reason,
        "attempts": answer.attempts,
        **dict(zip(("tokens_in", "tokens_cached", "tokens_out", "seconds"), counts[:4], strict=True)),
        "cost": counts[4] / NANO,
        "created": datetime.fromtimestamp(created, UTC),
    }


def _existing(path: Path) -> None:
    if not path.is_file():
        raise InputError("There is no ledger here.", where=str(path), hint="It is made by the first run.")


def _unreadable(path: Path, error: Exception) -> StorageError:
    return StorageError("The ledger could not be read.", where=str(path), got=error)
