"""Ordinary requests for a slate, read without FastAPI's look at each parameter: that costs as much as all the rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

_NAMES = {"n", "restrict", "explain"}
_HEADERS = {b"x-request-id": "request_id", b"x-palate-variant": "variant"}
_COUNT = re.compile(r"[1-9][0-9]?|1[0-9][0-9]")  # fewer than 200
_WORD = re.compile(r"[!-~]{1,200}")
_LONGEST = 200  # characters of a restrict


class PlainRoute(APIRoute):
    """FastAPI answers everything that is not ordinary, and whatever is wrong; it documents the route too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        full, call = super().get_route_handler(), self.endpoint

        async def handle(request: Request) -> Response:
            given = ordinary(request)
            answer: Response = await (full(request) if given is None else call(**given))
            return answer

        return handle


def ordinary(request: Request) -> dict[str, Any] | None:
    """What the route is given, where each parameter comes once at most and in its plainest form; else None."""
    given: dict[str, Any] = dict(request.path_params)
    for name, value in request.query_params.multi_items():
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
    for header, text in request.scope["headers"]:
        if header in _HEADERS:
            name, word = _HEADERS[header], text.decode("latin-1")
            if name in given or not _WORD.fullmatch(word):
                return None
            given[name] = word
    return given
