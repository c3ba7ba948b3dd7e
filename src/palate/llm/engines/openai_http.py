"""The HTTP engine: any OpenAI-compatible server (OpenAI, vLLM, SGLang, llama.cpp server, Ollama, Gemini's)."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from palate.errors import InputError
from palate.llm.dialogue import Server
from palate.llm.dispatch import Dispatch, Terms, Traffic
from palate.llm.prices import Prices, TokenCounter, bound_of
from palate.llm.request import Answer, Bound, Request, Work
from palate.llm.traffic import Breaker, Limiter, Pace
from palate.llm.wire import Wire

MIB = 2**20


class OpenAIEngine:
    """`/chat/completions` of an OpenAI-compatible server.

    How many requests are in flight follows what the server bears (`palate.llm.traffic`). Options are read off the
    likeliest first tokens ("first token"), or where the server tells none off ten constrained draws ("sampled").

    A request is tried again after 408, 409, 425, 429, any 5xx, a reset, a time-out or an answer that cannot be read;
    while the server as a whole fails, requests wait and lose no attempt. Any other 4xx, a refusal and an answer over
    `max_answer_bytes` end that request alone; a refused key, a redirect or a path that is not there ends the run.

    An answer is told from another request's by its connection: what arrives unasked on an idle connection closes it,
    and where the server echoes `X-Request-Id`, that is checked too.

    Args:
        base_url: Such as `http://127.0.0.1:8080/v1`.
        model: The name the server knows the model by.
        api_key_variable: Environment variable that holds the key, read when the engine is made; never logged.
        concurrency: Most requests in flight.
        attempts: Tries of one request, with exponential back-off or the server's `Retry-After`.
        timeout: Seconds for one attempt.
        total_timeout: Seconds for one request over all its attempts.
        requests_per_minute, tokens_per_minute: What the provider allows; None: no limit.
        prices: For books and budget.
        counter: The model's tokenizer, for bounds; without one a token for each byte.
        max_answer_bytes: A longer answer is not read.
        patience: Seconds of nothing but failures, of many requests, that end the run.

    Raises:
        InputError: An address, key or setting that cannot be.
    """

    name = "openai"
    reads_images = True  # the server says if its model does not

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_variable: str = "OPENAI_API_KEY",
        concurrency: int = 64,
        *,
        attempts: int = 5,
        timeout: float = 120.0,
        total_timeout: float = 900.0,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        prices: Prices | None = None,
        counter: TokenCounter | None = None,
        max_answer_bytes: int = 8 * MIB,
        patience: float = 60.0,
    ) -> None:
        numbers = {"concurrency": concurrency, "attempts": attempts, "timeout": timeout, "total_timeout": total_timeout}
        numbers |= {"requests_per_minute": requests_per_minute or 1, "tokens_per_minute": tokens_per_minute or 1}
        for what, number in numbers.items():
            if not number > 0:
                raise InputError("This setting must be positive.", where=f"llm.{what}", got=number, allowed="above 0")
        self.model, self.base_url = model, _checked_url(base_url)
        self._key = _key(api_key_variable)
        self._prices, self._counter = prices or Prices(), counter
        self._timeout, self._max_bytes = timeout, max_answer_bytes
        self._terms = Terms(
            self.name,
            attempts,
            total_timeout,
            self._prices.cost,
            (lambda request: self.bound(request).tokens) if tokens_per_minute else (lambda request: 0.0),
        )
        self._traffic = Traffic(
            Limiter(concurrency), Breaker(patience), Pace(requests_per_minute), Pace(tokens_per_minute)
        )
        self._server = Server(model)
        self._running: _Running | None = None

    def bound(self, request: Request) -> Bound:
        return bound_of(request, self._prices, self._counter)

    def ask(self, work: Work) -> Iterator[list[tuple[int, Answer]]]:
        """Batches of answers as they arrive; a caller that stops early gives up what is in flight.

        Raises:
            EngineError: The server refuses the key, is none of this protocol, or did nothing but fail for `patience`.
        """
        running = self._started()
        dispatch = Dispatch(running.wire, self._traffic, self._terms, self._server, work, running.loop, running.booking)
        try:
            while True:
                taken = work.take(dispatch.room())
                if taken:
                    dispatch.add(taken)
                elif not dispatch.inside:
                    return
                if batch := dispatch.arrived():
                    yield batch
        finally:
            dispatch.stop()

    def close(self) -> None:
        """Give back sockets and threads. A later `ask` opens them again."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def _started(self) -> _Running:
        if self._running is None:
            url = f"{self.base_url}/chat/completions"
            self._running = _Running.start(url, self._key, self._timeout, self._max_bytes)
        return self._running


@dataclass
class _Running:
    """The threads of an engine that was asked something."""

    loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    wire: Wire
    booking: ThreadPoolExecutor

    @classmethod
    def start(cls, url: str, key: str | None, timeout: float, max_bytes: int) -> _Running:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="palate-http", daemon=True)
        thread.start()

        async def made() -> Wire:
            return Wire(url, key, timeout, max_bytes)

        wire = asyncio.run_coroutine_threadsafe(made(), loop).result()
        return cls(loop, thread, wire, ThreadPoolExecutor(1, thread_name_prefix="palate-booking"))

    def close(self) -> None:
        # On the loop's own thread: the caller's may run a loop of its own (a notebook).
        for last in (self.wire.close(), self.loop.shutdown_default_executor()):
            asyncio.run_coroutine_threadsafe(last, self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
        self.booking.shutdown()


def _checked_url(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or not base_url.isprintable() or " " in base_url:
        raise InputError(
            "The address of the LLM server is not a URL.",
            where="llm.base_url",
            got=base_url,
            allowed="http://… or https://…",
        )
    if parts.username or parts.password:
        raise InputError(
            "The address of the LLM server holds a password.",
            where="llm.base_url",
            hint="Put the key into an environment variable and name it as llm.api_key_variable.",
        )
    return base_url.rstrip("/")


def _key(variable: str) -> str | None:
    key = os.environ.get(variable, "").strip()
    if not key:
        return None
    if not (key.isascii() and key.isprintable()):
        raise InputError(
            "The key for the LLM server holds characters that no key has.",
            where=f"environment variable {variable}",
            allowed="printable ASCII on one line",
        )
    return key
