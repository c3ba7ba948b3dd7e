"""What a server needs beside its answers: doors, logs, measures, the watch over snapshots, and a good end."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.middleware.cors import CORSMiddleware

from palate.errors import PalateError
from palate.serving.doors import Doors
from palate.serving.keys import Keys, plain_key, read_keys
from palate.serving.live import Live
from palate.serving.load import uncollected
from palate.serving.metering import Meter
from palate.serving.observed import Observed, say
from palate.serving.opened import Snapshot
from palate.serving.operations import Operations
from palate.serving.sampling import Sampler
from palate.serving.swap import Watcher
from palate.serving.tracing import Traced


class Running:
    """A server's parts that live as long as it does.

    Args:
        opened: From a snapshot's path to one that is checked and warm.
    """

    def __init__(
        self, live: Live, folder: Path, opened: Callable[[Path], Snapshot], api_key: str | None, settings: Operations
    ) -> None:
        self.live, self.settings, self.meter = live, settings, Meter()
        self.draining = False
        self._own = (*settings.keys, *([plain_key(api_key)] if api_key else []))
        self._read_at = 0
        self.keys = self._all_keys()
        self.sampler = Sampler(self.meter, settings.sample)
        found = opened if settings.watch is None else partial(_compiled, opened)
        self.watcher = Watcher(live, folder, found, self.meter, settings.watch or 1.0, self.look_at_keys)
        self.at_end: list[Callable[[], None]] = []
        live.meter = self.meter

    def add_to(self, app: FastAPI) -> None:
        """The outermost comes last."""
        settings = self.settings
        app.add_middleware(
            Doors, keys=lambda: self.keys, meter=self.meter, rate=settings.rate, max_body=settings.max_body
        )
        if settings.origins:
            app.add_middleware(
                CORSMiddleware,
                allow_origins=settings.origins,
                allow_methods=("GET", "POST", "PUT", "DELETE"),
                allow_headers=("Content-Type", "X-API-Key", "X-Request-ID"),
                expose_headers=("X-Request-ID", "X-Palate-Degraded", "Retry-After"),
            )
        app.add_middleware(
            Observed, meter=self.meter, snapshot=lambda: self.live.built.name, leaving=lambda: self.draining
        )
        app.add_middleware(Traced)
        app.include_router(self._routes())

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """What waits is written and landed at the end, after the last answer."""
        app.openapi()  # makes the routes, which takes a moment, and must not happen while something is compiled
        # Seconds where it was never done on this machine; until it is, answers are the same and slower.
        threading.Thread(target=self.live.built.compile, name="compile", daemon=True).start()
        self.live.start()
        self.sampler.start()
        if self.settings.watch is not None:
            self.watcher.start()
        restore = self._on_signals(asyncio.get_running_loop())
        say("serving", snapshot=self.live.built.name)
        yield
        self.draining = True
        restore()
        await asyncio.to_thread(self._close)
        say("stopped", snapshot=self.live.built.name)

    def look_at_keys(self) -> None:
        """Take the key file as it is now; where it cannot be read, the keys stay as they are."""
        if self.settings.keys_file is None:
            return
        try:
            changed = self.settings.keys_file.stat().st_mtime_ns
            if changed != self._read_at:
                self.keys = self._all_keys()
                say("keys read", names=[key.name for key in self.keys.keys])
        except (OSError, PalateError) as error:
            say("keys refused", logging.ERROR, what=str(error).partition("\n")[0])
            self._read_at = changed if isinstance(error, PalateError) else 0

    def _all_keys(self) -> Keys:
        file = self.settings.keys_file
        if file is None:
            return Keys(self._own)
        self._read_at = file.stat().st_mtime_ns if file.exists() else 0
        return Keys([*self._own, *read_keys(file)])

    def _close(self) -> None:
        self.watcher.close()
        self.sampler.close()
        self.live.close()
        for each in self.at_end:
            each()

    def _routes(self) -> APIRouter:
        routes = APIRouter(tags=["operations"])

        @routes.get("/health/live")
        async def live() -> dict[str, str]:
            return {"status": "ok"}

        @routes.get("/health/ready", responses={503: {"description": "about to end"}})
        async def ready() -> JSONResponse:
            """Also what this process is asked for: whether it is about to end."""
            status = "draining" if self.draining else "ok"
            content = {"status": status, "snapshot": self.live.built.name}
            return JSONResponse(content, 503 if self.draining else 200)

        @routes.get("/metrics")
        def metrics() -> PlainTextResponse:
            return PlainTextResponse(self.meter.text(), media_type="text/plain; version=0.0.4")

        return routes

    def _on_signals(self, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        """SIGTERM: not ready, and the server's own end after `drain` seconds or a second SIGTERM. SIGHUP: look now."""
        if threading.current_thread() is not threading.main_thread():
            return lambda: None
        before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

        def end(number: int, frame: FrameType | None) -> None:
            theirs, again = before[number], self.draining
            self.draining = True
            if not callable(theirs):
                raise SystemExit(0)
            if again or not self.settings.drain:
                theirs(number, frame)
            else:
                loop.call_soon_threadsafe(loop.call_later, self.settings.drain, theirs, number, None)

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGHUP, lambda number, frame: self.watcher.hurry())

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        return restore


def _compiled(opened: Callable[[Path], Snapshot], path: Path) -> Snapshot:
    """Another snapshot is not served before it is as fast as the one in use."""
    with uncollected():
        snapshot = opened(path)
    snapshot.compile()
    return snapshot
