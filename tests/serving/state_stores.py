"""Stores to test on: SQLite always, Redis where there are a server and its client."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

SERVER = shutil.which("valkey-server") or shutil.which("redis-server")


class RedisServer:
    """A real server on a free port, with every write synced to a file."""

    def __init__(self, folder: Path) -> None:
        if SERVER is None or importlib.util.find_spec("redis") is None:
            pytest.skip("needs redis-server or valkey-server, and the Python package redis")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.start()

    @property
    def address(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        assert SERVER is not None
        options = {"port": self.port, "dir": self.folder, "appendonly": "yes", "appendfsync": "always", "save": ""}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self.process = subprocess.Popen([SERVER, *words], stdout=subprocess.DEVNULL)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("the server did not start")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
