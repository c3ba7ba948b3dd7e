"""The chat-completions protocol: requests as bodies, replies as answers. No sockets here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from palate.errors import printable
from palate.llm.request import Message, Request
from palate.llm.structured import strict_json

MOST_LISTED = 20  # top_logprobs ends there, in OpenAI's protocol
TOLD_APART = 3  # options that share so many first characters may share their first token
LETTERS = "ABCDEFGHIJKLMNOPQRST"
_STREAMING = ("stream", "stream_options")  # an answer is read whole: a body cannot ask otherwise

Top = list[tuple[str, float]]  # likeliest tokens with their log-probabilities


class UnreadableError(ValueError):
    """A reply that is not what the protocol says; the same request may be answered well."""


class RefusedError(ValueError):
    """The model or its filter refused to answer; asking again would change nothing."""


def chat_body(request: Request, model: str) -> dict[str, Any]:
    """What is sent for `request`; a raw body goes as it stands, `model` and streaming aside."""
    if request.body is not None:
        return {"model": model} | {name: value for name, value in request.body.items() if name not in _STREAMING}
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role, "content": _content(message)} for message in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
    }
    optional = {"top_p": request.top_p, "seed": request.seed, "stop": list(request.stop) or None}
    body |= {name: value for name, value in optional.items() if value is not None}
    if request.json_schema is not None:
        body["response_format"] = schema_format(request.json_schema)
    elif request.trie is not None:
        body["response_format"] = one_of(request.trie)
    if request.logprobs:
        body |= {"logprobs": True, "top_logprobs": request.logprobs}
    return body


def first_token_body(request: Request, model: str) -> dict[str, Any]:
    """Asks for the likeliest first tokens of the answer: of the options, or of their letters if they begin alike."""
    assert request.options is not None
    body = chat_body(request, model) | {"max_tokens": 1, "temperature": 0.0, "logprobs": True}
    if not told_apart(request.options):
        listed = "\n".join(f"{letter}) {option}" for letter, option in zip(LETTERS, request.options, strict=False))
        body["messages"].append({"role": "user", "content": f"Options:\n{listed}\nAnswer with one letter only."})
    return body | {"top_logprobs": MOST_LISTED}


def sample_body(request: Request, model: str, number: int) -> dict[str, Any]:
    """Asks for one of the options, drawn at temperature 1."""
    assert request.options is not None
    longest = max(len(option.encode()) for option in request.options)  # no token is shorter than a byte
    body = chat_body(request, model) | {"temperature": 1.0, "response_format": one_of(request.options)}
    body["max_tokens"] = max(request.max_tokens, longest + 24)
    return body if request.seed is None else body | {"seed": request.seed + number}


def one_of(strings: Sequence[str]) -> dict[str, Any]:
    """Holds an answer to one of `strings`, as the member `answer` of an object: some servers take objects only."""
    answer = {"type": "string", "enum": [*strings]}
    return schema_format(
        {"type": "object", "properties": {"answer": answer}, "required": ["answer"], "additionalProperties": False}
    )


def schema_format(schema: dict[str, Any]) -> dict[str, Any]:
    """`strict` only where the schema allows it: OpenAI refuses it for objects that may lack or add members."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": _is_closed(schema)}}


def told_apart(options: Sequence[str]) -> bool:
    """Do the options differ so early that their first tokens surely do?"""
    starts = [option.lstrip()[:TOLD_APART] for option in options]
    return len(set(starts)) == len(starts) and not any(
        other.startswith(start) for start in starts for other in starts if other != start
    )


def read_choice(reply: Any) -> dict[str, Any]:
    """The first choice of a reply.

    Raises:
        UnreadableError: No choice in it.
        RefusedError: The model or a filter refused.
    """
    choices = reply.get("choices") if isinstance(reply, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise UnreadableError("no choice in the answer")
    if message.get("refusal"):
        raise RefusedError(f"the model refused: {printable(message['refusal'])[:200]}")
    if choice.get("finish_reason") == "content_filter":
        raise RefusedError("a content filter stopped the answer")
    if not isinstance(message.get("content"), str | None):
        raise UnreadableError("the answer's content is not text")
    return choice


def read_usage(reply: dict[str, Any]) -> dict[str, int]:
    """Token counts under the names of `Answer`; what is not told is 0."""
    usage = _object(reply.get("usage"))
    details = _object(usage.get("prompt_tokens_details"))
    return {
        "tokens_in": _count(usage.get("prompt_tokens")),
        "tokens_cached": _count(details.get("cached_tokens")),
        "tokens_out": _count(usage.get("completion_tokens")),
    }


def read_text(request: Request, choice: dict[str, Any]) -> dict[str, Any]:
    """Text, finish reason and log-probabilities under the names of `Answer`.

    Raises:
        UnreadableError: Log-probabilities that are none.
    """
    text = choice["message"].get("content") or ""
    found = {"text": text, "finish_reason": str(choice.get("finish_reason") or "stop")}
    if request.trie is not None:
        found["text"] = read_one_of(text)
    if request.logprobs:
        found["logprobs"] = tuple(_with_chosen(place) for place in _places(choice)) or None
    return found


def read_one_of(text: str) -> str:
    """The string within an answer that `one_of` held; the text itself of a server that did not hold it."""
    try:
        return str(strict_json(text)["answer"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return text.strip()


def first_tokens(choice: dict[str, Any]) -> Top | None:
    """The likeliest first tokens; None where the server gives no log-probabilities."""
    places = _places(choice)
    return _top(places[0]) or None if places else None


def first_token_shares(options: Sequence[str], top: Top) -> tuple[float, ...] | None:
    """Probabilities of the options from the likeliest first tokens; None if none of them begins an option.

    A token counts for the one option that it begins, leading space aside; of several spellings ("Yes", " Yes", "Y") the
    likeliest does, as an engine that scores the option itself would have it. An option that no listed token begins gets
    the probability of the least listed one: its own is not above that.
    """
    by_letter = not told_apart(options)
    starts = list(LETTERS[: len(options)]) if by_letter else [option.lstrip() for option in options]
    shares = [0.0] * len(options)
    for token, logprob in top:
        word = token.strip(" ().:\n") if by_letter else token.lstrip()
        begun = [i for i, start in enumerate(starts) if word and start.startswith(word)]
        if len(begun) == 1:
            shares[begun[0]] = max(shares[begun[0]], math.exp(logprob))
    if not any(shares):
        return None
    floor = math.exp(min(logprob for _, logprob in top))
    shares = [share or floor for share in shares]
    return tuple(share / sum(shares) for share in shares)


def sampled_shares(options: Sequence[str], drawn: Sequence[str]) -> tuple[float, ...]:
    """Shares of what was drawn, half a draw added to each option (Krichevsky & Trofimov 1981)."""
    counts = Counter(drawn)
    return tuple((counts[option] + 0.5) / (len(drawn) + 0.5 * len(options)) for option in options)


def _content(message: Message) -> str | list[dict[str, Any]]:
    if isinstance(message.content, str):
        return message.content
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": part.data_url}}
        for part in message.content
    ]


def _is_closed(schema: Any) -> bool:
    if isinstance(schema, list):
        return all(_is_closed(inner) for inner in schema)
    if not isinstance(schema, dict):
        return True
    properties = schema.get("properties")
    if isinstance(properties, dict) or schema.get("type") == "object":
        names = set(properties) if isinstance(properties, dict) else set()
        if schema.get("additionalProperties") is not False or names != set(schema.get("required", ())):
            return False
    return all(_is_closed(inner) for inner in schema.values())


def _places(choice: dict[str, Any]) -> list[dict[str, Any]]:
    content = _object(choice.get("logprobs")).get("content")
    return [place for place in content if isinstance(place, dict)] if isinstance(content, list) else []


def _top(place: dict[str, Any]) -> Top:
    listed = place.get("top_logprobs")
    return [_token(entry) for entry in listed] if isinstance(listed, list) else []


def _with_chosen(place: dict[str, Any]) -> tuple[tuple[str, float], ...]:
    chosen = _token(place)
    return (chosen, *(entry for entry in _top(place) if entry[0] != chosen[0]))


def _token(entry: Any) -> tuple[str, float]:
    try:
        return str(entry["token"]), min(0.0, float(entry["logprob"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableError("log-probabilities that cannot be read") from error


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
