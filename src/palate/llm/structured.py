"""Answers that must fit a JSON Schema or a list of strings: checked here whatever the engine promised."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import lru_cache
from typing import Any, NoReturn

import jsonschema
from jsonschema.exceptions import SchemaError, UnknownType
from pydantic import BaseModel, ValidationError
from referencing.exceptions import Unresolvable

from palate.llm.request import Answer, Message, Request


def checked(request: Request, answer: Answer) -> Answer:
    """`answer` with `value` parsed and validated; one that does not fit gets `error` instead.

    With a pydantic model as schema `value` is an object of it; for a raw body it stays the server's reply.
    """
    if answer.error is not None:
        return answer
    if not _is_unicode(answer):
        return replace(answer, text="", value=None, error="not valid Unicode: half a character")
    if request.trie is not None:
        return _in_trie(request.trie, answer)
    schema = body_schema(request.body) if request.body is not None else request.schema
    return answer if schema is None else _fitting(schema, answer, keep=request.body is not None)


def _fitting(schema: dict[str, Any] | type[BaseModel], answer: Answer, keep: bool) -> Answer:
    """`keep`: leave `value` as it is."""
    try:
        value = strict_json(answer.text)
        if isinstance(schema, dict):
            _validator(json.dumps(schema, sort_keys=True)).validate(value)
        else:
            value = schema.model_validate(value)
    except (re.error, Unresolvable, SchemaError, UnknownType) as problem:
        cause = str(problem).strip().splitlines()[0][:200]
        return replace(answer, text="", error=f"the schema cannot be used: {cause}")  # no text, nothing to repair
    except jsonschema.ValidationError as problem:
        cause = problem.message[:300]
    except ValidationError as problem:
        first = problem.errors()[0]
        cause = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    except (ValueError, RecursionError) as problem:
        cause = str(problem)
    else:
        return answer if keep else replace(answer, value=value)
    return replace(answer, error=f"does not fit the schema: {cause}")


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


def _is_unicode(answer: Answer) -> bool:
    """JSON can spell halves of a surrogate pair, which no file or database takes."""
    try:
        answer.text.encode()
        if answer.value is not None:
            json.dumps(answer.value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return False
    return True


def _in_trie(trie: tuple[str, ...], answer: Answer) -> Answer:
    text = answer.text.strip()
    if text in trie:
        return replace(answer, text=text, value=text)
    return replace(answer, error=f"not one of the {len(trie)} allowed answers: {text[:100]!r}")


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    parsed = json.loads(schema)
    return jsonschema.validators.validator_for(parsed)(parsed)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
