"""Limiter, pace and breaker on a simulated clock: a server in a few lines, and seconds that take none."""

import heapq
import random
from datetime import UTC, datetime

import pytest

from palate.llm.traffic import DECREASE, FIRST, Breaker, Limiter, Pace, back_off, retry_after


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Simulated:
    """A limiter before a server of so many slots, which refuses or queues what is over them.

    `way`: seconds to the server and back. `service`: seconds of one answer, given the time.
    """

    def __init__(self, limiter, clock, slots=256, service=lambda now: 0.2, queue=False, way=0.002, back=0.3):
        self.limiter, self.clock, self.slots, self.service = limiter, clock, slots, service
        self.queue, self.way, self.back = queue, way, back
        self.events, self.waiting, self.taken, self.order = [], [], 0, 0
        self.done, self.refused, self.refuse_until = [], 0, -1.0

    def after(self, seconds, action, *args):
        self.order += 1
        heapq.heappush(self.events, (self.clock.now + seconds, self.order, action, args))

    def pump(self):
        while self.limiter.free > 0:
            self.after(self.way / 2, self.arrive, self.limiter.sent())

    def arrive(self, sent):
        if self.clock.now < self.refuse_until or (self.taken >= self.slots and not self.queue):
            self.after(self.way / 2, self.end, sent, False)
        elif self.taken >= self.slots:
            self.waiting.append(sent)
        else:
            self.serve(sent)

    def serve(self, sent):
        self.taken += 1
        self.after(self.service(self.clock.now) * random.uniform(0.98, 1.02), self.leave, sent)

    def leave(self, sent):
        self.taken -= 1
        self.after(self.way / 2, self.end, sent, True)
        if self.waiting:
            self.serve(self.waiting.pop(0))

    def end(self, sent, good):
        if good:
            self.done.append(self.clock.now)
            self.limiter.answered(sent)
        else:
            self.refused += 1
            self.after(self.limiter.congested(sent), self.limiter.ended)

    def run(self, until):
        self.pump()
        while self.clock.now < until:
            if not self.events:
                self.clock.now += 0.01
            else:
                self.clock.now, _, action, args = heapq.heappop(self.events)
                action(*args)
            self.pump()

    def share(self, first, last):
        """Of the capacity, answered between two times."""
        return sum(first <= at < last for at in self.done) / ((last - first) * self.slots / self.service(first))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(autouse=True)
def _seeded():
    random.seed(7)


@pytest.mark.parametrize("slots", [8, 64, 256])
@pytest.mark.parametrize("way", [0.002, 0.02])
def test_a_server_that_refuses_is_kept_busy(clock, slots, way):
    server = Simulated(Limiter(1024, clock), clock, slots, way=way)
    server.run(30)
    assert server.share(3, 30) > 0.96 * 0.2 / (0.2 + way)  # at worst as many in flight as there are slots
    assert slots == 8 or server.refused < 0.05 * len(server.done)  # one of few is many


def test_it_is_busy_again_soon_after_a_burst(clock):
    server = Simulated(Limiter(1024, clock), clock)
    server.refuse_until = -1.0
    server.run(10)
    server.refuse_until = 12.0
    server.run(25)
    assert server.share(13, 17) > 0.95


def test_a_server_that_queues_is_kept_busy_without_a_long_queue(clock):
    server = Simulated(Limiter(10_000, clock), clock, 16, queue=True)
    server.run(60)
    assert server.share(5, 60) > 0.97
    assert len(server.waiting) < 16 * 25  # without a look at latency: thousands


def test_longer_answers_are_not_taken_for_congestion(clock):
    server = Simulated(Limiter(256, clock), clock, 512, service=lambda now: 0.05 if now < 10 else 1.0)
    server.run(60)
    assert server.limiter.limit > 200


def test_the_limit_falls_once_a_round_trip_and_only_between_answers(clock):
    limiter = Limiter(FIRST, clock)
    sent = [limiter.sent() for _ in range(FIRST)]
    clock.now = 1.0
    limiter.answered(sent.pop())
    peak = limiter.limit
    limiter.congested(sent.pop())
    limiter.ended()
    once = limiter.limit
    assert once == pytest.approx(DECREASE * (FIRST - 2), abs=1.0)
    assert once < peak
    later = limiter.sent()
    clock.now = 9.0
    limiter.congested(later)  # nothing sent since the fall was answered
    assert limiter.limit == once


def test_the_limit_never_passes_what_is_allowed(clock):
    server = Simulated(Limiter(20, clock), clock)
    server.run(5)
    assert max(server.limiter.limit, server.taken) <= 20


@pytest.mark.parametrize(("per_minute", "amount"), [(30, 1), (600, 1), (60_000, 700)])
def test_no_minute_sees_more_than_the_pace(clock, per_minute, amount):
    pace, taken = Pace(per_minute, clock), []
    while clock.now < 200:
        clock.now += pace.delay()
        pace.take(amount)
        taken.append(clock.now)
        clock.now += random.choice([0, 0, 0, 3.0])
    for start in taken:
        assert sum(start <= at < start + 60 - 1e-6 for at in taken) * amount <= per_minute + amount


def test_what_was_estimated_too_high_is_given_back(clock):
    pace = Pace(60, clock)
    pace.take(10)
    assert pace.delay() == pytest.approx(10)
    pace.give_back(8)
    assert pace.delay() == pytest.approx(2)
    assert Pace(None, clock).delay() == 0


def test_the_breaker_opens_on_many_failures_over_some_time_and_lets_one_probe(clock):
    breaker = Breaker(60, clock, failures=3, seconds=1.0)
    for _ in range(9):
        breaker.failed()
    assert not breaker.open  # a burst between two answers
    clock.now = 1.5
    breaker.failed()
    assert breaker.open
    clock.now += breaker.delay()
    assert breaker.sent()
    assert breaker.delay() == float("inf")
    breaker.failed(wait=7.0, probe=True)
    assert breaker.delay() == pytest.approx(7.0)
    breaker.succeeded()
    assert (breaker.open, breaker.delay()) == (False, 0.0)


def test_what_was_in_flight_when_the_breaker_opened_does_not_delay_the_probe(clock):
    breaker = Breaker(60, clock, failures=1, seconds=0.0)
    assert not breaker.sent()
    for _ in range(200):
        breaker.failed()
    assert breaker.delay() <= Breaker.FIRST_PAUSE
    clock.now += breaker.delay()
    assert breaker.sent()
    breaker.failed()  # another of those: the probe is still under way
    assert breaker.delay() == float("inf")
    breaker.failed(probe=True)
    assert breaker.delay() == pytest.approx(2 * Breaker.FIRST_PAUSE)


def test_patience_ends(clock):
    breaker = Breaker(60, clock, failures=1, seconds=0.0)
    breaker.failed()
    clock.now = 59.0
    assert not breaker.exhausted
    clock.now = 60.0
    assert breaker.exhausted


def test_retry_after_is_a_number_or_a_date():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after("7") == 7.0
    assert retry_after("Thu, 01 Jan 2026 00:00:30 GMT", now) == 30.0
    assert retry_after("Wed, 31 Dec 2025 00:00:30 GMT", now) == 0.0
    assert [retry_after(text) for text in (None, "soon", "nan", "inf")] == [None] * 4
    assert back_off(3, asked=7.0) == 7.0
    assert 1.0 <= back_off(3) <= 2.0
    assert back_off(100) <= 30.0
