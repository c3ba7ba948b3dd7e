"""Import of knowledge that was answered elsewhere, with its provenance."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from palate.errors import InputError
from palate.knowledge.store import in_schema
from palate.knowledge.tables import KINDS, SCHEMA

_TOP_SCORE = 9


def read_rows(path: Path, known: set[str]) -> dict[str, pl.DataFrame]:
    """Knowledge rows of a JSONL file: `kind` and any columns of `SCHEMA`; `entity` and `model` are required.

    `known` are the entities that exist; rows about others are an error.

    Raises:
        InputError: naming file and line.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for line, row in _lines(path):
        kind = row.pop("kind", None)
        strange = sorted(set(row) - set(SCHEMA))
        if kind not in KINDS:
            raise _bad(path, line, "kind", kind, ", ".join(KINDS))
        if strange:
            raise _bad(path, line, strange[0], row[strange[0]], ", ".join(SCHEMA))
        for column in ("entity", "model"):
            if not isinstance(row.get(column), str):
                raise _bad(path, line, column, row.get(column), "a string")
        if row["entity"] not in known:
            raise _bad(path, line, "entity", row["entity"], "an id of the data set")
        rows.setdefault(kind, []).append({"source": "recorded", **row})
    return {kind: in_schema(kind, pl.DataFrame(found, infer_schema_length=None)) for kind, found in rows.items()}


def read_recorded(folder: Path, model: str) -> dict[str, pl.DataFrame]:
    """The recorded answers that travel with the sample: `items.jsonl` and `users.jsonl` as knowledge.

    Scores 0..9 become labels 0..1; a second reading (`scores_again`) is left to whoever measures reliability.
    """
    rows: dict[str, list[dict[str, Any]]] = {"label": [], "tag": [], "fact": [], "profile": []}
    origin = {"model": model, "source": "recorded", "prompt_hash": _prompt_hash(folder)}
    items, users = folder / "items.jsonl", folder / "users.jsonl"
    for line, row in _lines(items):
        entity = {"entity": _field(row, "item_id", str, items, line), **origin}
        for name, score in _field(row, "scores", dict, items, line).items():
            if not isinstance(score, int) or not 0 <= score <= _TOP_SCORE:
                raise _bad(items, line, f"scores.{name}", score, f"an integer from 0 to {_TOP_SCORE}")
            rows["label"].append({**entity, "name": name, "value": score / _TOP_SCORE})
        rows["tag"] += [{**entity, "name": "tag", "text": tag} for tag in row.get("tags", [])]
        if "facts" in row:
            rows["fact"].append({**entity, "name": "facts", "text": str(row["facts"])})
    for line, row in _lines(users):
        as_of = _field(row, "as_of", int, users, line) * 1_000_000
        text = _field(row, "profile", str, users, line)
        entity = {"entity": _field(row, "user_id", str, users, line), **origin}
        rows["profile"].append({**entity, "name": "profile", "text": text, "as_of": as_of})
    return {kind: in_schema(kind, pl.DataFrame(found)) for kind, found in rows.items() if found}


def _prompt_hash(folder: Path) -> str:
    """The prompts stand in the folder's README; its hash says which wording the answers belong to."""
    readme = folder / "README.md"
    return hashlib.sha256(readme.read_bytes()).hexdigest()[:32] if readme.exists() else ""


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("The file of answers cannot be read as UTF-8 text.", where=str(path), got=error) from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError("This line is not JSON.", where=f"{path}, line {number}", got=error) from error
        if not isinstance(row, dict):
            raise _bad(path, number, "the line", row, "a JSON object")
        yield number, row


def _field(row: dict[str, Any], name: str, kind: type, path: Path, line: int) -> Any:
    if not isinstance(row.get(name), kind):
        raise _bad(path, line, name, row.get(name), f"a {kind.__name__}")
    return row[name]


def _bad(path: Path, line: int, field: str, got: object, allowed: str) -> InputError:
    return InputError(
        "A row of knowledge does not fit.",
        where=f"{path}, line {line}, field {field}",
        got=got,
        allowed=allowed,
        hint="Mend or remove that line; nothing was imported.",
    )
