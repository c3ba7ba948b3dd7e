"""Who comes in: keys and scopes, rates, and the size of what is sent. Before anything is read of a request's body."""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate.serving.keys import Key, Keys
from palate.serving.keys import Scope as Right
from palate.serving.metering import Meter

DEEPEST = 16  # brackets within brackets
_ADDRESSES = 10_000  # whose rates are remembered
_BODY_SECONDS = 30.0
_READING = ("GET", "HEAD", "OPTIONS")
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")


class Refusal(Exception):  # noqa: N818
    """Why a request goes no further."""

    def __init__(self, status: int, reason: str, what: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(what)
        self.status, self.reason, self.what, self.headers = status, reason, what, headers or {}


class Doors:
    """Plain ASGI, around an application.

    `/v1` asks for `X-API-Key` where there are keys, the console for the same key as the password of HTTP Basic, since
    a browser asks for that by itself. Health, metrics, and the documentation of the API are open. Rates are of a key,
    or of an address where there is none, and each worker counts its own.

    Args:
        keys: Called for each request, so that they can be exchanged; none: nobody is asked.
        rate: Requests a second, as a mean; twice as many at once. None: as many as come.
        max_body: Bytes.
    """

    def __init__(
        self, app: ASGIApp, keys: Callable[[], Keys], meter: Meter, rate: float | None = None, max_body: int = 8 * 2**20
    ) -> None:
        self.app, self.keys, self.meter, self.max_body = app, keys, meter, max_body
        self.buckets = Buckets(rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        key: Key | None = None
        try:
            headers = Headers(scope=scope)
            key = self._who(scope, headers)
            self._often(scope, key)
            self._may(scope, headers, key)
            if scope["method"] not in _READING:
                receive = await self._read(headers, receive)
        except Refusal as refusal:
            self.meter.refused.labels(refusal.reason, key.name if key else "").inc()
            answer = JSONResponse({"detail": refusal.what}, refusal.status, refusal.headers)
            await answer(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _who(self, scope: Scope, headers: Headers) -> Key | None:
        given = _basic(headers) if _is_below(scope["path"], "/console") else headers.get("x-api-key")
        found = self.keys().find(given) if given else None
        if found is not None:
            scope["palate.key"] = found.name
        return found

    def _often(self, scope: Scope, key: Key | None) -> None:
        if not is_guarded(scope["path"]):
            return
        who = f"key {key.name}" if key else f"address {(scope.get('client') or ('',))[0]}"
        wait = self.buckets.wait(who, key.rate if key else None)
        if wait > 0:
            raise Refusal(429, "rate", "Too many requests", {"Retry-After": str(math.ceil(wait))})

    def _may(self, scope: Scope, headers: Headers, key: Key | None) -> None:
        if not self.keys() or not is_guarded(scope["path"]):
            return
        if key is None and _is_below(scope["path"], "/console"):
            ask = {"WWW-Authenticate": 'Basic realm="Palate: any name, a key as the password", charset="UTF-8"'}
            raise Refusal(401, "key", "A key is asked for", ask)
        if key is None:
            raise Refusal(401, "key", "X-API-Key is missing or wrong")
        right = right_for(scope["method"], scope["path"])
        if not key.may(right):
            raise Refusal(403, "scope", f"This key lacks the scope {right}")

    async def _read(self, headers: Headers, receive: Receive) -> Receive:
        """The whole body, so that one that is too large, too slow or too deep is refused before it is taken apart."""
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdecimal() or len(length) > 15 or int(length) > self.max_body:
            raise self._too_large()
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await self._whole(receive)
        except TimeoutError:
            raise Refusal(408, "slow", "The body took too long", {"Connection": "close"}) from None
        if "json" in headers.get("content-type", "json") and is_deep(body):
            raise Refusal(422, "depth", f"The body is nested more than {DEEPEST} deep")
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()  # nothing more is sent; it tells when the client has gone
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return again

    async def _whole(self, receive: Receive) -> bytes:
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refusal(400, "gone", "The client went away")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.max_body:
                raise self._too_large()
            if not message.get("more_body", False):
                return b"".join(parts)

    def _too_large(self) -> Refusal:
        # What is still on its way is not read.
        return Refusal(413, "size", f"The body is larger than {self.max_body} bytes", {"Connection": "close"})


class Buckets:
    """Token buckets: `rate` tokens a second flow into each, which holds those of two seconds, and a request takes one.

    For the one thread of an event loop. Those not seen for longest are forgotten, which is as good as full.
    """

    def __init__(self, rate: float | None, clock: Callable[[], float] = time.monotonic, most: int = _ADDRESSES) -> None:
        self.rate, self.clock, self.most = rate, clock, most
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, who: str, rate: float | None = None) -> float:
        """Seconds until another request is welcome; 0: this one is, and counts."""
        rate = rate or self.rate
        if rate is None:
            return 0.0
        now, most = self.clock(), max(1.0, 2 * rate)
        left, then = self._left.pop(who, (most, now))
        left = min(most, left + (now - then) * rate)
        allowed = left >= 1
        self._left[who] = (left - 1 if allowed else left, now)
        if len(self._left) > self.most:
            self._left.popitem(last=False)
        return 0.0 if allowed else (1 - left) / rate


def is_guarded(path: str) -> bool:
    """Whether a key is asked for where there are any."""
    return _is_below(path, "/v1") or _is_below(path, "/console")


def right_for(method: str, path: str) -> Right:
    """The scope a request needs. What is not known here to be harmless is for administrators."""
    if method in _READING:
        return "admin" if _is_below(path, "/v1/state") else "read"
    if _is_below(path, "/v1/recommend"):
        return "read"
    if _is_below(path, "/v1/events"):
        return "events"
    return "items" if _is_below(path, "/v1/items") else "admin"


def is_deep(body: bytes, most: int = DEEPEST) -> bool:
    """Whether JSON nests more brackets than `most`; no matter whether it is JSON."""
    # Those in texts too at first: they are balanced as a rule.
    return _stays(body, most) and _stays(_STRINGS.sub(b"", body), most)


def _stays(body: bytes, most: int) -> bool:
    """Whether brackets are left once the innermost pairs were taken away so often: it is deeper, or unbalanced."""
    brackets = body.translate(_ONE_KIND, _OTHERS)
    for _ in range(most):
        fewer = brackets.replace(b"[]", b"")
        if len(fewer) == len(brackets):
            break
        brackets = fewer
    return bool(brackets)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def _basic(headers: Headers) -> str | None:
    """The password of HTTP Basic, or the key of the header."""
    kind, _, words = headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return headers.get("x-api-key")
    try:
        return base64.b64decode(words, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return None
