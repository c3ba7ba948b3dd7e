"""An OpenAI-protocol server that answers well, or wrongly in any way that a plan or a seed says.

    python tests/llm/fault_server.py --port 8099 --plan "429*20,ok*5,reset,slow"
    python tests/llm/fault_server.py --port 8099 --seed 3 --share 0.1

Good answers echo the prompt (`answer_to`), so that an answer on another row than its own is seen. `GET /counts` tells,
by prompt, how many requests came and how many answers went out whole.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import socket
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat

FAULTS = (
    "429", "429-after", "500", "502", "503", "reset", "half", "slow", "html", "utf8", "nan", "huge", "schema",
    "refusal", "filter", "empty", "surplus", "surplus-late", "same-id",
)  # fmt: skip
RETRIED = tuple(f for f in FAULTS if f not in ("huge", "schema", "refusal", "filter"))  # a second try may be answered
LATE = 0.01  # seconds after which `surplus-late` pushes its second answer


def planned(plan: str, then: str = "ok") -> Iterator[str]:
    """`"429*3,ok"`: what each request in turn gets, and every one after them."""
    steps = [step.strip().partition("*") for step in plan.split(",") if step.strip()]
    unknown = {then, *(name for name, _, _ in steps)} - {*FAULTS, "ok"}
    assert not unknown, unknown
    return chain(*([name] * int(times or 1) for name, _, times in steps), repeat(then))


def mixed(seed: int, share: float, faults: Iterable[str] = FAULTS, storm: int = 20) -> Iterator[str]:
    """Endless: a fault with probability `share`; 429 comes in storms of up to `storm`."""
    chosen, source = list(faults), random.Random(seed)
    while True:
        fault = source.choice(chosen) if source.random() < share else "ok"
        yield from [fault] * (source.randint(1, storm) if fault.startswith("429") else 1)


def answer_to(prompt: str) -> str:
    return f"echo of {prompt}"


def number_of(prompt: str) -> int:
    """What a schema's integer member and the probability of Yes (in percent) are for this prompt."""
    return zlib.crc32(prompt.encode()) % 100


def prompt_of(body: dict) -> str:
    content = body["messages"][0]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def fitting(schema: dict, prompt: str) -> object:
    """The value that `schema` gets for this prompt."""
    if "enum" in schema:
        return schema["enum"][number_of(prompt) % len(schema["enum"])]
    if schema.get("type") == "object":
        return {name: fitting(inner, prompt) for name, inner in schema["properties"].items()}
    return {"integer": number_of(prompt), "boolean": number_of(prompt) % 2 == 0}.get(schema["type"], answer_to(prompt))


def reply_to(body: dict, number: int, fault: str) -> dict:
    prompt = prompt_of(body)
    text = answer_to(prompt)
    if "response_format" in body:
        schema = body["response_format"]["json_schema"]["schema"]
        text = json.dumps({"wrong": 1} if fault == "schema" else fitting(schema, prompt))
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    if body.get("logprobs"):
        share = (number_of(prompt) + 0.5) / 100
        tops = [
            {"token": t, "logprob": p} for t, p in (("Yes", math.log(share)), (" No", math.log(1 - share)), ("#", -9.0))
        ]
        choice["logprobs"] = {"content": [{**tops[0], "top_logprobs": tops}]}
    if fault == "refusal":
        message |= {"content": None, "refusal": "I cannot help with that."}
    if fault == "filter":
        choice["finish_reason"] = "content_filter"
    return {
        "id": "chatcmpl-7" if fault == "same-id" else f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [] if fault == "empty" else [choice],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }


class FaultServer:
    """On loopback. `with FaultServer(planned("429,ok")) as server:` runs it in a thread; `serve` runs it here.

    Args:
        faults: What each request in turn gets.
        latency: Seconds before an answer.
        echo_ids: Send `X-Request-Id` back, as gateways and vLLM do.
        after: The value of `Retry-After` in `429-after`.
    """

    def __init__(
        self,
        faults: Iterable[str] = (),
        latency: float = 0.0,
        port: int = 0,
        echo_ids: bool = True,
        after: str = "0",
    ) -> None:
        self.faults = chain(faults, repeat("ok"))
        self.latency, self.echo_ids, self.after = latency, echo_ids, after
        self.received: Counter[str] = Counter()
        self.finished: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()  # by fault
        self.bodies: list[dict] = []  # of the first thousand
        self.headers: list[bytes] = []
        self.last: dict | None = None  # the body before: whose answer is pushed as surplus
        self.total = 0
        self.told: Callable[[], object] = int  # called at each request
        self._loop = asyncio.new_event_loop()
        self._open: set[_Connection] = set()
        self._socket = socket.create_server(("127.0.0.1", port), backlog=1024)
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> FaultServer:
        self._thread = threading.Thread(target=self.serve)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def serve(self) -> None:
        listen = self._loop.create_server(lambda: _Connection(self), sock=self._socket)
        server = self._loop.run_until_complete(listen)
        try:
            self._loop.run_forever()
        finally:
            server.close()
            for connection in list(self._open):
                connection.drop()
            self._loop.run_until_complete(self._end())
            self._loop.close()

    async def _end(self) -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.01)  # transports close in the next turn

    def counts(self) -> dict:
        return {"received": dict(self.received), "finished": dict(self.finished), "answered": dict(self.answered)}


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with Content-Length, one request after the other."""

    def __init__(self, server: FaultServer) -> None:
        self.server, self.buffer, self.busy = server, b"", False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.server._open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.server._open.discard(self)

    def drop(self) -> None:
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        if self.busy or not end:
            return
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        if len(rest) < length:
            return
        self.buffer, body = rest[length:], rest[:length]
        if head.startswith(b"GET"):
            self._send(json.dumps(self.server.counts()).encode())
        elif not head.startswith(b"POST /v1/chat/completions"):
            self._send(b'{"detail":"Not Found"}', "404 Not Found")
        else:
            self._answer(head, json.loads(body))

    def _answer(self, head: bytes, body: dict) -> None:
        server = self.server
        fault = next(server.faults)
        server.total += 1
        server.told()
        server.received[prompt_of(body)] += 1
        server.answered[fault] += 1
        if len(server.bodies) < 1000:
            server.bodies.append(body)
            server.headers.append(head)
        if server.latency:
            self.busy = True
            asyncio.get_running_loop().call_later(server.latency, self._fault, fault, head, body, server.total)
        else:
            self._fault(fault, head, body, server.total)

    def _fault(self, fault: str, head: bytes, body: dict, number: int) -> None:
        self.busy = False
        server, other = self.server, self.server.last or body
        server.last = body
        if fault in ("429", "429-after", "500", "502", "503"):
            more = f"Retry-After: {server.after}\r\n" if fault == "429-after" else ""
            self._send(b'{"error":{"message":"not now"}}', f"{fault[:3]} Fault", more=more)
            return
        if fault == "reset":
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
            return
        data = json.dumps(reply_to(body, number, fault)).encode()
        echo = _request_id(head) if server.echo_ids else ""
        if fault == "half":
            self._head(len(data), more=echo)
            self.transport.write(data[: len(data) // 2])
            self.transport.close()
        elif fault == "slow":
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            asyncio.get_running_loop().create_task(self._drip())
        elif fault == "huge":
            self._send(b'{"choices":"' + b"x" * 50_000_000 + b'"}', more=echo)
        elif fault == "html":
            self._send(b"<html>Please log in</html>", kind="text/html", more=echo)
        elif fault == "utf8":
            self._send(data.replace(b"echo", b"ec\xffho"), more=echo)
        elif fault == "nan":
            self._send(data[:-1] + b',"score":NaN}', more=echo)
        else:
            self._send(data, more=echo)
            if fault not in ("refusal", "filter", "empty", "schema"):
                server.finished[prompt_of(body)] += 1
            if fault.startswith("surplus"):
                surplus = json.dumps(reply_to(other, -number, "ok")).encode()
                wait = LATE if fault == "surplus-late" else 0.0
                asyncio.get_running_loop().call_later(wait, self._send, surplus, "200 OK", "application/json", echo)

    async def _drip(self) -> None:
        while not self.transport.is_closing():
            self.transport.write(b"1\r\n \r\n")
            await asyncio.sleep(0.05)

    def _send(self, data: bytes, status: str = "200 OK", kind: str = "application/json", more: str = "") -> None:
        if not self.transport.is_closing():
            self._head(len(data), status, kind, more, data)

    def _head(
        self,
        length: int,
        status: str = "200 OK",
        kind: str = "application/json",
        more: str = "",
        data: bytes = b"",
    ) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{more}\r\n"
        self.transport.write(head.encode() + data)


def _request_id(head: bytes) -> str:
    found = [line for line in head.decode().split("\r\n") if line.lower().startswith("x-request-id:")]
    return "".join(f"{line}\r\n" for line in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--plan", default="")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--share", type=float, default=0.1, help="of requests that get a fault, with --seed")
    parser.add_argument("--faults", default=",".join(FAULTS), help="to choose from, with --seed")
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--tick", action="store_true", help="a byte to stdout for each request")
    args = parser.parse_args()
    faults = planned(args.plan) if args.seed is None else mixed(args.seed, args.share, args.faults.split(","))
    server = FaultServer(faults, args.latency, args.port)
    print(server.url, flush=True)
    if args.tick:
        server.told = lambda: os.write(1, b".")
    server.serve()


if __name__ == "__main__":
    main()
