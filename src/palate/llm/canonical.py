"""The canonical form of a request: one text for all spellings of it, whose hash is the ledger's key."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from palate.llm.images import Image

if TYPE_CHECKING:
    from palate.llm.request import Message, Request

# Of a chat-completions body: what a reply is streamed or counted with changes nothing of the answer.
_NOT_ASKED = ("model", "stream", "stream_options", "user", "metadata", "store")

_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def canonical_json(request: Request, model: str) -> str:
    """JSON with sorted keys. What stands at its default is left out where an older ledger did not have it."""
    canonical: dict[str, Any] = {"model": model}
    if request.body is not None:
        body = {name: value for name, value in request.body.items() if name not in _NOT_ASKED}
        return _ENCODER.encode(canonical | {"body": _plain(body)})
    canonical |= {
        "messages": [[message.role, _content(message)] for message in request.messages],
        "max_tokens": int(request.max_tokens),
        "temperature": float(request.temperature) + 0.0,  # -0.0 becomes 0.0
        "schema": request.json_schema,
        "options": None if request.options is None else list(request.options),
        "trie": None if request.trie is None else list(request.trie),
    }
    later = {
        "top_p": None if request.top_p is None else float(request.top_p),
        "seed": request.seed,
        "stop": list(request.stop) or None,
        "logprobs": request.logprobs or None,
    }
    return _ENCODER.encode(canonical | {name: value for name, value in later.items() if value is not None})


def key_of(canonical: str) -> str:
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def _content(message: Message) -> Any:
    """Text, neighbouring text parts joined; with images a list in which each image is its digest."""
    if isinstance(message.content, str):
        return message.content
    parts: list[Any] = []
    for part in message.content:
        if isinstance(part, Image):
            parts.append({"image": part.digest})
        elif parts and isinstance(parts[-1], str):
            parts[-1] += part
        elif part:
            parts.append(part)
    return parts[0] if len(parts) == 1 and isinstance(parts[0], str) else parts or ""


def _plain(value: Any) -> Any:
    """Whole floats as ints (JSON does not tell 1.0 from 1), null members of objects left out."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
