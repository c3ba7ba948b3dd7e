"""Ordinary requests for a slate, answered before the router: its look at each request costs more than all the rest."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

Errors = Mapping[type[Exception], Callable[[Request, Exception], Awaitable[Response]]]
_NAMES = {"n", "restrict", "explain"}
_HEADERS = {b"x-request-id": "request_id", b"x-palate-variant": "variant"}
_COUNT = re.compile(r"[1-9][0-9]?|1[0-9][0-9]")  # fewer than 200
_WORD = re.compile(r"[!-~]{1,200}")
_LONGEST = 200  # characters of a restrict


class Plain:
    """Plain ASGI, innermost. What is not ordinary goes on to FastAPI, which documents the route and checks the rest.

    Args:
        start: Of the path; a user's id is what comes after it.
        call: What the route calls.
        route: As it is counted and traced.
        errors: How those that `call` raises are answered.
    """

    def __init__(
        self,
        app: ASGIApp,
        start: str,
        call: Callable[..., Awaitable[Response]],
        route: Any,
        errors: Errors,
    ) -> None:
        self.app, self.start, self.call, self.route, self.errors = app, start, call, route, errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = ordinary(scope, self.start) if scope["type"] == "http" else None
        if given is None:
            await self.app(scope, receive, send)
            return
        scope["route"] = self.route
        try:
            answer = await self.call(**given)
        except tuple(self.errors) as error:
            handler = next(self.errors[kind] for kind in type(error).__mro__ if kind in self.errors)
            answer = await handler(Request(scope), error)
        await answer(scope, receive, send)


def ordinary(scope: Scope, start: str) -> dict[str, Any] | None:
    """What the route is given, where each parameter comes once at most and in its plainest form; else None."""
    user_id = scope["path"][len(start) :]
    if scope["method"] != "GET" or scope.get("root_path") or not scope["path"].startswith(start):
        return None
    if not user_id or "/" in user_id:
        return None
    given: dict[str, Any] = {"user_id": user_id}
    for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
        if name not in _NAMES or name in given:
            return None
        if name == "n" and _COUNT.fullmatch(value):
            given[name] = int(value)
        elif name == "explain" and value in ("true", "false"):
            given[name] = value == "true"
        elif name == "restrict" and 0 < len(value) <= _LONGEST:
            given[name] = value
        else:
            return None
    for header, text in scope["headers"]:
        if header in _HEADERS:
            name, word = _HEADERS[header], text.decode("latin-1")
            if name in given or not _WORD.fullmatch(word):
                return None
            given[name] = word
    return given
