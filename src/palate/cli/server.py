"""The processes of `palate serve`: one, or several workers that share a socket, the snapshot's pages and the counts."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING

from palate.errors import PalateError
from palate.serving.landing import ELSEWHERE, Sink
from palate.serving.operations import LOOPBACK, Operations
from palate.serving.pipeline_config import PipelineConfig
from palate.serving.state import open_state

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from palate.experiments.declare import Experiment

GRACE = 30  # seconds that answers under way have at the end
_FAILED = 3  # by which uvicorn knows a worker that could not start


@dataclass(frozen=True)
class Served:
    """What the workers of a server have in common. `state` is an address, or none to only read.

    `experiments` are those that run or are planned.
    """

    snapshots: Path
    host: str
    pipeline: PipelineConfig | None = None
    state: str | None = None
    operations: Operations = field(default_factory=Operations)
    kafka: str | None = None  # servers that events and impressions go to
    experiments: tuple[Experiment, ...] = ()


def application(served: Served) -> FastAPI:
    """The application of one worker: API and console."""
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from palate.console.pages import add_console
    from palate.serving.api import create_app
    from palate.serving.load import uncollected
    from palate.serving.tracing import start_tracing, stop_tracing

    start_tracing()
    state = None if served.state is None else open_state(served.state)
    landing = served.snapshots.parent / "landing"
    choose = None
    if served.experiments:
        from palate.project.assigning import Assigner

        choose = Assigner(served.experiments, served.pipeline)
    settings = served.operations
    with uncollected():
        app = create_app(served.snapshots, None, served.pipeline, state, landing, operations=settings, choose=choose)
    app.state.live.sink = _sink(served.kafka, landing)
    add_console(app, app.state.live, served.snapshots.parent / "experiments")
    if state is not None:
        app.state.running.at_end.append(state.close)
    app.state.running.at_end.append(stop_tracing)
    if served.host in LOOPBACK:
        # A page elsewhere whose name is re-bound to this machine must not read people's histories.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]"])
    return app


def _sink(servers: str | None, landing: Path) -> Sink | None:
    if servers is None:
        (landing / ELSEWHERE).unlink(missing_ok=True)
        return None
    from palate.serving.kafka import KafkaSink, settings_of

    sink = KafkaSink(settings_of(servers, os.environ))
    landing.mkdir(parents=True, exist_ok=True)
    (landing / ELSEWHERE).touch()
    return sink


def _worker(served: Served) -> FastAPI:
    """`application`, which in a worker ends all of them where it cannot be made: another try would end alike."""
    try:
        return application(served)
    except PalateError as error:
        from palate.serving.observed import say

        say("not started", logging.ERROR, what=str(error))
        sys.exit(_FAILED)


def run_server(served: Served, port: int, workers: int = 1, each_request: bool = True) -> None:
    """Serve until stopped. SIGTERM: what is under way is answered, what waits is written. SIGHUP: look at snapshots."""
    import uvicorn
    from threadpoolctl import threadpool_limits

    from palate.serving.observed import logging_config

    config = uvicorn.Config(
        partial(application if workers == 1 else _worker, served),
        factory=True,
        host=served.host,
        port=port,
        workers=workers,
        log_config=logging_config(each_request),
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=GRACE,
    )
    # One request is a few small products: more BLAS threads only wake each other up.
    with threadpool_limits(1), _good_end(), suppress(KeyboardInterrupt):
        if workers == 1:
            uvicorn.Server(config).run()
        else:
            with _counting_together(), _lean_workers():
                _run_workers(config)


def _run_workers(config: uvicorn.Config) -> None:
    from uvicorn.supervisors import Multiprocess

    class Workers(Multiprocess):
        """A worker exchanges its snapshot by itself: it needs no other process for that."""

        def handle_hup(self) -> None:
            for process in self.processes:
                if process.pid is not None and process.process.is_alive():
                    os.kill(process.pid, signal.SIGHUP)

        def terminate_all(self) -> None:
            """The socket is closed here too: connections that nobody takes would wait for an answer."""
            for each in self.sockets:
                each.close()
            super().terminate_all()

    for threads in ("OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):  # read when a worker begins
        os.environ.setdefault(threads, "1")
    workers = Workers(config, sockets=[config.bind_socket()])
    workers.run()
    if any(process.exitcode == _FAILED for process in workers.processes):
        raise PalateError("A worker could not start", hint="The line above says why.")


@contextmanager
def _lean_workers() -> Iterator[None]:
    """A new process begins by importing the main module of its parent: the whole command line, for a server."""
    before = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = before


@contextmanager
def _counting_together() -> Iterator[None]:
    """A folder in which the workers' counts lie."""
    from palate.serving.metering import TOGETHER

    if os.environ.get(TOGETHER):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="palate-metrics-") as folder:
        os.environ[TOGETHER] = folder
        try:
            yield
        finally:
            del os.environ[TOGETHER]


@contextmanager
def _good_end() -> Iterator[None]:
    """uvicorn raises the signal that ended it once more: that is a good end, not a killed process."""

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(0)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
