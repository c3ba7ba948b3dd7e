"""`palate serve` in a process of its own, for benchmarks: started, asked, and ended by SIGTERM."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[bytes]
    port: int
    started: float  # time.perf_counter()

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def wait(self, path: str = "/health/ready", seconds: float = 60) -> bytes:
        """The first good answer."""
        while time.perf_counter() < self.started + seconds:
            try:
                status, body = self.get(path)
                if status == 200:
                    return body
            except OSError:
                time.sleep(0.01)
            if self.process.poll() is not None:
                break
        raise SystemExit("the server gave no good answer")

    def resident(self) -> int:
        """Bytes in memory of the process, pages of mapped files too."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def worked(self) -> float:
        """Seconds of processor time so far: what a machine that does nothing else would take, on one core."""
        told = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")

    def open_files(self) -> int:
        return len([*Path(f"/proc/{self.process.pid}/fd").iterdir()])


@contextmanager
def served(project: Path, *options: str) -> Iterator[Server]:
    """A server of a project's snapshots on a port of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "palate", "serve", "--project", str(project), "--port", str(port), "--no-log"]
    process = subprocess.Popen([*words, *options], stderr=subprocess.DEVNULL)
    try:
        yield Server(process, port, time.perf_counter())
    finally:
        process.terminate()
        process.wait(60)
