"""Batch files for tests: lines as a user writes them, replies as a server or a batch service gives them."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from palate.llm.request import Answer, Bound, Request, Work

URL = "/v1/chat/completions"


def line(custom_id: object, text: str = "hello", **body: object) -> dict[str, Any]:
    told = {"model": "m", "messages": [{"role": "user", "content": text}], **body}
    return {"custom_id": custom_id, "method": "POST", "url": URL, "body": told}


def write(path: Path, lines: list[object]) -> Path:
    """Objects become JSON, bytes stand as they are."""
    path.write_bytes(b"".join(e + b"\n" if isinstance(e, bytes) else json.dumps(e).encode() + b"\n" for e in lines))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(raw) for raw in path.read_text().splitlines()]


def reply(text: str, model: str = "m") -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
    return {"id": f"chat-{text}", "model": model, "choices": [choice], "usage": usage}


class EchoBodies:
    """An engine that answers a raw body with the last word of its question, newest first; "FAIL" fails.

    `log`: a file with one line for each call. `places`: most in flight.
    """

    name, model = "test", "m"

    def __init__(self, log: Path, places: int = 4, pause: float = 0.0) -> None:
        self.log, self.places, self.pause = log, places, pause

    def bound(self, request: Request) -> Bound:
        return Bound(tokens=20)

    def ask(self, work: Work) -> Iterator[list[tuple[int, Answer]]]:
        flying: list[tuple[int, Request]] = []
        while True:
            taken = work.take(self.places - len(flying))
            with self.log.open("a") as log:
                log.writelines(f"{said(request)}\n" for _, request in taken)
            flying += taken
            if not flying:
                return
            time.sleep(self.pause)
            number, request = flying.pop()
            yield [(number, self._answer(said(request).split()[-1]))]

    def close(self) -> None:
        pass

    def asked(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def _answer(self, text: str) -> Answer:
        if text == "FAIL":
            return Answer(error="HTTP 400: refused", free=True, model="m", engine="test")
        return Answer(text, reply(text), tokens_in=7, tokens_out=2, model="m", engine="test")


def said(request: Request) -> str:
    assert request.body is not None
    return str(request.body["messages"][-1]["content"])
