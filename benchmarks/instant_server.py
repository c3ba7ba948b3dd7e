"""An OpenAI-protocol server that costs as little as it can, in a process of its own: what is measured is the client.

    python benchmarks/instant_server.py [--latency 0.2] [--slots 256] [--queue]

It answers each request with the same text after `latency`, `slots` at a time; over that it says 429, or queues. One
line `burst 1.5` on its standard input makes it refuse everything for so many seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CHOICE = {"index": 0, "message": {"role": "assistant", "content": "Yes"}, "finish_reason": "stop"}
_USAGE = {"prompt_tokens": 20, "completion_tokens": 1, "total_tokens": 21}
_BODY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "instant",
        "choices": [_CHOICE],
        "usage": _USAGE,
    }
).encode()


def _reply(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


_GOOD, _BUSY = _reply("200 OK", _BODY), _reply("429 Too Many Requests", b'{"error":{"message":"all slots are taken"}}')


class Instant:
    """The slots that all connections share."""

    def __init__(self, latency: float, slots: int, queue: bool) -> None:
        self.latency, self.slots, self.queue = latency, slots, queue
        self.taken, self.refusing = 0, False
        self.waiting: deque[_Connection] = deque()

    def burst(self, seconds: float) -> None:
        self.refusing = True
        asyncio.get_running_loop().call_later(seconds, setattr, self, "refusing", False)

    def ask(self, connection: _Connection) -> None:
        if self.refusing or (self.taken >= self.slots and not self.queue):
            connection.transport.write(_BUSY)
        elif self.taken >= self.slots:
            self.waiting.append(connection)
        elif self.latency:
            self._take(connection)
        else:
            connection.transport.write(_GOOD)

    def _take(self, connection: _Connection) -> None:
        self.taken += 1
        asyncio.get_running_loop().call_later(self.latency, self._answer, connection)

    def _answer(self, connection: _Connection) -> None:
        self.taken -= 1
        connection.transport.write(_GOOD)
        if self.waiting:
            self._take(self.waiting.popleft())


class _Connection(asyncio.Protocol):
    def __init__(self, server: Instant) -> None:
        self.server, self.buffer = server, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:") + 15
            line_end = head.find(b"\r\n", at)
            size = end + 4 + int(head[at : line_end if line_end >= 0 else end])
            if len(self.buffer) < size:
                return
            self.buffer = self.buffer[size:]
            self.server.ask(self)


async def serve(server: Instant) -> None:
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: _Connection(server), "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        server.burst(float(line.split()[1]))


@contextmanager
def running(*options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Its address and process; it ends with the block."""
    command = [sys.executable, str(Path(__file__)), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
        process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds")
    parser.add_argument("--slots", type=int, default=10**9)
    parser.add_argument("--queue", action="store_true")
    args = parser.parse_args()
    asyncio.run(serve(Instant(args.latency, args.slots, args.queue)))


if __name__ == "__main__":
    main()
