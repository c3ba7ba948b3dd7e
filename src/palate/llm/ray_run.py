"""Asking spread over the workers of a Ray cluster, each with a ledger segment of its own.

Requests that the ledger lacks are dealt into shards by their keys, so that equal ones meet in one. A worker takes one
shard through a runner of its own into the shard's segment: a ledger file beside the main one. A worker that died is
started again by Ray and finds the segment as it was. Segments are merged into the ledger as their shards are done, and
those of runs that were killed when the next one starts. All workers see the folder of the ledger.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from palate.errors import BudgetError, EngineError
from palate.llm.budget import Budget
from palate.llm.ledger import Ledger, open_ledger, transaction
from palate.llm.ledger_tables import NANO
from palate.llm.ledger_tools import merge
from palate.llm.request import Answer, Engine, Request
from palate.llm.request_lines import from_line, to_line
from palate.llm.runner import Outcome, Runner, Spent, Standing
from palate.llm.seen import Seen
from palate.llm.structured import checked

_READ = 500
_RESERVED = "reserved for "  # and the run, in a segment: the share that the main ledger has booked for it
_STOP = "stop"  # a file of this name in a run's folder tells its workers to finish


@dataclass
class Asked:
    """What the workers came to: the cause of each request that has no answer, by key."""

    errors: dict[str, str] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)
    stopped: bool = False


class RayRun:
    """One run on a cluster; `stop` may be called from a signal handler.

    Args:
        engine: Makes the engine, in each worker.
        budget: Shared among the workers; what one does not need the others get in the end.
        workers: How many to use at once.
    """

    def __init__(self, engine: Callable[[], Engine], model: str, ledger: Ledger, budget: Budget, workers: int) -> None:
        self._engine, self._model, self._ledger, self._budget, self._workers = engine, model, ledger, budget, workers
        self._folder = Path()

    def stop(self) -> None:
        """Workers take no more, finish what is in flight and end."""
        (self._folder / _STOP).touch()

    def ask(self, requests: Iterable[Request]) -> Asked:
        """Ask what the ledger lacks.

        Raises:
            BudgetError: The next call might pass the budget; what was answered has been merged.
            EngineError: Ray is not there, or the server cannot be reached.
        """
        ray = _ray()
        adopt(self._ledger.path)
        asked = Asked()
        with _run_folder(self._ledger.path) as self._folder, _cluster(ray, self._workers):
            try:
                short = self._round(ray, requests, self._workers, asked)
                if short and not asked.stopped and self._workers > 1:  # what other shards did not need is left for it
                    rest = [_read_shard(shard) for shard in self._folder.glob("*.jsonl")]
                    short = self._round(ray, chain.from_iterable(rest), 1, asked)
            finally:
                for segment in self._folder.glob("*.sqlite"):
                    _take_in(self._ledger.path, segment)
        if short and not asked.stopped:
            hint = "Raise the budget or ask about less; answers already kept are not asked again."
            raise BudgetError("The next call might pass the budget of this run.", where=self._budget.name, hint=hint)
        return asked

    def _lacking(self, requests: Iterable[Request], errors: Container[str]) -> Iterator[tuple[str, Request]]:
        """Each once, with its key; not those that have failed."""
        waiting, seen = iter(requests), Seen()
        while part := list(islice(waiting, _READ)):
            keyed = {request.key(self._model): request for request in part}
            known = self._ledger.get(keyed)
            for key, request in keyed.items():
                if key not in known and key not in errors and seen.add(int(key[:16], 16)):
                    yield key, request

    def _round(self, ray: Any, requests: Iterable[Request], workers: int, asked: Asked) -> bool:
        """Deal, ask, merge. Was the budget too short for any worker?"""
        shards = _deal(self._lacking(requests, asked.errors), self._folder, workers)
        if not shards:
            return False
        share = _reserve(self._ledger.path, self._budget, [shard.with_suffix(".sqlite") for shard in shards])
        work = partial(_work, engine=self._engine, budget=share, model=self._model)
        short, unreachable = False, None
        rows = ray.data.from_items([str(shard) for shard in shards], override_num_blocks=len(shards)).map(work)
        for row in rows.iter_rows():
            _take_in(self._ledger.path, Path(row["shard"]).with_suffix(".sqlite"))
            asked.errors |= json.loads(row["errors"])
            asked.stopped |= row["stopped"]
            for name, count in json.loads(row["spent"]).items():
                setattr(asked.spent, name, getattr(asked.spent, name) + count)
            short |= row["short"]
            unreachable = row["unreachable"] or unreachable
        if unreachable:
            raise EngineError("A worker could not reach the server.", got=unreachable, retryable=True)
        return short


def kept(requests: Iterable[Request], ledger: Ledger, model: str, errors: dict[str, str]) -> Iterator[Outcome]:
    """What the ledger has for `requests`, in their order, and for the others why it has not."""
    number, waiting = 0, iter(requests)
    while part := list(islice(waiting, _READ)):
        keys = [request.key(model) for request in part]
        known = ledger.get(keys)
        for key, request in zip(keys, part, strict=True):
            answer = known.get(key) or Answer(error=errors.get(key, "not asked"), model=model)
            yield Outcome(number, request, checked(request, answer), cached=key in known)
            number += 1


def adopt(ledger: Path) -> None:
    """Merge the segments that killed runs left; those of a run that still lives stay where they are."""
    for folder in _segments(ledger).glob("run-*"):
        with (folder / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            for segment in folder.glob("*.sqlite"):
                _take_in(ledger, segment)
            shutil.rmtree(folder)


def _segments(ledger: Path) -> Path:
    return ledger.with_name(f"{ledger.name}-segments")


@contextmanager
def _run_folder(ledger: Path) -> Iterator[Path]:
    """A folder for the shards of this run, locked as long as the run or one of its workers lives."""
    _segments(ledger).mkdir(parents=True, exist_ok=True)
    new = Path(mkdtemp(prefix="new-", dir=_segments(ledger).resolve()))
    with _held(new):
        folder = new.rename(new.with_name(new.name.replace("new-", "run-")))
        yield folder
        shutil.rmtree(folder)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


@contextmanager
def _cluster(ray: Any, workers: int) -> Iterator[None]:
    """The cluster that is there (RAY_ADDRESS, or Ray already begun), else one of this machine for this run alone."""
    if ray.is_initialized():
        yield
        return
    # Workers mostly wait for a server: how many processors there are does not matter.
    local = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": workers + 1, "include_dashboard": False}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(log_to_driver=False, logging_level="ERROR", **local)
    try:
        yield
    finally:
        ray.shutdown()


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise EngineError("Spreading over workers needs Ray.", hint="pip install 'palate[ray]'") from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    return ray


def _work(row: dict[str, str], engine: Callable[[], Engine], budget: Budget, model: str) -> dict[str, Any]:
    """In a worker: one shard into its segment."""
    shard = Path(row["item"])
    errors: dict[str, str] = {}
    short, unreachable = False, ""
    with _held(shard.parent), closing(engine()) as opened, Ledger(shard.with_suffix(".sqlite")) as segment:

        def look(standing: Standing) -> None:
            if (shard.parent / _STOP).exists():
                runner.stop()

        runner = Runner(opened, segment, budget, ordered=False, on_progress=look)
        try:
            for outcome in runner.run(_read_shard(shard)):
                if outcome.answer.error is not None:
                    errors[outcome.request.key(model)] = outcome.answer.error
        except BudgetError:
            short = True
        except EngineError as error:
            unreachable = str(error.got or error)
    said = {"errors": json.dumps(errors), "spent": json.dumps(asdict(runner.spent)), "stopped": runner.stopped}
    return {"shard": str(shard), "short": short, "unreachable": unreachable, **said}


def _deal(keyed: Iterable[tuple[str, Request]], folder: Path, n: int) -> list[Path]:
    """Requests into at most `n` files, by their keys. Returns those that are not empty."""
    shards = [folder / f"{n}-{place}.jsonl" for place in range(n)]
    files = [shard.open("w", encoding="utf-8") for shard in shards]
    try:
        for key, request in keyed:
            files[int(key, 16) % n].write(json.dumps(to_line(request), ensure_ascii=False) + "\n")
    finally:
        for file in files:
            file.close()
    return [shard for shard in shards if shard.stat().st_size]


def _read_shard(shard: Path) -> Iterator[Request]:
    with shard.open(encoding="utf-8") as file:
        for line in file:
            yield from_line(json.loads(line))


def _reserve(ledger: Path, budget: Budget, segments: list[Path]) -> Budget:
    """An equal share of what is left of the budget for each segment, booked as spent until the segment is taken in."""
    for segment in segments:
        Ledger(segment).close()
    with closing(open_ledger(ledger, "FULL")) as db:
        with transaction(db):
            used = _sum(db, "main", budget.name)
            share = tuple(
                None if limit is None else max(limit - spent, 0) // len(segments)
                for limit, spent in zip(budget.limits, used, strict=True)
            )
            booked = tuple(part or 0 for part in share)
            _book(db, budget.name, tuple(part * len(segments) for part in booked))
        for segment in segments:
            with closing(open_ledger(segment, "FULL")) as other, transaction(other):
                other.execute("INSERT OR REPLACE INTO budgets VALUES (?,?,?,?)", (_RESERVED + budget.name, *booked))
    money = None if share[2] is None else share[2] / NANO
    return Budget(budget.name, share[0], share[1], money)


def _take_in(ledger: Path, segment: Path) -> None:
    """Answers of a segment into the ledger, its share of the budget back, what it spent of it booked."""
    merge(ledger, segment)
    with closing(open_ledger(ledger, "FULL")) as db:
        db.execute("ATTACH ? AS segment", (str(segment),))
        with transaction(db):
            names = db.execute("SELECT run FROM segment.budgets WHERE run LIKE ?", (f"{_RESERVED}%",)).fetchall()
            for (name,) in names:
                run = name.removeprefix(_RESERVED)
                spent, reserved = _sum(db, "segment", run), _sum(db, "segment", name)
                _book(db, run, tuple(s - r for s, r in zip(spent, reserved, strict=True)))
            db.execute("DELETE FROM segment.budgets")
            db.execute("DELETE FROM segment.claims")


def _sum(db: sqlite3.Connection, schema: str, run: str) -> tuple[int, int, int]:
    """Calls, tokens and billionths of money spent and claimed."""
    columns = ", ".join(
        f"(SELECT COALESCE(SUM({c}), 0) FROM {schema}.budgets WHERE run=:run)"
        f" + (SELECT COALESCE(SUM({c}), 0) FROM {schema}.claims WHERE run=:run)"
        for c in ("calls", "tokens", "cost")
    )
    calls, tokens, cost = db.execute(f"SELECT {columns}", {"run": run}).fetchone()
    return calls, tokens, cost


def _book(db: sqlite3.Connection, run: str, more: tuple[int, ...]) -> None:
    db.execute(
        """INSERT INTO main.budgets VALUES (?,?,?,?) ON CONFLICT DO UPDATE SET
           calls=calls+excluded.calls, tokens=tokens+excluded.tokens, cost=cost+excluded.cost""",
        (run, *more),
    )
