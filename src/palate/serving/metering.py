"""Counts and latencies of requests, in Prometheus' text format."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from threading import Lock

from starlette.types import ASGIApp, Message, Receive, Scope, Send

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)  # seconds


class Meter:
    """Thread-safe. Routes are templates ("/v1/items/{item_id}"), so that there are few of them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._requests: dict[tuple[str, int], int] = defaultdict(int)
        self._buckets: dict[str, list[int]] = defaultdict(lambda: [0] * (len(BOUNDS) + 1))
        self._seconds: dict[str, float] = defaultdict(float)

    def record(self, route: str, status: int, seconds: float) -> None:
        with self._lock:
            self._requests[route, status] += 1
            self._buckets[route][bisect_left(BOUNDS, seconds)] += 1
            self._seconds[route] += seconds

    def text(self) -> str:
        with self._lock:
            lines = ["# HELP palate_requests_total Requests answered.", "# TYPE palate_requests_total counter"]
            lines += [
                f'palate_requests_total{{route="{route}",status="{status}"}} {count}'
                for (route, status), count in sorted(self._requests.items())
            ]
            lines += ["# HELP palate_request_seconds Time to answer.", "# TYPE palate_request_seconds histogram"]
            for route in sorted(self._buckets):
                lines += self._histogram(route)
        return "\n".join(lines) + "\n"

    def _histogram(self, route: str) -> list[str]:
        lines, total = [], 0
        for bound, count in zip([*map(str, BOUNDS), "+Inf"], self._buckets[route], strict=True):
            total += count
            lines.append(f'palate_request_seconds_bucket{{route="{route}",le="{bound}"}} {total}')
        lines.append(f'palate_request_seconds_sum{{route="{route}"}} {self._seconds[route]:.6f}')
        lines.append(f'palate_request_seconds_count{{route="{route}"}} {total}')
        return lines


class Measured:
    """Records every request of an application. Plain ASGI: starlette's `BaseHTTPMiddleware` costs a task a request."""

    def __init__(self, app: ASGIApp, meter: Meter) -> None:
        self.app, self.meter = app, meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            self.meter.record(route, status, time.perf_counter() - start)
