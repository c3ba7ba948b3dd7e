"""What a call costs, and the most that it can cost: the bound that a budget reserves before the call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from palate.llm.request import Bound, Request

TOKENS_PER_MESSAGE = 16  # of chat templates: role, begin and end of a turn; real ones use 3 to 8
TOKENS_PER_IMAGE = 3072  # above what the large providers count for one picture at full detail
DEFAULT_OUTPUT = 4096  # of a body that sets no limit; servers have one of their own


@dataclass(frozen=True)
class Prices:
    """Money for a million tokens. `cached`: prompt tokens the server did not read again; None: like the others."""

    tokens_in: float = 0.0
    tokens_out: float = 0.0
    cached: float | None = None

    def cost(self, tokens_in: int, tokens_cached: int, tokens_out: int) -> float:
        cached = self.tokens_in if self.cached is None else self.cached
        return (
            (tokens_in - tokens_cached) * self.tokens_in + tokens_cached * cached + tokens_out * self.tokens_out
        ) / 1e6


class TokenCounter(Protocol):
    """Counts the tokens of a text with the model's own tokenizer."""

    def __call__(self, text: str) -> int: ...


def turns(request: Request) -> Iterator[tuple[str, int]]:
    """Text and number of images of each message."""
    if request.body is None:
        yield from ((message.text, len(message.images)) for message in request.messages)
        return
    for message in request.body["messages"]:
        content: Any = message.get("content") or ""
        if isinstance(content, str):
            yield content, 0
        else:
            texts = [part.get("text") for part in content]
            yield "".join(t for t in texts if isinstance(t, str)), sum(p.get("type") == "image_url" for p in content)


def around(request: Request) -> str:
    """What the model may be shown beside the messages: a schema, the allowed answers, a body's tools."""
    if request.body is not None:
        rest = {name: value for name, value in request.body.items() if name != "messages"}
        calls = [{k: v for k, v in m.items() if k != "content"} for m in request.body["messages"]]
        return json.dumps([rest, calls], ensure_ascii=False)
    schema = "" if request.schema is None else json.dumps(request.json_schema, ensure_ascii=False)
    return "\n".join([schema, *(request.trie or ()), *(request.options or ())])


def output_bound(request: Request) -> int:
    """The most tokens an answer may have."""
    if request.body is None:
        return request.max_tokens
    limits = [request.body.get(name) for name in ("max_completion_tokens", "max_tokens")]
    known = [limit for limit in limits if isinstance(limit, int)]
    choices = request.body.get("n") or 1
    return (min(known) if known else DEFAULT_OUTPUT) * (choices if isinstance(choices, int) else 1)


def bound_of(request: Request, prices: Prices, count: TokenCounter | None = None) -> Bound:
    """From the model's tokenizer; without one a token for each byte, which no byte-level tokenizer exceeds."""
    read = list(turns(request))
    text = "\n".join([*(text for text, _ in read), around(request)])
    pictures = sum(images for _, images in read)
    tokens_in = len(text.encode()) if count is None else count(text)
    tokens_in += (len(read) + 1) * TOKENS_PER_MESSAGE + pictures * TOKENS_PER_IMAGE
    tokens_out = output_bound(request)
    return Bound(tokens_in + tokens_out, prices.cost(tokens_in, 0, tokens_out))
