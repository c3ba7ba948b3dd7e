"""Typed requests as plain data and back, for shards and files: the key stays the same."""

from __future__ import annotations

import base64
from dataclasses import fields
from typing import Any

from palate.llm.images import Image
from palate.llm.request import Message, Part, Request

_PLAIN = ("max_tokens", "temperature", "top_p", "seed", "logprobs", "body", "purpose", "entity")
_TUPLES = ("stop", "options", "trie")
_DEFAULTS = {field.name: field.default for field in fields(Request)}


def to_line(request: Request) -> dict[str, Any]:
    """JSON-ready; what stands at its default is left out. A pydantic schema becomes its JSON Schema."""
    line: dict[str, Any] = {name: getattr(request, name) for name in (*_PLAIN, *_TUPLES)}
    line = {name: value for name, value in line.items() if value != _DEFAULTS[name]}
    if request.messages:
        line["messages"] = [[message.role, _content(message)] for message in request.messages]
    if request.schema is not None:
        line["schema"] = request.json_schema
    return line


def from_line(line: dict[str, Any]) -> Request:
    """The request that `to_line` wrote."""
    messages = tuple(Message(role, _parts(content)) for role, content in line.get("messages", ()))
    given: dict[str, Any] = {name: line[name] for name in (*_PLAIN, "schema") if name in line}
    given |= {name: tuple(line[name]) for name in _TUPLES if name in line}
    return Request(messages=messages, **given)


def _content(message: Message) -> Any:
    if isinstance(message.content, str):
        return message.content
    return [
        part if isinstance(part, str) else {"image": base64.b64encode(part.data).decode()} for part in message.content
    ]


def _parts(content: Any) -> str | tuple[Part, ...]:
    if isinstance(content, str):
        return content
    return tuple(part if isinstance(part, str) else Image.of(base64.b64decode(part["image"])) for part in content)
