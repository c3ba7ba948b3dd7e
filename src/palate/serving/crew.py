"""The thread that answers are made in: what hangs there is left behind, and another thread goes on in its place."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import cache, partial
from queue import Empty, SimpleQueue
from typing import Any, Generic, Literal, TypeVar

from palate.serving.stages import Stage, Steps

T = TypeVar("T")
Ended = Callable[[Any, BaseException | None], object]

NEVER = float("inf")
_LATE = 8  # stages that may be late at once; while so many are, no other is begun
_PATIENCE = 0.2  # seconds after which those that wait no longer wait for one that is slow
_MOST = 40  # that are slow at once and not waited for
_TOGETHER = 16  # at most, in step


class Crew:
    """Runs `Steps` in one thread: threads that compute beside each other in one interpreter slow each other down.

    Those that wait go in step, each a turn of the same stage after the other: what a stage needs is in the processor's
    caches then (docs/serving.md, "Speed"). Nothing changes threads on the way. Only where a stage is
    late does another thread go on with the steps, while the late stage ends by itself, unheard, since Python cannot
    stop it. Steps that are slow without being late are not waited for either: another thread takes all others.
    Daemons: work that never ends does not hold up the exit.
    """

    def __init__(self) -> None:
        self.late = 0  # stages that are
        self._slow = self._owed = 0  # runs that are; places that could not be given to another thread
        self._begun = False
        self._waiting: SimpleQueue[_Run[Any]] = SimpleQueue()
        self._seats: set[_Seat] = set()
        self._wakes, self._changed, self._counting = NEVER, threading.Condition(), threading.Lock()

    def run(self, steps: Steps[T]) -> T:
        """To the end, from a thread that can wait; what it raises is raised here."""
        ended: SimpleQueue[tuple[T, BaseException | None]] = SimpleQueue()
        self._begin(steps, lambda answer, error: ended.put((answer, error)))
        answer, error = ended.get()
        if error is not None:
            raise error
        return answer

    async def awaited(self, steps: Steps[T]) -> T:
        """The same from an event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._begin(steps, partial(_tell, loop, future))
        try:
            return await future
        finally:
            del future  # an error holds this frame, and the future the error: a circle, with all that the steps held

    def _begin(self, steps: Steps[Any], ended: Ended) -> None:
        self._waiting.put(_Run(steps, ended, partial(next, steps)))
        if self._begun:
            return
        with self._counting:
            if not self._begun:
                self._add_thread()
                threading.Thread(target=self._watch, name="watch", daemon=True).start()
                self._begun = True

    def _add_thread(self, *together: _Run[Any]) -> None:
        threading.Thread(target=self._serve, args=(_Seat(deque(together)),), name="slates", daemon=True).start()

    def _serve(self, seat: _Seat) -> None:
        """A turn of each, until all have come to their ends; then of those that wait. Until another has the place."""
        self._seats.add(seat)
        while True:
            if not seat.together:
                self._gather(seat.together)
            run = seat.together.popleft()
            state = run.context.run(self._turn, seat, run)
            if state == "open":
                seat.together.append(run)
            elif (state == "lost" or run.alone) and not self._serves_on(was_slow=state == "ended"):
                break
            del run  # whoever waits holds nothing
        self._seats.discard(seat)

    def _gather(self, together: deque[_Run[Any]]) -> None:
        together.append(self._waiting.get())
        with suppress(Empty):
            while len(together) < _TOGETHER:
                together.append(self._waiting.get_nowait())

    def _turn(self, seat: _Seat, run: _Run[Any]) -> Literal["open", "ended", "lost"]:
        """The stage that is due and what follows it, up to the next; or another thread goes on with it."""
        stage = run.stage
        if stage is not None and stage.milliseconds is not None and (stage.milliseconds <= 0 or self.late >= _LATE):
            stage, run.step = None, partial(run.steps.send, False)
        if seat.begins(run, stage) < self._wakes:
            self._hurry(seat)
        try:
            if stage is not None:
                step = _worked(run, stage)
                if not seat.keeps(run):
                    with self._counting:
                        self.late -= 1
                    return "lost"
                run.step = step
            run.stage = run.step()
            return "open"
        except StopIteration as end:
            run.ends(end.value, None)
        except BaseException as error:
            run.ends(None, error)
        finally:
            seat.ends(run)
        return "ended"

    def _hurry(self, seat: _Seat) -> None:
        with self._changed:
            self._wakes = min(self._wakes, seat.slow, seat.late)
            self._changed.notify()

    def _watch(self) -> None:
        """Wakes when a turn would be slow or late that was on its way at the last look: seldom."""
        while True:
            self._wakes = NEVER  # before the look: whoever begins after it says so
            for seat in list(self._seats):
                self._look_at(seat, time.monotonic())
            with self._changed:
                self._wakes = min([self._wakes, *(min(seat.slow, seat.late) for seat in list(self._seats))])
                self._changed.wait(None if self._wakes == NEVER else max(0.0, self._wakes - time.monotonic()))

    def _look_at(self, seat: _Seat, now: float) -> None:
        with seat.lock:
            run, slow, late = seat.run, seat.slow <= now, seat.late <= now
            if run is None or not (slow or late):
                return
            others, seat.together = seat.together, deque()
            if late:
                run.stage, run.step, run.context = None, partial(run.steps.send, False), run.context.copy()
                seat.run, seat.slow, seat.late = None, NEVER, NEVER
            else:
                run.alone, seat.slow = True, NEVER
        with self._counting:
            if late:
                self.late += 1
                self._replace(run, *others)
            else:
                self._slow += 1
                self._replace(*others)

    def _replace(self, *runs: _Run[Any]) -> None:
        """Another thread, with these; where there can be none they wait, and the next that comes free serves on."""
        if self._slow <= _MOST:
            with suppress(RuntimeError):  # the system has no more threads
                self._add_thread(*runs)
                return
        for run in runs:
            self._waiting.put(run)
        self._owed += 1

    def _serves_on(self, was_slow: bool) -> bool:
        """Whether a thread that was replaced, or was to be, has a place: one that could not be given to another."""
        with self._counting:
            owed = self._owed > 0
            self._owed -= owed
            self._slow -= was_slow
        return owed


@dataclass
class _Run(Generic[T]):
    """Steps on their way, and how they go on."""

    steps: Steps[T]
    ended: Ended
    step: Callable[[], Stage]  # to the next stage
    stage: Stage | None = None  # that is due before that
    context: Context = field(default_factory=copy_context)
    left: float = _PATIENCE  # seconds of its own turns until it is slow
    alone: bool = False  # was slow: its thread serves nobody else

    def ends(self, answer: T | None, error: BaseException | None) -> None:
        ended, self.ended = self.ended, _unheard
        ended(answer, error)


@dataclass(eq=False)
class _Seat:
    """A thread that serves, as the one that watches sees it: whose turn it is, and when that is slow, or late."""

    together: deque[_Run[Any]]
    run: _Run[Any] | None = None
    slow: float = NEVER
    late: float = NEVER
    since: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begins(self, run: _Run[Any], stage: Stage | None) -> float:
        """When to look again."""
        self.since = now = time.monotonic()
        with self.lock:
            self.run = run
            self.slow = NEVER if run.alone else now + run.left
            self.late = NEVER if stage is None or stage.milliseconds is None else now + stage.milliseconds / 1000
        return min(self.slow, self.late)

    def keeps(self, run: _Run[Any]) -> bool:
        """Whether the run is still this thread's; its stage is not late any more."""
        with self.lock:
            self.late = NEVER
            return self.run is run

    def ends(self, run: _Run[Any]) -> None:
        run.left -= time.monotonic() - self.since
        with self.lock:
            self.run, self.slow, self.late = None, NEVER, NEVER


def _worked(run: _Run[Any], stage: Stage) -> Callable[[], Stage]:
    """How the run goes on after the stage."""
    try:
        stage.work()
    except BaseException as error:
        return partial(run.steps.throw, error)
    return partial(run.steps.send, True)


def _unheard(answer: Any, error: BaseException | None) -> None:
    pass


def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], answer: T, error: BaseException | None) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(_settle, future, answer, error)


def _settle(future: asyncio.Future[T], answer: T, error: BaseException | None) -> None:
    if future.done():  # whoever asked has gone
        return
    if error is None:
        future.set_result(answer)
    else:
        future.set_exception(error)


@cache
def crew() -> Crew:
    """Of this process."""
    return Crew()
