"""Lines of an OpenAI-batch file: read one by one, each good or with the field that is wrong."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from palate.errors import InputError, printable
from palate.llm.images import Image
from palate.llm.request import Request
from palate.llm.seen import Seen
from palate.llm.structured import strict_json

_URL = "/v1/chat/completions"
_WHOLE = ("max_tokens", "max_completion_tokens", "n")
# Numbers beyond a float, halves of characters and depth: what JSON can say and a hash or a server cannot take.
_SUSPICIOUS = re.compile(rb"[0-9][eE]\+?[0-9]{3}|\\u[dD][89a-fA-F]")
_DEPTH = 100
_NOT_IN_BATCHES = ("stream", "stream_options")  # a reply comes whole, whoever wrote the line


@dataclass(frozen=True)
class Line:
    """A line that can be asked. `number` counts from 1; `body` has its images embedded."""

    number: int
    custom_id: str
    body: dict[str, Any]


@dataclass(frozen=True)
class BadLine:
    """A line that cannot. `custom_id` is None where there is none, or where it was there before."""

    number: int
    custom_id: str | None
    field: str
    cause: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.field}: {self.cause}"


class _FieldError(Exception):
    def __init__(self, field: str, cause: str) -> None:
        super().__init__(cause)
        self.field, self.cause = field, cause


def read_lines(path: Path, model: str | None = None) -> Iterator[Line | BadLine]:
    """The lines of a batch file, one at a time; empty ones are passed over.

    Of each `custom_id` only 64 bits are remembered.

    Args:
        path: Images given as paths are relative to its folder.
        model: Takes the place of every `body.model`. None: each line must name one.
    """
    seen = Seen()
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            custom_id = None
            try:
                entry = _entry(raw)
                name = _custom_id(entry)
                if not seen.add(_digest(name)):
                    raise _FieldError("custom_id", f"{printable(name, 100)!r} is there more than once")
                custom_id = name
                body = _body(entry, model, path.parent)
                if _SUSPICIOUS.search(raw) or raw.count(b"[") + raw.count(b"{") > _DEPTH:
                    _check_canonical(body)
                yield Line(number, name, body)
            except _FieldError as wrong:
                yield BadLine(number, custom_id, wrong.field, wrong.cause)


def lines_of_one_model(path: Path, model: str, override: bool) -> Iterator[Line | BadLine]:
    """As `read_lines`; a line that asks another model is bad unless `model` takes the place of all."""
    for line in read_lines(path, model if override else None):
        if isinstance(line, Line) and line.body["model"] != model:
            other = printable(line.body["model"], 100)
            cause = f"one model a run, {printable(model, 100)!r}: this line asks {other!r}; --model asks one for all"
            yield BadLine(line.number, line.custom_id, "body.model", cause)
        else:
            yield line


def first_model(path: Path) -> str | None:
    """The model that the first good line names."""
    for line in read_lines(path):
        if isinstance(line, Line):
            return str(line.body["model"])
    return None


def count_lines(path: Path) -> int:
    """Lines that are not empty, at the speed of the disk; an upper bound where there are blank ones."""
    with path.open("rb") as file:
        lines, last = 0, b"\n"
        while part := file.read(1 << 20):
            lines, last = lines + part.count(b"\n"), part[-1:]
    return lines + (last != b"\n")


def _entry(raw: bytes) -> dict[str, Any]:
    try:
        entry = strict_json(raw)
    except (ValueError, RecursionError) as error:
        raise _FieldError("line", f"not JSON: {printable(error, 200)}") from None
    if not isinstance(entry, dict):
        raise _FieldError("line", f"a JSON object is wanted, this is {_kind(entry)}")
    return entry


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def _custom_id(entry: dict[str, Any]) -> str:
    name = entry.get("custom_id")
    if not isinstance(name, str) or not name:
        raise _FieldError("custom_id", f"a text that is not empty is wanted, this is {_kind(name)}")
    if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
        raise _FieldError("custom_id", "half of a character")
    return name


def _body(entry: dict[str, Any], model: str | None, folder: Path) -> dict[str, Any]:
    if entry.get("method", "POST") != "POST":
        raise _FieldError("method", f"only POST, not {printable(entry['method'], 50)!r}")
    if entry.get("url", _URL) != _URL:
        raise _FieldError("url", f"only {_URL}, not {printable(entry['url'], 100)!r}")
    given = entry.get("body")
    if not isinstance(given, dict):
        raise _FieldError("body", f"an object is wanted, this is {_kind(given)}")
    body = {name: value for name, value in given.items() if name not in _NOT_IN_BATCHES}
    body["model"] = model or body.get("model")
    if not isinstance(body["model"], str) or not body["model"]:
        raise _FieldError("body.model", "no model is named; --model names one for all lines")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _FieldError("body.messages", f"a list of messages is wanted, this is {_kind(messages)}")
    body["messages"] = [_message(m, f"body.messages[{i}]", folder) for i, m in enumerate(messages)]
    _check_numbers(body)
    _check_format(body)
    return body


def _message(message: Any, where: str, folder: Path) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise _FieldError(where, "an object with a role is wanted")
    content = message.get("content")
    if not isinstance(content, list):
        if content is not None and not isinstance(content, str):
            raise _FieldError(f"{where}.content", f"a text or a list of parts is wanted, this is {_kind(content)}")
        return message
    return message | {"content": [_part(p, f"{where}.content[{i}]", folder) for i, p in enumerate(content)]}


def _part(part: Any, where: str, folder: Path) -> dict[str, Any]:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise _FieldError(where, "an object with a type is wanted")
    if part["type"] == "text" and not isinstance(part.get("text"), str):
        raise _FieldError(f"{where}.text", f"a text is wanted, this is {_kind(part.get('text'))}")
    if part["type"] != "image_url":
        return part
    held = part.get("image_url")
    held = {"url": held} if isinstance(held, str) else held
    if not isinstance(held, dict) or not isinstance(held.get("url"), str):
        raise _FieldError(f"{where}.image_url", "a text, or an object with a url, is wanted")
    if held["url"].startswith(("http://", "https://")):
        return part  # the server fetches it, we do not
    try:
        image = _image(held["url"], folder)
    except InputError as error:
        got = "" if error.got is None else f" ({printable(error.got, 100)})"
        raise _FieldError(f"{where}.image_url.url", f"{error.what}{got} {printable(error.where, 200)}") from None
    except (OSError, ValueError) as error:
        raise _FieldError(f"{where}.image_url.url", printable(error, 200)) from None
    return part | {"image_url": held | {"url": image.data_url}}


def _image(url: str, folder: Path) -> Image:
    if not url.startswith("data:"):
        return Image.read(folder / url.removeprefix("file://"))
    head, _, data = url.partition(",")
    if not head.endswith(";base64"):
        raise InputError("The data URL is not base64.", where=head[:50])
    try:
        return Image.of(base64.b64decode(data, validate=True), "data URL")
    except binascii.Error as error:
        raise InputError("The data URL is not base64.", where=head[:50], got=error) from None


def _check_canonical(body: dict[str, Any]) -> None:
    try:
        Request(body=body).key("")
    except (ValueError, RecursionError) as error:
        raise _FieldError("body", f"cannot be sent as JSON: {printable(error, 100)}") from None


def _check_numbers(body: dict[str, Any]) -> None:
    for name in _WHOLE:
        value = body.get(name)
        if value is not None and (type(value) is not int or value < 1):
            raise _FieldError(f"body.{name}", f"a whole number of 1 or more is wanted, this is {_said(value)}")
    value = body.get("temperature")
    if value is not None and (type(value) not in (int, float) or value < 0):
        raise _FieldError("body.temperature", f"a number of 0 or more is wanted, this is {_said(value)}")


def _check_format(body: dict[str, Any]) -> None:
    wanted = body.get("response_format")
    if wanted is None:
        return
    where = "body.response_format"
    if not isinstance(wanted, dict) or not isinstance(wanted.get("type"), str):
        raise _FieldError(where, "an object with a type is wanted")
    if wanted["type"] != "json_schema":
        return
    held = wanted.get("json_schema")
    if not isinstance(held, dict) or not isinstance(held.get("schema"), dict):
        raise _FieldError(f"{where}.json_schema", "an object with a schema is wanted")
    problem = schema_problem(json.dumps(held["schema"], sort_keys=True))
    if problem is not None:
        raise _FieldError(f"{where}.json_schema.schema", problem)


@lru_cache(maxsize=256)
def schema_problem(schema_json: str) -> str | None:
    """Why answers cannot be checked against this JSON Schema; None: they can.

    A reference must lead to a place inside the schema: nothing is fetched because a file says so.
    """
    schema = json.loads(schema_json)
    try:
        jsonschema.validators.validator_for(schema).check_schema(schema)
        resource = Resource.from_contents(schema, default_specification=DRAFT202012)
        resolver = Registry().with_resource("", resource).resolver("")
        for name, value in _keywords(schema):
            if name in ("$ref", "$dynamicRef"):
                resolver.lookup(value)
            elif name == "pattern":
                re.compile(value)
    except jsonschema.SchemaError as error:
        return f"not a JSON Schema: {printable(error.message, 200)}"
    except Unresolvable as error:
        return f"a reference leads nowhere inside the schema: {printable(error.ref, 100)}"
    except re.error as error:
        return f"a pattern is not a regular expression: {error}"
    except RecursionError:
        return "too deep"
    return None


def _keywords(node: Any) -> Iterator[tuple[str, str]]:
    """Every member of every object that is a text, and the patterns that are names of members."""
    if isinstance(node, list):
        for inner in node:
            yield from _keywords(inner)
    elif isinstance(node, dict):
        for name, value in node.items():
            if isinstance(value, str):
                yield name, value
            elif name == "patternProperties" and isinstance(value, dict):
                yield from (("pattern", pattern) for pattern in value)
            yield from _keywords(value)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "missing or null"}
    if value in ("", []):
        return "empty"
    return names.get(type(value), "a number")


def _said(value: Any) -> str:
    """Numbers may be shown; anything else may be somebody's text."""
    return str(value) if type(value) in (int, float) else _kind(value)
