"""Requests between the caller's thread and the wire: which goes when, which goes again, which is given up."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from palate.errors import EngineError
from palate.llm.chat import RefusedError, UnreadableError
from palate.llm.dialogue import Dialogue, Server
from palate.llm.request import Answer, Request, Work
from palate.llm.traffic import Breaker, Limiter, Pace, back_off
from palate.llm.wire import AttemptError, Kind, Wire

_LOG = logging.getLogger(__name__)


@dataclass
class Traffic:
    """What all asking of one server shares."""

    limiter: Limiter
    breaker: Breaker
    requests: Pace
    tokens: Pace


@dataclass(frozen=True)
class Terms:
    """How an answer is asked for and written down."""

    engine: str
    attempts: int
    total_timeout: float
    cost: Callable[[int, int, int], float]
    reserve: Callable[[Request], float]  # tokens to hold back for one attempt


@dataclass(eq=False)
class _Ask:
    number: int
    dialogue: Dialogue
    reserve: float
    tries: int = 0  # that count, of the present call
    calls: int = 0  # sent in all
    first: float = 0.0  # when the first was sent
    deadline: float | None = None  # None: from the next sending on
    probe: bool = False  # sent to see whether the server is back


class Dispatch:
    """The requests of one `ask`.

    `room`, `add`, `arrived` and `stop` belong to the caller's thread, all else to the loop's.
    """

    def __init__(
        self,
        wire: Wire,
        traffic: Traffic,
        terms: Terms,
        server: Server,
        work: Work,
        loop: asyncio.AbstractEventLoop,
        booking: Executor,
    ) -> None:
        self.inside = 0
        self._wire, self._traffic, self._terms, self._server = wire, traffic, terms, server
        self._work, self._loop, self._booking = work, loop, booking
        self._arrived: SimpleQueue[tuple[int, Answer] | BaseException | None] = SimpleQueue()
        self._ready: deque[_Ask] = deque()
        self._waiting = 0  # for their next attempt
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._over = False

    def room(self) -> int:
        """Requests to take now: what may be in flight, and as many again so that no place waits for the ledger."""
        limit = int(self._traffic.limiter.limit)
        active = self.inside - self._waiting
        return max(0, min(2 * limit - active, 4 * limit + 16 - self.inside))

    def add(self, taken: list[tuple[int, Request]]) -> None:
        asks = []
        for number, request in taken:
            self.inside += 1
            try:
                asks.append(_Ask(number, Dialogue(request, self._server), self._terms.reserve(request)))
            except (ValueError, TypeError) as error:
                text = f"the request cannot be sent: {type(error).__name__}"
                self._arrived.put((number, self._answer(None, error=text, free=True, attempts=0)))
        self._loop.call_soon_threadsafe(self._accept, asks)

    def arrived(self) -> list[tuple[int, Answer]]:
        """Waits for an answer, and takes all that are there; none if there is more room instead.

        Raises:
            EngineError: The run has ended. Answers that came before have been returned.
        """
        batch: list[tuple[int, Answer]] = []
        found = self._arrived.get()
        try:
            while not isinstance(found, BaseException):
                if found is not None:
                    batch.append(found)
                found = self._arrived.get_nowait()
        except Empty:
            found = None
        self.inside -= len(batch)
        if found is not None:
            if not batch:
                raise found
            self._arrived.put(found)  # next time
        return batch

    def stop(self) -> None:
        """Give up what is in flight; when this returns, nothing more is sent and nobody is asked `again`."""
        asyncio.run_coroutine_threadsafe(self._cancel(), self._loop).result()
        self._booking.submit(int).result()  # one thread: what was being booked is booked now

    async def _cancel(self) -> None:
        self._over = True
        self._ready.clear()
        if self._timer is not None:
            self._timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, asks: list[_Ask]) -> None:
        self._ready.extend(asks)
        self.pump()

    def pump(self) -> None:
        """Send what may be sent."""
        traffic = self._traffic
        while self._ready and not self._over and traffic.limiter.free > 0:
            delay = max(traffic.breaker.delay(), traffic.requests.delay(), traffic.tokens.delay())
            if delay > 0:
                self._pump_after(delay)
                return
            self._send(self._ready.popleft())

    def _pump_after(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # While a probe is under way its end pumps; this is for a probe of another `ask` on the same engine.
        self._timer = self._loop.call_later(min(seconds, 1.0), self.pump)

    def _send(self, ask: _Ask) -> None:
        now = self._loop.time()
        if ask.deadline is None:
            ask.deadline = now + self._terms.total_timeout
        ask.first = ask.first or now
        ask.calls += 1
        sent = self._traffic.limiter.sent()
        ask.probe = self._traffic.breaker.sent()
        self._traffic.requests.take(1)
        self._traffic.tokens.take(ask.reserve)
        task = self._loop.create_task(self._attempt(ask, sent))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attempt(self, ask: _Ask, sent: float) -> None:
        traffic = self._traffic
        try:
            found = await self._post(ask)
        except asyncio.CancelledError:
            traffic.limiter.ended()
            traffic.breaker.unknown(ask.probe)
            raise
        except AttemptError as failure:
            if failure.congested:
                self._loop.call_later(traffic.limiter.congested(sent), self._release)
            else:
                traffic.limiter.ended()
            await self._failed(ask, failure)
        except Exception as error:  # a bug: the caller must see it, not wait for ever
            traffic.limiter.ended()
            self._arrived.put(error)
        else:
            traffic.limiter.answered(sent)
            traffic.breaker.succeeded()
            self.pump()  # the place that is free now first: booking may wait for the ledger
            if found is not None:
                self._arrived.put((ask.number, self._answer(ask, **found)))
            elif await self._again(ask, billed=True):
                ask.tries, ask.deadline = 0, None
                self._ready.appendleft(ask)
            else:
                self._arrived.put((ask.number, self._answer(ask, error="ended before all samples were drawn")))
        self.pump()

    async def _post(self, ask: _Ask) -> dict[str, Any] | None:
        before = sum(ask.dialogue.tokens.values())
        try:
            found = ask.dialogue.read(await self._wire.post(ask.dialogue.body))
        except UnreadableError as error:
            raise AttemptError(Kind.BROKEN, "unreadable answer", str(error), billed=True) from error
        except RefusedError as error:
            raise AttemptError(Kind.DENIED, str(error), billed=True) from error
        except AttemptError as failure:
            if not failure.billed:
                self._traffic.tokens.give_back(ask.reserve)
            raise
        used = sum(ask.dialogue.tokens.values()) - before
        self._traffic.tokens.give_back(max(0.0, ask.reserve - used) if used else 0.0)
        return found

    async def _failed(self, ask: _Ask, failure: AttemptError) -> None:
        breaker, now = self._traffic.breaker, self._loop.time()
        if failure.kind is Kind.DENIED:
            breaker.succeeded()
            by_sampling = "logprob" in str(failure).lower() and ask.dialogue.without_logprobs()
            if by_sampling and await self._again(ask, billed=False):
                self._ready.appendleft(ask)
            else:
                self._give_up(ask, failure)
            return
        was_open = breaker.open
        breaker.failed(failure.wait, ask.probe)
        if breaker.open and not was_open:
            _LOG.warning("The LLM server at %s fails (%s); waiting for it.", self._wire.url, failure.label)
        if failure.kind is Kind.FATAL or breaker.exhausted:
            self._arrived.put(self._ended(failure))
            return
        # Neither a server that is away nor a storm is the request's fault.
        counts = not (failure.kind is Kind.UNREACHED or (failure.kind is Kind.BUSY and breaker.open))
        ask.tries += counts
        wait = back_off(max(1, ask.tries), failure.wait)
        late = ask.deadline is not None and now + wait > ask.deadline
        if counts and (ask.tries >= self._terms.attempts or late):
            self._give_up(ask, failure)
        elif await self._again(ask, failure.billed):
            ask.deadline = ask.deadline if counts else None
            self._waiting += 1
            self._loop.call_later(wait, self._wake, ask)
            self._arrived.put(None)
        else:
            self._give_up(ask, failure)

    def _release(self) -> None:
        self._traffic.limiter.ended()
        self.pump()

    def _wake(self, ask: _Ask) -> None:
        self._waiting -= 1
        self._ready.appendleft(ask)
        self.pump()

    async def _again(self, ask: _Ask, billed: bool) -> bool:
        """Not on the loop: the ledger may be busy."""
        return await self._loop.run_in_executor(self._booking, self._work.again, ask.number, billed)

    def _give_up(self, ask: _Ask, failure: AttemptError) -> None:
        self._arrived.put((ask.number, self._answer(ask, error=str(failure), free=not failure.billed)))

    def _answer(self, ask: _Ask | None, **found: Any) -> Answer:
        if ask is None:
            return Answer(**found, model=self._server.model, engine=self._terms.engine)
        tokens = ask.dialogue.tokens
        found |= tokens
        return Answer(
            **found,
            seconds=self._loop.time() - ask.first,
            cost=self._terms.cost(tokens["tokens_in"], tokens["tokens_cached"], tokens["tokens_out"]),
            model=ask.dialogue.model,
            engine=self._terms.engine,
            attempts=ask.calls,
        )

    def _ended(self, failure: AttemptError) -> EngineError:
        denied = failure.kind is Kind.FATAL
        return EngineError(
            "The LLM server cannot be used." if denied else "The LLM server did not answer.",
            where=self._wire.url,
            got=failure,
            hint="Check llm.base_url and the key in the environment, then run again: answers so far are kept.",
            retryable=not denied,
        )
