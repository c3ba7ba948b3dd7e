"""The thread that answers are made in: what hangs there is left behind, and another thread goes on in its place."""

from __future__ import annotations

import asyncio
import heapq
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any, Generic, Literal, TypeVar

from palate.serving.stages import Stage, Steps

T = TypeVar("T")
Ended = Callable[[Any, BaseException | None], object]

_LATE = 8  # stages that may be late at once; while so many are, no other is begun
_PATIENCE = 0.2  # seconds after which those that wait no longer wait for one that is slow
_MOST = 40  # that are slow at once and not waited for
_TOGETHER = 16  # at most, in step


class Crew:
    """Runs `Steps` in one thread: threads that compute beside each other in one interpreter slow each other down.

    Those that wait go in step, each a turn of the same stage after the other: what a stage needs is in the processor's
    caches then, which takes a third off the time of a slate. Nothing changes threads on the way. Only where a stage is
    late does another thread go on with the steps, while the late stage ends by itself, unheard, since Python cannot
    stop it. Steps that are slow without being late are not waited for either: another thread takes all others.
    Daemons: work that never ends does not hold up the exit.
    """

    def __init__(self) -> None:
        self.late = 0  # stages that are
        self._slow = self._owed = 0  # threads whose place another has; those that none could be put in place of
        self._begun = False
        self._waiting: SimpleQueue[_Run[Any]] = SimpleQueue()
        self._watch, self._counting = _Watch(), threading.Lock()

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

        def ended(answer: T, error: BaseException | None) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_settle, future, answer, error)

        self._begin(steps, ended)
        return await future

    def _begin(self, steps: Steps[Any], ended: Ended) -> None:
        self._waiting.put(_Run(steps, ended, partial(next, steps)))
        with self._counting:
            first, self._begun = not self._begun, True
        if first:
            self._add_thread(deque())

    def _add_thread(self, together: deque[_Run[Any]]) -> None:
        threading.Thread(target=self._serve, args=(together,), name="slates", daemon=True).start()

    def _serve(self, together: deque[_Run[Any]]) -> None:
        """A turn of each, until all have come to their ends; then of those that wait. Until another has the place."""
        while True:
            if not together:
                self._gather(together)
            run = together.popleft()
            state = run.context.run(self._turn, run, together)
            if state == "lost":
                return
            if run.alone:
                together = deque()
                if state == "ended" and not self._has_place():
                    return
            if state == "open":
                together.append(run)

    def _gather(self, together: deque[_Run[Any]]) -> None:
        together.append(self._waiting.get())
        with suppress(Empty):
            while len(together) < _TOGETHER:
                together.append(self._waiting.get_nowait())

    def _turn(self, run: _Run[Any], together: deque[_Run[Any]]) -> Literal["open", "ended", "lost"]:
        """The stage that is due and what follows it, up to the next; or another thread goes on with it."""
        if not run.alone:
            run.slow = self._watch.after(_PATIENCE, partial(self._give_place, run, together))
        state: Literal["open", "ended", "lost"] = "open"
        try:
            if run.stage is not None and not self._worked(run, run.stage, together):
                return "lost"
            run.stage = run.step()
        except StopIteration as end:
            run.ended(end.value, None)
            state = "ended"
        except BaseException as error:
            run.ended(None, error)
            state = "ended"
        run.alone = run.alone or run.slow.claim() is None
        return state

    def _worked(self, run: _Run[Any], stage: Stage, together: deque[_Run[Any]]) -> bool:
        """Whether the run is still this thread's when the work is done, or was not begun; its next step is known."""
        if stage.milliseconds is None:
            due = None
        elif stage.milliseconds <= 0 or self.late >= _LATE:
            run.step = partial(run.steps.send, False)
            return True
        else:
            due = self._watch.after(stage.milliseconds / 1000, partial(self._take_over, run, together))
        try:
            stage.work()
            step: Callable[[], Stage] = partial(run.steps.send, True)
        except BaseException as error:
            step = partial(run.steps.throw, error)
        if due is not None and due.claim() is None:
            with self._counting:
                self.late -= 1
            return False
        run.step = step
        return True

    def _give_place(self, run: _Run[Any], together: deque[_Run[Any]]) -> None:
        """Another thread for all but one that is slow."""
        run.alone = True
        while together:
            self._waiting.put(together.popleft())
        with self._counting:
            if self._slow >= _MOST:
                self._owed += 1
                return
            self._slow += 1
        self._add_thread(deque())

    def _has_place(self) -> bool:
        """Whether a thread that was slow serves on, since none could be put in its place."""
        with self._counting:
            owed = self._owed > 0
            self._owed -= owed
            self._slow -= not owed
        return owed

    def _take_over(self, run: _Run[Any], together: deque[_Run[Any]]) -> None:
        """A new thread in place of the one whose stage is late."""
        with self._counting:
            self.late += 1
        run.slow.claim()  # unless that was before
        run.stage, run.step, run.context = None, partial(run.steps.send, False), run.context.copy()
        self._add_thread(deque([run, *together]))


@dataclass
class _Run(Generic[T]):
    """Steps on their way, and how they go on."""

    steps: Steps[T]
    ended: Ended
    step: Callable[[], Stage]  # to the next stage
    stage: Stage | None = None  # that is due before that
    context: Context = field(default_factory=copy_context)
    slow: _Due = field(init=False)  # of its turn
    alone: bool = False  # was slow: its thread serves nobody else


class _Due:
    """Either it is met in time, or `late` is called: never both."""

    __slots__ = ("_claimed", "late")

    def __init__(self, late: Callable[[], None]) -> None:
        self.late: Callable[[], None] | None = late
        self._claimed = threading.Lock()

    def claim(self) -> Callable[[], None] | None:
        """`late`, for whoever comes first."""
        late = self.late
        if not self._claimed.acquire(blocking=False):
            return None
        self.late = None  # what it holds is free before its time has come
        return late


class _Watch:
    """A thread that wakes when something is due: as a rule long after it was met, and seldom."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, _Due]] = []
        self._numbers, self._changed, self._wakes = count(), threading.Condition(), float("inf")
        self._started = False

    def after(self, seconds: float, late: Callable[[], None]) -> _Due:
        """`late` is called after so many seconds, in the thread that watches, unless it was `met`."""
        when, due = time.monotonic() + seconds, _Due(late)
        with self._changed:
            heapq.heappush(self._due, (when, next(self._numbers), due))
            if when < self._wakes:
                if not self._started:
                    threading.Thread(target=self._look, name="watch", daemon=True).start()
                    self._started = True
                self._wakes = when
                self._changed.notify()
        return due

    def _look(self) -> None:
        while True:
            with self._changed:
                late = self._passed()
                self._wakes = self._due[0][0] if self._due else float("inf")
                if not late:
                    self._changed.wait(self._wakes - time.monotonic() if self._due else None)
            for each in late:
                call = each.claim()  # perhaps met since, or by the one before
                if call is not None:
                    call()

    def _passed(self) -> list[_Due]:
        """What is late now; what was met is dropped, so that the next waking is for something open."""
        late, now = list[_Due](), time.monotonic()
        while self._due and (self._due[0][2].late is None or self._due[0][0] <= now):
            late.append(heapq.heappop(self._due)[2])
        return late


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
