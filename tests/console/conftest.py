from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hostile_snapshot import hostile_parts
from starlette.types import ASGIApp
from tiny_snapshot import tiny_snapshot

from palate.console.pages import add_console
from palate.serving.api import create_app
from palate.serving.snapshot import build_snapshot

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def app_over(snapshot: Path) -> FastAPI:
    app = create_app(snapshot)
    add_console(app, app.state.live)
    return app


@pytest.fixture(scope="session")
def tiny_app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return app_over(tiny_snapshot(tmp_path_factory.mktemp("console")))


@pytest.fixture(scope="session")
def hostile_app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return app_over(build_snapshot(tmp_path_factory.mktemp("hostile"), hostile_parts()))


@pytest.fixture(scope="session")
def client(tiny_app: FastAPI) -> TestClient:
    return TestClient(tiny_app)


@pytest.fixture(scope="session")
def hostile_client(hostile_app: FastAPI) -> TestClient:
    return TestClient(hostile_app)


def served(app: ASGIApp) -> Iterator[str]:
    """The address of a server in a thread, on a port that the system chose."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 30
    while not server.started and time.monotonic() < until:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/console"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="session")
def serve() -> Callable[[ASGIApp], AbstractContextManager[str]]:
    return contextmanager(served)


@pytest.fixture(scope="session")
def address(tiny_app: FastAPI) -> Iterator[str]:
    yield from served(tiny_app)


@pytest.fixture(scope="session")
def hostile_address(hostile_app: FastAPI) -> Iterator[str]:
    yield from served(hostile_app)


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Debian's Chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    found = "/usr/bin/chromium" if os.access("/usr/bin/chromium", os.X_OK) else shutil.which("chromium")
    if found is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()
