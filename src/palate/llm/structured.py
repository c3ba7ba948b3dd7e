"""Answers that must fit a JSON Schema or a list of strings: checked here whatever the engine promised."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from typing import Any, NoReturn

import jsonschema
from pydantic import BaseModel, ValidationError

from palate.llm.request import Answer, Message, Request


def checked(request: Request, answer: Answer) -> Answer:
    """`answer` with `value` parsed and validated; one that does not fit gets `error` instead.

    With a pydantic model as schema `value` is an object of it; for a raw body it stays the server's reply.
    """
    schema = _schema_of(request)
    if answer.error is not None or (schema is None and request.trie is None):
        return answer
    if request.trie is not None:
        return _in_trie(request.trie, answer)
    try:
        value = strict_json(answer.text)
        if isinstance(schema, dict):
            _validator(json.dumps(schema, sort_keys=True)).validate(value)
        elif schema is not None:
            value = schema.model_validate(value)
    except jsonschema.ValidationError as problem:
        return replace(answer, error=f"does not fit the schema: {problem.message[:300]}")
    except ValidationError as problem:
        first = problem.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return replace(answer, error=f"does not fit the schema: {place}: {first['msg']}")
    except (ValueError, RecursionError) as problem:
        return replace(answer, error=f"does not fit the schema: {problem}")
    return answer if request.body is not None else replace(answer, value=value)


def repair(request: Request, answer: Answer) -> Request:
    """The one further attempt: the same request with the bad answer and what is wrong with it."""
    complaint = f"Your answer {answer.error}. Answer again with valid JSON only."
    if request.trie is not None:
        complaint = "Answer again with exactly one of: " + "; ".join(request.trie)
    if request.body is not None:
        more = [{"role": "assistant", "content": answer.text}, {"role": "user", "content": complaint}]
        return replace(request, body={**request.body, "messages": [*request.body["messages"], *more]})
    extra = (Message("assistant", answer.text), Message("user", complaint))
    return replace(request, messages=request.messages + extra)


def strict_json(text: str | bytes) -> Any:
    """JSON as the standard has it.

    Raises:
        ValueError: Not JSON, or NaN or an infinity in it.
    """
    return json.loads(text, parse_constant=_refuse)


def body_schema(body: dict[str, Any]) -> dict[str, Any] | None:
    """The JSON Schema that a chat-completions body asks its answer to fit."""
    wanted = body.get("response_format")
    held = wanted.get("json_schema") if isinstance(wanted, dict) else None
    schema = held.get("schema") if isinstance(held, dict) else None
    return schema if isinstance(schema, dict) else None


def _in_trie(trie: tuple[str, ...], answer: Answer) -> Answer:
    text = answer.text.strip()
    if text in trie:
        return replace(answer, text=text, value=text)
    return replace(answer, error=f"not one of the {len(trie)} allowed answers: {text[:100]!r}")


def _schema_of(request: Request) -> dict[str, Any] | type[BaseModel] | None:
    return body_schema(request.body) if request.body is not None else request.schema


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    parsed = json.loads(schema)
    return jsonschema.validators.validator_for(parsed)(parsed)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
