"""What a server remembers between requests: events, impressions, new items and cached user vectors.

A snapshot never changes; what happens after it was built is here. `State` is what a store must do, `open_state` finds
the store for an address. All stores pass the same tests (`tests/serving/test_state.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, Literal, NamedTuple, Protocol

import polars as pl

from palate.data.dataset import EVENT_SCHEMA, TIMESTAMP, FloatArray
from palate.errors import InputError, StorageError

DAY = 86_400
KEEP_DAYS = 30.0  # an event is remembered so long, and a replay of it recognised
LONGEST_HISTORY = 1000  # events of one person that are read

Table = Literal["events", "impressions"]

STORES = {
    "sqlite": "palate.serving.state_sqlite:SqliteState",
    "redis": "palate.serving.state_redis:RedisState",
    "rediss": "palate.serving.state_redis:RedisState",
}

LANDED: dict[Table, dict[str, Any]] = {
    "events": {"event_id": pl.String, **EVENT_SCHEMA, "request_id": pl.String},
    "impressions": {
        "request_id": pl.String,
        "user_id": pl.String,
        "item_id": pl.String,
        "timestamp": TIMESTAMP,
        "position": pl.Int32,
        "source": pl.String,
        "score": pl.Float32,
        "variant": pl.String,
        "propensity": pl.Float32,
        "snapshot": pl.String,
    },
}
"""Columns of the part files that the next training reads."""


@dataclass(frozen=True)
class Event:
    """What a person did. Fields in the order of `LANDED`; `timestamp` in microseconds since the epoch, UTC."""

    event_id: str
    user_id: str
    item_id: str
    timestamp: int
    event_type: str = "event"
    value: float | None = None
    request_id: str | None = None  # of the slate that led to it


class Impression(NamedTuple):
    """What a person was shown: place `position` (0 is the top) of the slate of `request_id`."""

    request_id: str
    user_id: str
    item_id: str
    timestamp: int
    position: int
    source: str
    score: float
    variant: str
    propensity: float | None  # chance that this item was put here, where it is known
    snapshot: str


@dataclass(frozen=True)
class KeptItem:
    """An item as it was put, and where a snapshot's space has it. `snapshot` says which: another must place anew.

    One that was deleted is `gone`, and `item` holds its id alone.
    """

    item: dict[str, Any]  # item_id, title, text, categories, and fields that restricts may ask for
    snapshot: str
    vector: list[float]
    leaf: int
    labels: dict[str, float]
    gone: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Batch:
    """Rows on their way to a part file. The same batch comes again until it is called landed, whoever asks."""

    table: Table
    first: str
    last: str
    rows: list[dict[str, Any]]


class State(Protocol):
    """Thread-safe; several processes may use one store at once.

    Every verb raises a retryable StorageError where the store cannot be reached, is locked, or is full.
    """

    def add_events(self, events: Sequence[Event]) -> int:
        """Keep events, all or none, and return how many are new: one whose `event_id` was kept before is a replay.

        Once it returns a killed process loses none of them.
        """

    def recent(self, user_id: str) -> list[Event]:
        """The latest `LONGEST_HISTORY` events of a person, in the order in which they came."""

    def add_impressions(self, impressions: Sequence[Impression]) -> None: ...

    def vector(self, user_id: str, tag: str) -> FloatArray | None:
        """The vector kept under the same tag, if it has not run out."""

    def keep_vectors(self, vectors: Sequence[tuple[str, str, FloatArray]], seconds: float) -> None:
        """Of users under tags, each in place of what the user had, for so long."""

    def put_items(self, items: Sequence[KeptItem]) -> None:
        """Keep items, each in place of what was put under its id before, and queue them for the language model.

        Those that are gone are kept too, and leave the queue.
        """

    def items(self, after: int = 0) -> tuple[int, list[KeptItem]]:
        """A version that grows with every `put_items`, and what was put after an earlier version, in order."""

    def queued(self) -> list[str]:
        """Items that wait for the language model, the oldest first."""

    def asked(self, item_ids: Sequence[str]) -> None:
        """Take items from that queue."""

    def batch(self, table: Table, at_most: int) -> Batch | None:
        """The rows that are not landed, the oldest first; None if there are none."""

    def landed(self, batch: Batch) -> None:
        """The rows are in a whole part file. Impressions go; events stay until they are `KEEP_DAYS` old."""

    def prune(self, before: int) -> int:
        """Forget landed events received before a time (microseconds), and vectors that ran out; how many events."""

    def memory(self) -> dict[str, Any]:
        """Bytes and rows, and whether what is acknowledged survives a power cut (`durable`)."""

    def close(self) -> None: ...


def open_state(address: str) -> State:
    """The store at `sqlite:PATH` or `redis://HOST:PORT/DB` (Redis or Valkey).

    Raises:
        InputError: for another kind of address, or if the store's client is not installed.
        StorageError: if it cannot be opened.
    """
    kind = address.partition(":")[0]
    if kind not in STORES:
        raise InputError("No such kind of state", where="state", got=kind, allowed=[f"{name}:…" for name in STORES])
    module, _, name = STORES[kind].partition(":")
    opened: State = getattr(import_module(module), name)(address)
    return opened


def unavailable(where: str, error: object) -> StorageError:
    """What every store raises."""
    return StorageError(
        "The state cannot be read or written",
        where=where,
        got=error,
        hint="Is the disk full, another process holding the file, or the server stopped? Send it again.",
        retryable=True,
    )
