"""One attempt over HTTP: a body out, a parsed reply back, or an `AttemptError` for all that a server can do wrong."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import select
import ssl
from contextvars import ContextVar
from enum import Enum
from itertools import count
from typing import Any
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from palate.errors import printable
from palate.llm.structured import strict_json
from palate.llm.traffic import retry_after

CONNECT_SECONDS = 10.0
_BUSY = {429: False, 502: True, 503: False, 504: True}  # status: may the attempt have been billed?
_RETRY = {408, 409, 425}
_NOT_PLAIN = re.compile(rb"\\u[dD][89a-fA-F]|\d[eE]\+?\d{3}")  # lone surrogates and infinities look like this


class Kind(Enum):
    UNREACHED = "not reached"  # nothing was sent
    BUSY = "busy"  # the server has no room now
    BROKEN = "broken"  # what came back is no answer; the next attempt may be better
    DENIED = "denied"  # this request will never be answered
    FATAL = "fatal"  # no request will be


class AttemptError(Exception):
    """Why an attempt came to nothing.

    Args:
        label: Fit for a log: no text of people or servers.
        detail: What the server said, shortened, without the key.
        billed: The server may have worked for it.
        wait: Seconds the server asked for.
    """

    def __init__(
        self,
        kind: Kind,
        label: str,
        detail: str = "",
        *,
        billed: bool = False,
        wait: float | None = None,
        slow: bool = False,
    ) -> None:
        super().__init__(f"{label}: {detail}" if detail else label)
        self.kind, self.label, self.billed, self.wait = kind, label, billed, wait
        self.congested = kind is Kind.BUSY or slow


class Wire:
    """Connections to one server. Used within one event loop.

    Args:
        url: Of the chat completions.
        key: Goes into the header and nowhere else.
        timeout: Seconds for one attempt.
        max_bytes: Of one reply; reading stops there.
    """

    def __init__(self, url: str, key: str | None, timeout: float, max_bytes: int) -> None:
        self.url, self._key, self._timeout, self._max_bytes = url, key, timeout, max_bytes
        # Servers and gateways that echo this show us an answer to somebody else's request.
        self._prefix, self._numbers = f"palate-{secrets.token_hex(4)}-", count()
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=0, keepalive_timeout=30),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
        )
        self._limits = aiohttp.ClientTimeout(total=timeout, sock_connect=min(CONNECT_SECONDS, timeout))

    async def close(self) -> None:
        await self._session.close()

    async def post(self, body: bytes) -> dict[str, Any]:
        """The parsed reply to one attempt.

        Raises:
            AttemptError: always of the kind that tells what to do next.
        """
        mark = f"{self._prefix}{next(self._numbers)}"
        try:
            async with self._session.post(
                self.url, data=body, headers={"X-Request-Id": mark}, timeout=self._limits, allow_redirects=False
            ) as response:
                echoed = response.headers.get("X-Request-Id", mark)
                if echoed != mark and echoed.startswith(self._prefix):
                    _drop_connection()
                    raise AttemptError(Kind.BROKEN, "another request's answer", billed=True)
                data = await self._read(response)
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
            raise self._lost(error) from error
        if 200 <= response.status < 300:
            return self._parsed(response, data)
        raise self._status_failure(response, data)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        declared = response.content_length or 0
        chunks, size = [], 0
        while declared <= self._max_bytes and (chunk := await response.content.readany()):
            chunks.append(chunk)
            size += len(chunk)
            if size > self._max_bytes:
                break
        if max(declared, size) > self._max_bytes:
            response.close()  # what is left is not read
            raise AttemptError(Kind.DENIED, f"an answer over {self._max_bytes:,} bytes", billed=True)
        return b"".join(chunks)

    def _parsed(self, response: aiohttp.ClientResponse, data: bytes) -> dict[str, Any]:
        kind = response.headers.get("Content-Type", "application/json").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            detail = f"{self.url} sent {self.said(kind)}, not JSON: {self.said(data.decode(errors='replace'))}"
            raise AttemptError(Kind.BROKEN, "not an OpenAI-compatible answer", detail, billed=True)
        try:
            reply = strict_json(data.decode())
            if _NOT_PLAIN.search(data):
                json.dumps(reply, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeError as error:
            raise AttemptError(Kind.BROKEN, "invalid UTF-8 in the answer", billed=True) from error
        except (ValueError, RecursionError) as error:
            raise AttemptError(Kind.BROKEN, "invalid JSON in the answer", self.said(error), billed=True) from error
        if not isinstance(reply, dict):
            raise AttemptError(Kind.BROKEN, "the answer is not a JSON object", billed=True)
        return reply

    def _status_failure(self, response: aiohttp.ClientResponse, data: bytes) -> AttemptError:
        status, label = response.status, f"HTTP {response.status}"
        message, known = _error_message(data)
        detail = self.said(message)
        wait = retry_after(response.headers.get("Retry-After"))
        if status in (401, 403):
            return AttemptError(Kind.FATAL, label, detail)
        if status in _BUSY:
            return AttemptError(Kind.BUSY, label, detail, billed=_BUSY[status], wait=wait)
        if status >= 500 or status in _RETRY:
            return AttemptError(Kind.BROKEN, label, detail, billed=True, wait=wait)
        if status < 400 or (status in (404, 405) and not known):
            to = self.said(response.headers.get("Location", ""))
            moved = f"sent on to {to}" if to else f"no chat completions here: {detail}"
            return AttemptError(Kind.FATAL, label, moved)
        return AttemptError(Kind.DENIED, label, f"{self.url}: {detail}")

    def said(self, text: object) -> str:
        """What a server said, fit to be shown: short, on one line, without the key."""
        whole = str(text)
        return printable(whole.replace(self._key, "[key]") if self._key else whole, 200)

    def _lost(self, error: Exception) -> AttemptError:
        """What aiohttp raised, as a failure. Its texts may hold parts of an answer: mostly names are taken."""
        if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
            return AttemptError(Kind.FATAL, "TLS failed", self.said(error))
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return AttemptError(Kind.UNREACHED, "no connection", "none in time")
        if isinstance(error, aiohttp.ClientConnectorError):
            return AttemptError(Kind.UNREACHED, "no connection", self.said(error.os_error.strerror or error.os_error))
        if isinstance(error, TimeoutError):
            return AttemptError(Kind.BROKEN, f"no whole answer within {self._timeout:g} s", billed=True, slow=True)
        broken = {aiohttp.ClientPayloadError: "half an answer", aiohttp.ClientResponseError: "no HTTP"}
        label = next((label for kind, label in broken.items() if isinstance(error, kind)), "connection lost")
        return AttemptError(Kind.BROKEN, label, f"{self.url}, {type(error).__name__}", billed=True)


_CONNECTION: ContextVar[ResponseHandler | None] = ContextVar("connection", default=None)


class _Connector(aiohttp.TCPConnector):
    """Reuses no connection on which something has arrived unasked.

    aiohttp (3.14) parses what arrives on an idle connection and hands it to the next request as its answer. From then
    on each request on this connection would get the answer of the one before.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._used: WeakSet[ResponseHandler] = WeakSet()

    async def connect(self, *args: Any, **settings: Any) -> Connection:
        while True:
            connection = await super().connect(*args, **settings)
            protocol = connection.protocol
            assert protocol is not None
            if protocol not in self._used or not _has_surplus(protocol):
                self._used.add(protocol)
                _CONNECTION.set(protocol)
                return connection
            connection.close()


def _has_surplus(protocol: ResponseHandler) -> bool:
    if protocol.should_close:
        return True
    transport = protocol.transport
    if transport is None or transport.get_extra_info("ssl_object") is not None:
        return transport is None  # TLS has messages of its own: readable does not mean an answer
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _drop_connection() -> None:
    """Close the connection that this task's request went over, pooled already or not."""
    protocol = _CONNECTION.get()
    if protocol is not None:
        protocol.close()


def _error_message(data: bytes) -> tuple[str, bool]:
    """What an error body says, and whether it is one of this protocol's."""
    text = data.decode(errors="replace")
    try:
        reply = strict_json(text)
    except (ValueError, RecursionError):
        return text[:2000], False
    error = reply.get("error") if isinstance(reply, dict) else None
    if isinstance(error, dict):
        return str(error.get("message", error)), True
    if isinstance(error, str) or (isinstance(reply, dict) and reply.get("object") == "error"):
        return str(error or reply.get("message")), True
    return text[:2000], False
