"""JSON as bytes: by orjson where it is installed (extra `fast`), else by the standard library."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from fastapi import Response


def json_response(content: Any, headers: dict[str, str] | None = None) -> Response:
    """Of plain dicts, lists, strings, numbers and times: FastAPI would look through each of them first."""
    return Response(_dumps()(content), media_type="application/json", headers=headers)


@cache
def _dumps() -> Callable[[Any], bytes]:
    if find_spec("orjson") is not None:
        dumps: Callable[[Any], bytes] = import_module("orjson").dumps
        return dumps
    encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=datetime.isoformat)
    return lambda content: encoder.encode(content).encode()
