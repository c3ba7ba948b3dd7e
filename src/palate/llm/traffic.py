"""How fast a server may be asked: adaptive concurrency, pace, circuit breaker. Pure; the clock is injected."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from statistics import median

Clock = Callable[[], float]

FIRST = 16  # requests in flight at the start
DECREASE = 0.95  # of the limit that is left after congestion
CLIMB = 0.97  # of the last limit that congested: up to here the climb is fast
FIRST_HOLD = 0.25  # seconds that a refused request keeps its place before any was answered
TOLERATED = 0.04  # of the limit may be refused in a round trip before it falls
LATENCY_MULTIPLE = 4.0  # a median latency this many times the baseline is congestion
SAMPLES = 20  # fewest latencies of which a median is taken
LONGEST_WAIT = 30.0  # seconds between two attempts where the server names none


class Limiter:
    """How many requests may be in flight.

    Slow start (one more place for each answer, so the limit doubles each round trip) until the first congestion. Then
    additive increase and multiplicative decrease (Chiu & Jain 1989), the decrease at most once a round trip. It is
    gentle, and the climb back to just under the limit that congested is fast, as in CUBIC (Ha, Rhee & Xu 2008, RFC
    9438, with its fast convergence: congestion below the last such limit lowers the aim). A server that refuses what
    is over its capacity is thus kept almost full. Between two falls a request must have been sent and answered: nothing
    but refusals says nothing about how many are too many, and is the breaker's business.

    A server that queues instead shows in its latency: the limit falls where the median of a round trip passes
    `LATENCY_MULTIPLE` times the baseline. A fall that does not lower the latency was no congestion (longer answers,
    say): the baseline becomes what is measured.

    Args:
        most: The limit never passes this.
    """

    def __init__(self, most: int, clock: Clock = time.monotonic) -> None:
        self.most, self.limit, self.flying = most, float(min(FIRST, most)), 0
        self._clock = clock
        self._peak = 0.0  # in flight at the last congestion, refused ones aside
        self._share = 1.0  # of the peak: the aim
        self._aim = float("inf")  # fast climb below, slow above
        self._round = 0.0  # seconds of a round trip, smoothed
        self._fell = float("-inf")  # when the limit last fell
        self._proved = False  # a request sent since then was answered
        self._refused, self._counted = 0, 0.0  # refused requests, and since when they are counted
        self._latencies: list[float] = []
        self._enough = 0.0
        self._baseline = float("inf")
        self._before: float | None = None  # the median that made the limit fall, until it is known whether that helped

    @property
    def free(self) -> int:
        """Requests that may be sent now."""
        return int(self.limit) - self.flying

    def sent(self) -> float:
        """One more is in flight. Give the time returned to whichever method tells its end."""
        self.flying += 1
        return self._clock()

    def ended(self) -> None:
        """One less is in flight, and that says nothing about how many there may be."""
        self.flying -= 1

    def answered(self, sent: float) -> None:
        """One less is in flight: the server answered it."""
        full = self.flying >= 0.8 * self.limit  # a limit that is not used proves nothing
        self.flying -= 1
        latency = self._clock() - sent
        self._round += (latency - self._round) * (0.1 if self._round else 1.0)
        if full:
            step = 1.0 if self.limit < self._aim else max(1.0, 0.01 * self.limit) / self.limit
            self.limit = min(float(self.most), self.limit + step)
        if sent >= self._fell:
            self._proved = True
            self._watch(latency)

    def congested(self, sent: float) -> float:
        """The server had no room for one (429, 503) or no time.

        Its place stays taken for the seconds returned; then call `ended`. One that is refused although the limit has
        just fallen holds its place as long as an answer would have: filled again at once it would be refused at once.
        """
        now = self._clock()
        if sent < self._fell:  # one more that was too many before the limit fell: the peak was lower
            self._fall_to(self._peak - 1, self._share)
            return 0.0
        if now - self._counted >= self._round:
            self._counted, self._refused = now, 0
        self._refused += 1
        if self._proved and now - self._fell >= self._round and self._refused > TOLERATED * self.limit:
            self._fall(min(self.limit, self.flying - 1.0), now)
            return 0.0
        return max(0.0, sent + (self._round or FIRST_HOLD) - now)

    def _fall(self, peak: float, now: float) -> None:
        lower = peak < self._peak * CLIMB  # it had not even come back to the last peak
        self._fall_to(peak, (1 + DECREASE) / 2 if lower else CLIMB)
        self._fell, self._proved = now, False
        self._latencies.clear()

    def _fall_to(self, peak: float, share: float) -> None:
        self._peak, self._share = max(1.0, peak), share
        self._aim = share * self._peak
        self.limit = min(self.limit, max(1.0, DECREASE * self._peak))

    def _watch(self, latency: float) -> None:
        """Compare the median of about one round trip with the baseline."""
        if not self._latencies:
            self._enough = max(SAMPLES, self.limit)  # as of now: in slow start the limit runs ahead of the answers
        self._latencies.append(latency)
        if len(self._latencies) < self._enough:
            return
        now, last = median(self._latencies), median(self._latencies[-SAMPLES:])
        self._latencies.clear()
        if self._before is not None and now > self._before * (1 + DECREASE) / 2:
            self._baseline = now
        self._before = None
        self._baseline = min(self._baseline, now)
        if now > LATENCY_MULTIPLE * self._baseline:
            self._before = max(now, last)  # while the limit grew, the last are what a fall must better
            self._fall(self.limit, self._clock())
            self._aim = self.limit  # climbing back fast would only build the queue again


class Pace:
    """At most so much a minute, evenly spaced: what has passed within any minute is at most that and one request.

    Args:
        per_minute: None: no limit.
    """

    def __init__(self, per_minute: float | None, clock: Clock = time.monotonic) -> None:
        self._seconds = 60 / per_minute if per_minute else 0.0  # for one
        self._clock = clock
        self._next = clock()

    def delay(self) -> float:
        """Seconds until the next may go."""
        return max(0.0, self._next - self._clock()) if self._seconds else 0.0

    def take(self, amount: float) -> None:
        if self._seconds:
            self._next = max(self._next, self._clock()) + amount * self._seconds

    def give_back(self, amount: float) -> None:
        """What was taken and not used, as of an estimate."""
        self._next -= amount * self._seconds


class Breaker:
    """Opens when a server has failed many times in a row; then one request at a time probes whether it is back.

    Args:
        patience: Seconds of nothing but failures after which the run should end.
        failures, seconds: It opens after so many failures and so long without a success. Time alone would open it on a
            quiet run, number alone on a burst of refusals between two answers.
    """

    FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0

    def __init__(
        self, patience: float, clock: Clock = time.monotonic, *, failures: int = 8, seconds: float = 1.0
    ) -> None:
        self._patience, self._clock = patience, clock
        self._failures, self._seconds = failures, seconds
        self._row = 0
        self._since = 0.0  # of the first failure in the row
        self._pause = self.FIRST_PAUSE
        self._probe_at = 0.0
        self._probing = False
        self.open = False

    @property
    def exhausted(self) -> bool:
        """Is it useless to wait longer?"""
        return self.open and self._clock() - self._since >= self._patience

    def delay(self) -> float:
        """Seconds until a request may go; infinite while a probe is under way."""
        if not self.open:
            return 0.0
        return float("inf") if self._probing else max(0.0, self._probe_at - self._clock())

    def sent(self) -> bool:
        """One goes. Is it a probe? Say so when it ends."""
        self._probing = self.open
        return self.open

    def unknown(self, probe: bool) -> None:
        """A request was given up; if it was the probe, another one may go."""
        self._probing = self._probing and not probe

    def succeeded(self) -> None:
        """The server answered, if only to refuse a request for what it asks."""
        self._row, self.open, self._probing, self._pause = 0, False, False, self.FIRST_PAUSE

    def failed(self, wait: float | None = None, probe: bool = False) -> None:
        """`wait`: seconds the server asked to be left alone.

        Only a probe that failed makes the next one wait longer: what was in flight when the breaker opened says
        nothing new, and hundreds of them would make it the longest wait at once.
        """
        now = self._clock()
        if self._row == 0:
            self._since = now
        self._row += 1
        opens = not self.open and self._row >= self._failures and now - self._since >= self._seconds
        self.open = self.open or opens
        if probe:
            self._probing = False
            self._pause = min(2 * self._pause, self.LONGEST_PAUSE)
        if opens or probe:
            self._probe_at = now + (self._pause if wait is None else wait)
        elif self.open and wait is not None:
            self._probe_at = max(self._probe_at, now + wait)


def back_off(attempt: int, asked: float | None = None) -> float:
    """Seconds to wait after failed attempt number `attempt`, from 1: what the server asked, else doubling, jittered."""
    if asked is not None:
        return asked
    return min(LONGEST_WAIT, 0.25 * 2.0 ** min(attempt, 16)) * random.uniform(0.5, 1.0)


def retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds named by a `Retry-After` header, a number or a date (RFC 9110, 10.2.3); None where it names none."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = parsedate_to_datetime(header)
        except ValueError:
            return None
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = (date - (now or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if seconds < float("inf") else None
