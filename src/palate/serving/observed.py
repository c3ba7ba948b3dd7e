"""Every request: an id, one line of JSON, its time and status counted, and an answer even where the code failed."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate.serving.metering import Meter

logger = logging.getLogger("palate.serving")
requests = logging.getLogger("palate.requests")
_ID = re.compile(rb"[!-~]{1,200}")


class JsonLines(logging.Formatter):
    """One object a line. JSON escapes what could end the line or move a cursor, whoever sent it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def logging_config(each_request: bool = True) -> dict[str, Any]:
    """For `logging.config.dictConfig`, and for uvicorn, which sets up its workers by it."""
    loud = {"handlers": ["stderr"], "level": "INFO", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonLines}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},  # of libraries
        "loggers": {
            "palate.serving": loud,
            "palate.requests": {**loud, "level": "INFO" if each_request else "WARNING"},
            "uvicorn": {**loud, "level": "WARNING"},
        },
    }


def say(event: str, level: int = logging.INFO, **fields: object) -> None:
    """A line of the log that belongs to no request."""
    logger.log(level, event, extra={"fields": fields})


class Observed:
    """Plain ASGI, around everything: starlette's `BaseHTTPMiddleware` costs a task a request.

    An id that comes as `X-Request-ID` is kept, else one is made; it goes back in the answer, into the log, and to the
    route, whose slate it fixes. Paths and queries are not logged: they are people's ids.

    Args:
        snapshot: Name of the one that is served.
        leaving: Whether connections are to be closed after their answers, since the process is about to end.
    """

    def __init__(self, app: ASGIApp, meter: Meter, snapshot: Callable[[], str], leaving: Callable[[], bool]) -> None:
        self.app, self.meter, self.snapshot, self.leaving = app, meter, snapshot, leaving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, degraded = time.perf_counter(), 0, ""
        request_id = _identify(scope)

        async def noting(message: Message) -> None:
            nonlocal status, degraded
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                degraded = headers.get("x-palate-degraded", "")
                headers["x-request-id"] = request_id
                headers.setdefault("x-content-type-options", "nosniff")
                if self.leaving():
                    headers["connection"] = "close"
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except Exception:
            logger.exception("request failed", extra={"fields": {"request_id": request_id}})
            if not status:
                body = {
                    "detail": "This is our mistake; the log has it under the request's id",
                    "request_id": request_id,
                }
                await JSONResponse(body, 500)(scope, receive, noting)
            status = 500
        finally:
            self._note(scope, request_id, status or 499, time.perf_counter() - start, degraded)

    def _note(self, scope: Scope, request_id: str, status: int, seconds: float, degraded: str) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        self.meter.record(route, status, seconds)
        if degraded:
            self.meter.degraded.labels(degraded).inc()
        if not requests.isEnabledFor(logging.INFO):
            return
        fields = {
            "request_id": request_id,
            "method": scope["method"],
            "route": route,
            "status": status,
            "ms": round(1000 * seconds, 2),
            "snapshot": self.snapshot(),
        }
        fields |= {"key": scope["palate.key"]} if "palate.key" in scope else {}
        fields |= {"degraded": degraded} if degraded else {}
        requests.info("request", extra={"fields": fields})


def _identify(scope: Scope) -> str:
    """What came as `X-Request-ID` where it can be shown; where none came, one is put among the headers."""
    came = [value for name, value in scope["headers"] if name == b"x-request-id"]
    if came and _ID.fullmatch(came[0]):
        request_id: str = came[0].decode("ascii")
    else:
        request_id = uuid.uuid4().hex
        if not came:
            scope["headers"] = [*scope["headers"], (b"x-request-id", request_id.encode())]
    scope["palate.request_id"] = request_id
    return request_id
