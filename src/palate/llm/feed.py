"""The feed: what an engine takes from, and the outcomes on their way out, with ledger and claims in between."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from palate.llm.budget import Claims, Settlement
from palate.llm.canonical import key_of
from palate.llm.ledger import Entry, Ledger
from palate.llm.request import Answer, Bound, Engine, Request
from palate.llm.structured import checked, repair

READ = 256  # requests looked up at once
POLL = 0.2  # seconds between looks at what other processes ask
WINDOW = 10.0  # seconds over which rates are taken


@dataclass(frozen=True)
class Outcome:
    """One request with its answer. `number` is its place in the input; a dead letter has `answer.error`."""

    number: int
    request: Request
    answer: Answer
    cached: bool


@dataclass
class Spent:
    """What this process asked: `calls` reached the engine, `cached` were answered by the ledger."""

    calls: int = 0
    cached: int = 0
    failed: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    cost: float = 0.0

    def add(self, answer: Answer, failed: bool) -> None:
        self.calls += answer.attempts
        self.failed += failed
        self.tokens_in += answer.tokens_in
        self.tokens_cached += answer.tokens_cached
        self.tokens_out += answer.tokens_out
        self.seconds += answer.seconds
        self.cost += answer.cost


@dataclass(frozen=True)
class Standing:
    """How far a run is. `total` and `seconds_left` are None where the length of the input is unknown."""

    done: int
    failed: int
    cached: int
    total: int | None
    requests_per_second: float
    tokens_per_second: float
    cost: float
    seconds_left: float | None


@dataclass
class _Asked:
    """A request that is waiting or in flight, for all places of the input where it stands."""

    key: str
    canonical: str
    request: Request
    numbers: list[int]
    bound: Bound
    sent: Request  # the request itself, or its repair
    before: Answer | None = None  # the answer that is being repaired


class Running(Protocol):
    """What a feed needs to know of its runner."""

    engine: Engine
    ledger: Ledger
    spent: Spent
    ordered: bool
    window: int
    stopped: bool


class Feed:
    """The `Work` that an engine takes from, and the outcomes on their way out."""

    def __init__(self, run: Running, claims: Claims, requests: Iterable[Request], total: int | None) -> None:
        self.claims, self.total, self._run = claims, total, run
        self.idle, self.short, self.done = True, False, 0
        self.elsewhere: dict[str, _Asked] = {}
        self._input = iter(requests)
        self._exhausted = False
        self._read = 0  # requests read from the input
        self._next = 0  # the number to hand out next, where order is kept
        self._asked: dict[str, _Asked] = {}  # by key: waiting, in flight or elsewhere
        self._waiting: deque[_Asked] = deque()
        self._repairs: deque[_Asked] = deque()
        self._flying: dict[int, _Asked] = {}
        self._out: dict[int, Outcome] = {}
        self._polled = time.monotonic()
        self._rates = _Rates()

    def take(self, n: int) -> list[tuple[int, Request]]:
        if n <= 0:
            return []
        granted = [self._repairs.popleft() for _ in range(min(n, len(self._repairs)))]
        self.short = False
        if not self._run.stopped:
            self._look_elsewhere()
            while len(granted) < n and self._fill(n - len(granted)):
                claimed = self._claim(n - len(granted))
                granted += claimed
                if self.short:
                    break
        self._flying |= {asked.numbers[0]: asked for asked in granted}
        return [(asked.numbers[0], asked.sent) for asked in granted]

    def again(self, number: int, billed: bool) -> bool:
        asked = self._flying[number]
        return not self._run.stopped and self.claims.again(asked.key, asked.bound, billed)

    def settle(self, batch: list[tuple[int, Answer]]) -> list[tuple[Entry, Settlement]]:
        """Validate a batch. What does not fit and may be repaired goes back to the engine; the rest is to be kept."""
        done = []
        for number, raw in batch:
            asked = self._flying.pop(number)
            answer = checked(asked.request, raw)
            repaired = self._repaired(asked, answer)
            self._run.spent.add(answer, failed=answer.error is not None and not repaired)
            if repaired:
                continue
            done.append(self._entry(asked, answer))
        return done

    def hand_out(self, entries: Iterable[Entry]) -> None:
        """Committed answers become outcomes."""
        for entry in entries:
            self._rates.add(entry.answer)
            self._resolve(self._asked.pop(entry.key), entry.answer, cached=False)

    def ready(self) -> Iterator[Outcome]:
        """Outcomes that may leave now."""
        if not self._run.ordered:
            while self._out:
                yield self._out.pop(next(iter(self._out)))
            return
        while self._next in self._out:
            yield self._out.pop(self._next)
            self._next += 1

    def finished(self) -> bool:
        open_ends = self._repairs or self._flying or self._out
        if self._run.stopped:
            return not (self._repairs or self._flying)
        return not open_ends and self._exhausted and not self._asked

    def standing(self) -> Standing:
        spent, left = self._run.spent, None
        per_second, tokens = self._rates.per_second()
        if self.total is not None and per_second:
            left = (self.total - self.done) / per_second
        return Standing(self.done, spent.failed, spent.cached, self.total, per_second, tokens, spent.cost, left)

    def _fill(self, n: int) -> bool:
        """Read and look up until `n` requests wait, or the input or the window ends. Does any wait?"""
        oldest = self._next if self._run.ordered else self._read - len(self._out) - len(self._asked)
        while len(self._waiting) < n and not self._exhausted and self._read - oldest < self._run.window:
            part = []
            for request in self._input:
                part.append(request)
                if len(part) == READ:
                    break
            self._exhausted = len(part) < READ
            self._look_up(part)
            oldest = self._next if self._run.ordered else self._read - len(self._out) - len(self._asked)
        return bool(self._waiting)

    def _look_up(self, part: list[Request]) -> None:
        model = self._run.engine.model
        canonical = [request.canonical(model) for request in part]
        keys = [key_of(text) for text in canonical]
        known = self._run.ledger.get(keys)
        for key, text, request in zip(keys, canonical, part, strict=True):
            number, self._read = self._read, self._read + 1
            if key in known:
                self._out_cached(number, request, known[key])
            elif key in self._asked:
                self._asked[key].numbers.append(number)
            else:
                bound = self._run.engine.bound(request)
                self._asked[key] = _Asked(key, text, request, [number], bound, request)
                self._waiting.append(self._asked[key])

    def _claim(self, n: int) -> list[_Asked]:
        wanted = [self._waiting.popleft() for _ in range(min(n, len(self._waiting)))]
        claimed = self.claims.claim([(asked.key, asked.bound) for asked in wanted])
        self.short = claimed.short
        if claimed.answered:
            for key, answer in self._run.ledger.get(claimed.answered).items():
                self._resolve(self._asked.pop(key), answer, cached=True)
        self.elsewhere |= {asked.key: asked for asked in wanted if asked.key in claimed.elsewhere}
        rest = claimed.granted | claimed.answered | claimed.elsewhere
        self._waiting.extendleft(reversed([asked for asked in wanted if asked.key not in rest]))
        return [asked for asked in wanted if asked.key in claimed.granted]

    def _look_elsewhere(self) -> None:
        """What other processes were asking: is it answered, or theirs no more?"""
        if not self.elsewhere or time.monotonic() - self._polled < POLL:
            return
        self._polled = time.monotonic()
        self._waiting.extendleft(self.elsewhere.values())
        self.elsewhere = {}

    def _repaired(self, asked: _Asked, answer: Answer) -> bool:
        structured = asked.request.schema or asked.request.trie or asked.request.body
        if answer.error is None or not answer.text or not structured or asked.before or self._run.stopped:
            return False
        sent = repair(asked.request, answer)
        bound = self._run.engine.bound(sent)
        reserved = Bound(max(bound.tokens, asked.bound.tokens), max(bound.money, asked.bound.money))
        # The first attempt is charged at its bound, a little too much, until the repaired answer settles both.
        if not self.claims.again(asked.key, reserved, billed=True):
            return False
        asked.sent, asked.before = sent, answer
        asked.bound = Bound(asked.bound.tokens + reserved.tokens, asked.bound.money + reserved.money)
        self._repairs.append(asked)
        return True

    def _entry(self, asked: _Asked, answer: Answer) -> tuple[Entry, Settlement]:
        """What is kept: an answer that was repaired stands under the request as it was first asked."""
        if asked.before is not None:
            first = asked.before
            answer = replace(
                answer,
                attempts=first.attempts + answer.attempts,
                tokens_in=first.tokens_in + answer.tokens_in,
                tokens_cached=first.tokens_cached + answer.tokens_cached,
                tokens_out=first.tokens_out + answer.tokens_out,
                seconds=first.seconds + answer.seconds,
                cost=first.cost + answer.cost,
            )
        tokens = answer.tokens_in + answer.tokens_out
        # A failed call whose tokens nobody told may have been billed in full.
        unknown = answer.error is not None and not tokens and not answer.free
        spent = asked.bound if unknown else Bound(tokens, answer.cost)
        request = asked.request
        entry = Entry(asked.key, asked.canonical, answer, request.purpose, request.entity)
        return entry, Settlement(asked.key, asked.bound, spent)

    def _resolve(self, asked: _Asked, answer: Answer, cached: bool) -> None:
        for place, number in enumerate(asked.numbers):
            if cached or place:
                self._out_cached(number, asked.request, answer)
            else:
                self._out[number] = Outcome(number, asked.request, answer, cached=False)
                self.done += 1

    def _out_cached(self, number: int, request: Request, answer: Answer) -> None:
        self._run.spent.cached += 1
        self.done += 1
        self._out[number] = Outcome(number, request, checked(request, answer), cached=True)


@dataclass
class _Rates:
    """Answers and tokens a second, over the last seconds."""

    marks: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, answer: Answer) -> None:
        now = time.monotonic()
        self.marks.append((now, answer.tokens_in + answer.tokens_out))
        while now - self.marks[0][0] > WINDOW:
            self.marks.popleft()

    def per_second(self) -> tuple[float, float]:
        if len(self.marks) < 2:
            return 0.0, 0.0
        span = max(self.marks[-1][0] - self.marks[0][0], 1e-3)
        return len(self.marks) / span, sum(tokens for _, tokens in self.marks) / span
