"""Steps run in one thread; what hangs there holds up neither its own answer nor those behind it."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
import weakref
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from palate.serving.crew import Crew
from palate.serving.stages import Stage, Steps, inline

T = TypeVar("T")


@pytest.fixture
def let_go() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def steps(*stages: Stage) -> Steps[tuple[list[bool], set[int]]]:
    told, threads = [], {threading.get_ident()}
    for stage in stages:
        told.append((yield stage))
        threads.add(threading.get_ident())
    return told, threads


def nothing() -> None:
    pass


def in_a_loop(asked: Coroutine[Any, Any, T]) -> T:
    """Of a thread of its own: tests in a browser leave a loop running in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, asked).result()


def test_all_is_done_in_one_thread() -> None:
    crew, inside = Crew(), list[int]()
    work = lambda: inside.append(threading.get_ident())  # noqa: E731
    answers = [crew.run(steps(Stage(500, work), Stage(None, work))) for _ in range(3)]
    assert all(told == [True, True] for told, _ in answers)
    assert set.union(*(threads for _, threads in answers)) == set(inside)
    assert len(set(inside)) == 1 and inside[0] != threading.get_ident()
    assert inline(steps(Stage(500, work)))[1] == {threading.get_ident()}


def test_where_a_stage_is_late_another_thread_goes_on(let_go: threading.Event) -> None:
    crew, start = Crew(), time.monotonic()
    told, threads = crew.run(
        steps(Stage(None, nothing), Stage(20, lambda: bool(let_go.wait(30)) or None), Stage(500, nothing))
    )
    assert told == [True, False, True]
    assert len(threads) == 2 and time.monotonic() - start < 5
    assert crew.late == 1
    let_go.set()
    deadline = time.monotonic() + 5
    while crew.late and time.monotonic() < deadline:
        time.sleep(0.01)
    assert crew.late == 0
    assert crew.run(steps(Stage(500, nothing)))[0] == [True]


def test_one_that_has_no_limit_holds_up_nobody_else(let_go: threading.Event) -> None:
    crew = Crew()

    async def both() -> float:
        hanging = asyncio.ensure_future(crew.awaited(steps(Stage(None, lambda: bool(let_go.wait(30)) or None))))
        await asyncio.sleep(0.01)
        start = time.monotonic()
        for _ in range(3):
            assert (await crew.awaited(steps(Stage(500, nothing))))[0] == [True]
        took = time.monotonic() - start
        assert not hanging.done()
        let_go.set()
        assert (await hanging)[0] == [True]
        return took

    assert in_a_loop(both()) < 5


def together(crew: Crew, runs: list[Steps[T]], let_go: threading.Event) -> list[T]:
    """All in step: they come while the thread is held up."""

    async def ask() -> list[T]:
        first = asyncio.ensure_future(crew.awaited(steps(Stage(None, lambda: bool(let_go.wait(0.1)) or None))))
        await asyncio.sleep(0.02)
        answers = [asyncio.ensure_future(crew.awaited(each)) for each in runs]
        await first
        return await asyncio.wait_for(asyncio.gather(*answers), 10)

    return in_a_loop(ask())


def test_those_that_wait_go_in_step(let_go: threading.Event) -> None:
    order: list[tuple[int, str]] = []

    def noting(stage: int, who: str) -> Stage:
        return Stage(500, lambda: order.append((stage, who)))

    runs = [steps(*(noting(stage, who) for stage in range(3))) for who in "abc"]
    assert [told for told, _ in together(Crew(), runs, let_go)] == [[True] * 3] * 3
    assert order == [(stage, who) for stage in range(3) for who in "abc"]


@pytest.mark.parametrize("limit", [20, None])
def test_whoever_hangs_is_left_by_those_in_step_with_it(let_go: threading.Event, limit: int | None) -> None:
    """Late: told so, and on with the others. Slow: on by itself, when it is done."""
    crew, done = Crew(), threading.Event()
    waiting = Stage(limit, lambda: bool(let_go.wait(30)) or None)
    hanging = [steps(Stage(None, nothing), waiting, Stage(500, nothing))]
    others = [steps(*[Stage(500, nothing)] * 3) for _ in range(5)]
    last = steps(*[Stage(500, nothing)] * 4, Stage(500, done.set))

    def free() -> None:
        assert done.wait(10)
        let_go.set()

    with ThreadPoolExecutor(1) as thread:
        freed = thread.submit(free)
        answers = together(crew, [*hanging, *others, last], threading.Event())
        freed.result()
    assert [told for told, _ in answers] == [[True, limit is None, True], *[[True] * 3] * 5, [True] * 5]
    assert crew.run(steps(Stage(500, nothing)))[0] == [True]


def test_many_stages_that_are_each_quick_are_slow_together() -> None:
    crew = Crew()

    async def both() -> float:
        heavy = [crew.awaited(steps(*[Stage(None, lambda: time.sleep(0.15))] * 8)) for _ in range(4)]
        waiting = [asyncio.ensure_future(each) for each in heavy]
        await asyncio.sleep(0.05)
        start = time.monotonic()
        assert (await crew.awaited(steps(Stage(500, nothing))))[0] == [True]
        took = time.monotonic() - start
        assert not any(each.done() for each in waiting)
        await asyncio.gather(*waiting)
        return took

    assert in_a_loop(both()) < 2.5  # all of theirs are 4.8 s


@pytest.mark.parametrize("limit", [20, None])
def test_where_no_thread_can_be_added_the_next_that_is_free_serves(
    let_go: threading.Event, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    crew = Crew()
    assert crew.run(steps(Stage(None, nothing)))[0] == [True]

    def none(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def both() -> list[list[bool]]:
        asked = [Stage(limit, lambda: bool(let_go.wait(30)) or None), Stage(None, nothing)]
        waiting = [asyncio.ensure_future(crew.awaited(steps(*some))) for some in (asked, [Stage(None, nothing)])]
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", none)
            await asyncio.sleep(0.4)
        let_go.set()
        return [told for told, _ in await asyncio.wait_for(asyncio.gather(*waiting), 10)]

    assert in_a_loop(both()) == [[limit is None, True], [True]]
    assert crew.run(steps(Stage(500, nothing)))[0] == [True]


def test_an_error_keeps_nothing_alive() -> None:
    class Held:
        pass

    def failing(held: Held) -> Steps[None]:
        yield Stage(None, nothing)
        raise ValueError("no")

    async def ask(held: Held) -> None:
        with pytest.raises(ValueError, match="no"):
            await crew.awaited(failing(held))

    crew, held = Crew(), Held()
    found = weakref.ref(held)
    enabled = gc.isenabled()
    gc.disable()
    try:
        in_a_loop(ask(held))
        del held
        crew.run(steps(Stage(None, nothing)))
        assert found() is None
    finally:
        if enabled:
            gc.enable()


def test_many_that_hang_now_and_then_all_end_once() -> None:
    crew, rng = Crew(), random.Random(0)

    def stage() -> Stage:
        pause = rng.choice([0.0, 0.0, 0.0, 0.003, 0.03])
        return Stage(rng.choice([None, 5, 500]), lambda: time.sleep(pause) if pause else None)

    async def ask() -> list[list[bool]]:
        runs = [steps(*(stage() for _ in range(rng.randint(1, 6)))) for _ in range(150)]
        answers = [asyncio.ensure_future(crew.awaited(each)) for each in runs]
        return [told for told, _ in await asyncio.wait_for(asyncio.gather(*answers), 60)]

    told = in_a_loop(ask())
    assert len(told) == 150 and any(False in each for each in told) and any(False not in each for each in told)
    deadline = time.monotonic() + 5
    while crew.late and time.monotonic() < deadline:
        time.sleep(0.01)
    assert crew.late == 0


def test_what_is_raised_comes_to_whoever_asked() -> None:
    def failing() -> None:
        raise ValueError("no")

    def catching() -> Steps[str]:
        try:
            yield Stage(500, failing)
        except ValueError as error:
            return f"caught {error}"
        return "nothing"

    crew = Crew()
    for run in (crew.run, inline, lambda each: in_a_loop(crew.awaited(each))):
        assert run(catching()) == "caught no"
        with pytest.raises(ValueError, match="no"):
            run(steps(Stage(500, failing)))
    assert crew.run(steps(Stage(500, nothing)))[0] == [True]


def test_whoever_has_gone_is_not_answered() -> None:
    crew, begun = Crew(), threading.Event()

    async def leave() -> None:
        waiting = asyncio.ensure_future(
            crew.awaited(steps(Stage(None, begun.set), Stage(None, lambda: time.sleep(0.05))))
        )
        while not begun.is_set():
            await asyncio.sleep(0.001)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.sleep(0.1)

    in_a_loop(leave())
    assert crew.run(steps(Stage(500, nothing)))[0] == [True]
