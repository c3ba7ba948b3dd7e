"""Answers that must fit a JSON Schema or a list of strings: checked here whatever the engine promised."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema

from palate.llm.request import Answer, Message, Request


def checked(request: Request, answer: Answer) -> Answer:
    """`answer` with `value` parsed and validated; one that does not fit gets `error` instead."""
    if answer.error is not None:
        return answer
    if request.trie is not None:
        text = answer.text.strip()
        if text in request.trie:
            return replace(answer, text=text, value=text)
        return replace(answer, error=f"not one of the {len(request.trie)} allowed answers: {text!r}")
    if request.schema is None:
        return answer
    try:
        value = json.loads(answer.text)
        jsonschema.validate(value, request.schema)
    except (ValueError, jsonschema.ValidationError) as problem:
        reason = problem.message if isinstance(problem, jsonschema.ValidationError) else str(problem)
        return replace(answer, error=f"does not fit the schema: {reason}")
    return replace(answer, value=value)


def repair(request: Request, answer: Answer) -> Request:
    """The one further attempt: the same request with the bad answer and what is wrong with it."""
    complaint = f"Your answer {answer.error}. Answer again with valid JSON only."
    if request.trie is not None:
        complaint = "Answer again with exactly one of: " + "; ".join(request.trie)
    extra = (Message("assistant", answer.text), Message("user", complaint))
    return replace(request, messages=request.messages + extra)
