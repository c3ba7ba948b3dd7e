"""A hard budget and the claims under it: what a call may cost is reserved before it and settled after it.

Processes that share a ledger share both. A claim is a request that a living process has in flight: no other asks it.
Claims of a process that died are charged in full, since what it asked last may have been billed.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from palate.errors import InputError, StorageError
from palate.llm.ledger import open_ledger, transaction
from palate.llm.ledger_tables import NANO
from palate.llm.request import Bound

UNLIMITED = ""  # the name under which nothing is booked
_COLUMNS = ("calls", "tokens", "cost")


@dataclass(frozen=True)
class Budget:
    """What the run called `name` may spend in all its processes and restarts; None: without limit.

    A call is a request that was sent, every further attempt included. Tokens are those read and written.

    Raises:
        InputError: A negative limit.
    """

    name: str
    calls: int | None = None
    tokens: int | None = None
    money: float | None = None

    def __post_init__(self) -> None:
        for what in ("calls", "tokens", "money"):
            limit = getattr(self, what)
            if limit is not None and not limit >= 0:
                raise InputError(
                    "A budget cannot be negative.", where=f"budget of {what}", got=limit, allowed="0 or more"
                )

    @property
    def limits(self) -> tuple[int | None, int | None, int | None]:
        return self.calls, self.tokens, None if self.money is None else int(self.money * NANO)


@dataclass(frozen=True)
class Claimed:
    """Of the keys asked for: `granted` are ours to ask, `elsewhere` another process asks, the rest found no money."""

    granted: frozenset[str]
    elsewhere: frozenset[str]
    answered: frozenset[str]
    short: bool


@dataclass(frozen=True)
class Settlement:
    """What the last attempt of a claim came to. `bound` is what had been reserved for it."""

    key: str
    bound: Bound
    spent: Bound


class Claims:
    """The claims of one process on a ledger, made and settled under a budget. Thread-safe.

    A file beside the ledger stays locked as long as the process lives: that is how others know.
    """

    def __init__(self, path: Path, budget: Budget) -> None:
        self.budget = budget
        self.owner = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._path = path
        self._lock = threading.Lock()
        try:
            self._alive = self._locked()
            # Claims need not outlive a power cut, only a killed process: NORMAL spares a disk flush for each.
            self._db = open_ledger(path, "NORMAL")
        except (OSError, sqlite3.Error) as error:
            raise StorageError("The ledger could not be claimed from.", where=str(path), got=error) from error
        with transaction(self._db):
            self._bury()
        for file in path.parent.glob(f"{path.name}-owner-*"):  # of processes that died before they claimed anything
            owner = file.name.rsplit("-owner-", 1)[1]
            if owner != self.owner and not _lives(path, owner):
                file.unlink(missing_ok=True)

    def _locked(self) -> IO[str]:
        """Our lock file, which nobody sees before it is locked."""
        unseen = self._path.with_name(f".{self._path.name}-{self.owner}")
        file = unseen.open("w")
        fcntl.flock(file, fcntl.LOCK_EX)
        unseen.replace(_lock_file(self._path, self.owner))
        return file

    def close(self) -> None:
        """Charge what is still claimed (it was in flight) and go."""
        with self._lock:
            with transaction(self._db):
                self._charge(self.owner)
            self._db.close()
            _lock_file(self._path, self.owner).unlink(missing_ok=True)
            self._alive.close()

    def claim(self, wanted: Sequence[tuple[str, Bound]]) -> Claimed:
        """Claim keys in order, as far as the budget goes."""
        keys = [key for key, _ in wanted]
        with self._lock, transaction(self._db):
            answered = self._known("SELECT key FROM answers WHERE key IN", keys)
            elsewhere = self._known("SELECT key FROM claims WHERE key IN", keys)
            if elsewhere and self._bury():
                elsewhere = self._known("SELECT key FROM claims WHERE key IN", keys)
            rows, short = self._affordable([(k, b) for k, b in wanted if k not in answered and k not in elsewhere])
            self._db.executemany("INSERT INTO claims VALUES (?,?,?,?,?,?)", rows)
        return Claimed(frozenset(row[0].hex() for row in rows), elsewhere - answered, answered, short)

    def again(self, key: str, bound: Bound, billed: bool) -> bool:
        """Reserve one more attempt of a claimed request; False if the budget does not allow it."""
        more = (1, bound.tokens, round(bound.money * NANO)) if billed else (1, 0, 0)
        with self._lock, transaction(self._db):
            if not self._fits(self._used(), more):
                return False
            self._db.execute(
                "UPDATE claims SET calls=calls+?, tokens=tokens+?, cost=cost+? WHERE key=?", (*more, bytes.fromhex(key))
            )
        return True

    def settle(self, db: sqlite3.Connection, settlements: Sequence[Settlement]) -> None:
        """Within the transaction that keeps the answers: claims become spent money."""
        claimed = self._claimed(db, [settlement.key for settlement in settlements])
        sums = [0, 0, 0]
        for settlement in settlements:
            if settlement.key in claimed:
                calls, tokens, cost = claimed[settlement.key]
                sums[0] += calls
                sums[1] += tokens + settlement.spent.tokens - settlement.bound.tokens
                sums[2] += cost + round(settlement.spent.money * NANO) - round(settlement.bound.money * NANO)
        self._spend(db, self.budget.name, sums)
        db.executemany(
            "DELETE FROM claims WHERE key=?", [(bytes.fromhex(settlement.key),) for settlement in settlements]
        )

    @staticmethod
    def _claimed(db: sqlite3.Connection, keys: Sequence[str]) -> dict[str, tuple[int, int, int]]:
        marks = ",".join("?" * len(keys))
        rows = db.execute(f"SELECT key, calls, tokens, cost FROM claims WHERE key IN ({marks})", _blobs(keys))
        return {key.hex(): (calls, tokens, cost) for key, calls, tokens, cost in rows}

    def others(self) -> bool:
        """Does another living process hold claims of this run? What it reserved may become free."""
        with self._lock, transaction(self._db):
            self._bury()
            sql = "SELECT 1 FROM claims WHERE run=? AND owner<>? LIMIT 1"
            return self._db.execute(sql, (self.budget.name, self.owner)).fetchone() is not None

    def spent(self) -> tuple[int, int, float]:
        """Calls, tokens and money of this run by all its processes, reserved ones included."""
        with self._lock:
            calls, tokens, cost = self._used()
        return calls, tokens, cost / NANO

    def _affordable(
        self, wanted: Sequence[tuple[str, Bound]]
    ) -> tuple[list[tuple[bytes, str, str, int, int, int]], bool]:
        rows: list[tuple[bytes, str, str, int, int, int]] = []
        used = self._used()
        for key, bound in wanted:
            more = (1, bound.tokens, round(bound.money * NANO))
            if not self._fits(used, more):
                return rows, True
            used = (used[0] + more[0], used[1] + more[1], used[2] + more[2])
            rows.append((bytes.fromhex(key), self.owner, self.budget.name, *more))
        return rows, False

    def _fits(self, used: tuple[int, int, int], more: tuple[int, int, int]) -> bool:
        limits = self.budget.limits
        return all(limit is None or u + m <= limit for limit, u, m in zip(limits, used, more, strict=True))

    def _used(self) -> tuple[int, int, int]:
        """Spent and reserved."""
        if self.budget.limits == (None, None, None):
            return 0, 0, 0
        sums = ", ".join(
            f"(SELECT COALESCE(SUM({c}), 0) FROM claims WHERE run=:run)"
            f" + COALESCE((SELECT {c} FROM budgets WHERE run=:run), 0)"
            for c in _COLUMNS
        )
        calls, tokens, cost = self._db.execute(f"SELECT {sums}", {"run": self.budget.name}).fetchone()
        return int(calls), int(tokens), int(cost)

    def _known(self, sql: str, keys: Sequence[str]) -> frozenset[str]:
        rows = self._db.execute(f"{sql} ({','.join('?' * len(keys))})", _blobs(keys))
        return frozenset(key.hex() for (key,) in rows)

    def _bury(self) -> bool:
        """Charge and release the claims of owners that are no more. Were there any?"""
        owners = [owner for (owner,) in self._db.execute("SELECT DISTINCT owner FROM claims")]
        dead = [owner for owner in owners if owner != self.owner and not _lives(self._path, owner)]
        for owner in dead:
            self._charge(owner)
            _lock_file(self._path, owner).unlink(missing_ok=True)
        return bool(dead)

    def _charge(self, owner: str) -> None:
        sql = "SELECT run, SUM(calls), SUM(tokens), SUM(cost) FROM claims WHERE owner=? GROUP BY run"
        for run, *sums in self._db.execute(sql, (owner,)).fetchall():
            self._spend(self._db, run, sums)
        self._db.execute("DELETE FROM claims WHERE owner=?", (owner,))

    def _spend(self, db: sqlite3.Connection, run: str, more: Sequence[int]) -> None:
        if run == UNLIMITED:
            return
        db.execute(
            """INSERT INTO budgets VALUES (?,?,?,?) ON CONFLICT DO UPDATE SET
               calls=calls+excluded.calls, tokens=tokens+excluded.tokens, cost=cost+excluded.cost""",
            (run, *more),
        )


def _blobs(keys: Sequence[str]) -> list[bytes]:
    return [bytes.fromhex(key) for key in keys]


def forget(path: Path, run: str) -> None:
    """The run is complete: if it is ever run again, its budget starts anew. Not while a process is still in it."""
    with closing(open_ledger(path, "NORMAL")) as db, transaction(db):
        held = db.execute("SELECT owner FROM claims WHERE run=?", (run,)).fetchall()
        if not any(_lives(path, owner) for (owner,) in held):
            db.execute("DELETE FROM budgets WHERE run=?", (run,))


def _lock_file(path: Path, owner: str) -> Path:
    return path.with_name(f"{path.name}-owner-{owner}")


def _lives(path: Path, owner: str) -> bool:
    """A lock that can be had belongs to nobody."""
    try:
        with _lock_file(path, owner).open("r") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
