"""A snapshot and what happened since: histories, new items, and what is written behind the answers."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palate.data.dataset import FloatArray, IntArray
from palate.data.query import Query
from palate.errors import InputError, StorageError
from palate.llm.encoders import Encoder, MiniLMEncoder
from palate.serving.arrivals import Arrival, by_id, gone_item, new_items, place, told_item
from palate.serving.landing import Sink, land, land_items
from palate.serving.load import MeanOfHistory
from palate.serving.metering import Meter
from palate.serving.opened import Snapshot
from palate.serving.state import DAY, KEEP_DAYS, Event, Impression, KeptItem, State

REJECTED = ("skip", "hide", "dislike")  # seen, and not chosen
VECTOR_SECONDS = 3600.0
_LOOK = 1.0  # seconds between looks for items that another process put, and after a failure until the next try
_BEHIND = 0.2  # seconds that impressions and vectors wait for being written together
_LAND = 60.0  # seconds between part files
_REMEMBERED = 10_000  # people whose last known events answer while the state is away
_WAITING = 200_000  # impressions held while they cannot be written; older ones are dropped and counted


@dataclass(frozen=True)
class Past:
    """What a person did since the snapshot. `degraded`: as far as this process knows, for the state is away."""

    since: IntArray
    rejected: IntArray
    known: bool
    degraded: bool = False


_NOTHING = Past(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32), known=False)


class Live:
    """What the API answers from. Without a state nothing is remembered and nothing but the snapshot is served.

    Args:
        built: The snapshot.
        state: What happened since.
        landing: Folder for part files; None: nothing is landed.
        encoder: Of new items' texts; MiniLM by default, loaded when it is first needed.
    """

    def __init__(
        self,
        built: Snapshot,
        state: State | None = None,
        landing: Path | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        self.built = self.snapshot = built
        self.state, self.landing, self.encoder = state, landing, encoder or MiniLMEncoder()
        self.meter: Meter | None = None
        self.sink: Sink | None = None  # of what is landed
        self.dropped = 0  # impressions that could not be written
        self.unplaced: list[str] = []  # items put under another snapshot that this one has no place for
        self._kept: dict[str, KeptItem] = {}  # all that was put or deleted
        self._items: dict[str, KeptItem] = {}  # of these, those served beside the snapshot
        self._version, self._looked, self._away_until, self._away = 0, 0.0, 0.0, False
        self._landed_version = -1
        self._last: OrderedDict[str, list[Event]] = OrderedDict()
        self._impressions: deque[Impression] = deque()
        self._vectors: deque[tuple[str, str, FloatArray]] = deque()
        self._growing, self._remembering, self._stop = threading.Lock(), threading.Lock(), threading.Event()
        work = (self._write, self._land)  # apart: a sink that is away must not keep items waiting
        self._threads = [threading.Thread(target=each, name=each.__name__, daemon=True) for each in work]
        with suppress(StorageError):  # a state that is away now is looked for again
            self.look()

    def start(self) -> None:
        """Write behind the answers, land parts and look for others' items from now on."""
        if self.state is not None:
            for thread in self._threads:
                thread.start()

    def close(self) -> None:
        """Write and land what waits. The state stays open: it is whoever opened it that closes it."""
        self._stop.set()
        for thread in filter(threading.Thread.is_alive, self._threads):
            thread.join()
        with suppress(StorageError):
            self.write_behind()
            self.land()

    def past(self, user_id: str, snapshot: Snapshot | None = None) -> Past:
        """The person's events since the snapshot; the last known ones where the state is away.

        `snapshot` is the one that numbers the items; another may be served before the answer is made.
        """
        snapshot = snapshot or self.snapshot
        if self.state is None:
            return _NOTHING
        if time.monotonic() < self._away_until:
            return self._as_past(user_id, self._last.get(user_id, []), snapshot, degraded=True)
        try:
            events = self.state.recent(user_id)
        except StorageError:
            self._away_until = time.monotonic() + _LOOK  # who asks next does not wait for it
            self._say_away(True)
            return self._as_past(user_id, self._last.get(user_id, []), snapshot, degraded=True)
        if self._away:
            self._say_away(False)
        with self._remembering:
            self._last[user_id] = events
            self._last.move_to_end(user_id)
            if len(self._last) > _REMEMBERED:
                self._last.popitem(last=False)
        return self._as_past(user_id, events, snapshot)

    def encoding(self, user_id: str, snapshot: Snapshot, past: Past) -> Callable[[Query], FloatArray] | None:
        """An encoder that keeps the person's vector in the state; None where that would save nothing."""
        state = self.state
        if state is None or past.degraded or isinstance(snapshot.encoder, MeanOfHistory):
            return None

        def encode(query: Query) -> FloatArray:
            tag = hashlib.sha256(snapshot.name.encode() + query.history.tobytes()).hexdigest()[:16]
            with suppress(StorageError):
                kept = state.vector(user_id, tag)
                if self.meter is not None:
                    self.meter.cached("user_vector", kept is not None)
                if kept is not None:
                    return kept[None]
            vectors = snapshot.encoder.encode([query])
            self._vectors.append((user_id, tag, vectors[0]))
            return vectors

        return encode

    def show(self, impressions: Sequence[Impression]) -> None:
        """Have them written soon; a killed process loses those of the last moment."""
        if self.meter is not None:
            self.meter.shown(impressions)
        if self.state is not None:
            self._impressions.extend(impressions)

    def put(self, arrivals: Sequence[Arrival]) -> tuple[int, list[str]]:
        """Keep and serve new items; how many changed, and which are the snapshot's own.

        Those are kept for the next snapshot, and served as they were learned. One that was deleted is back.

        Raises:
            InputError: as `arrivals.place`.
            StorageError: if they cannot be kept; then they are not served either.
        """
        assert self.state is not None
        built, latest = self.built, {each.item_id: each for each in arrivals}
        own = [each.item_id for each in arrivals if each.item_id in built.item_nums]
        said = {name: self._kept[name].item for name in latest if name in self._kept}
        changed = [each for name, each in latest.items() if said.get(name) != each.model_dump()]
        new = [each for each in changed if each.item_id not in built.item_nums]
        if changed:
            told = [told_item(each) for each in changed if each.item_id in built.item_nums]
            self.state.put_items([*told, *(place(built, new, self.encoder) if new else [])])
            self.look()
        return len(new), own

    def delete(self, item_id: str) -> bool:
        """Never show an item again, until it is put again; whether it was served. What is not served yet will not be.

        Raises:
            StorageError: if that cannot be kept; then it is served as before.
        """
        assert self.state is not None
        self.look()  # another process may have put it a moment ago
        served, kept = item_id in self.snapshot.item_nums, self._kept.get(item_id)
        if kept is None or not kept.gone:
            self.state.put_items([gone_item(item_id)])
            self.look()
        return served

    def look(self) -> None:
        """Serve what this or another process put since the last look."""
        if self.state is None:
            return
        with self._growing:
            version, found = self.state.items(self._version)
            self._kept |= by_id(found)
            for kept in found:
                self._items.pop(kept.item["item_id"], None)
            self._items |= self._placed(self.built, found)
            self._version = version
            if found:
                self.snapshot = self._grown(self.built)

    def swap(self, built: Snapshot) -> None:
        """Answer from another snapshot from now on, with all items that were put and that it does not have itself.

        Those are placed in it first, so that nothing is missing for a moment. Where the state is away they are the
        ones known here, and all of them are looked for again.
        """
        with self._growing:
            version, found = 0, list(self._kept.values())
            if self.state is not None:
                with suppress(StorageError):
                    version, found = self.state.items()
            self.unplaced = []
            self._kept, self._items, self._version = by_id(found), self._placed(built, found), version
            self.built, self.snapshot = built, self._grown(built)

    def _placed(self, built: Snapshot, found: Sequence[KeptItem]) -> dict[str, KeptItem]:
        """By id, those that a snapshot does not have itself."""
        found = [kept for kept in found if not kept.gone and kept.item["item_id"] not in built.item_nums]
        elsewhere = [Arrival(**kept.item | {"vector": None}) for kept in found if kept.snapshot != built.name]
        found = [kept for kept in found if kept.snapshot == built.name] + self._moved(built, elsewhere)
        return by_id(found)

    def _grown(self, built: Snapshot) -> Snapshot:
        gone = [built.item_nums[name] for name, kept in self._kept.items() if kept.gone and name in built.item_nums]
        beside = list(self._items.values())
        return built.with_new(*new_items(built, beside, gone)) if beside or gone else built

    def _moved(self, built: Snapshot, elsewhere: Sequence[Arrival]) -> list[KeptItem]:
        """By their texts: a vector that came with an item was one of the other snapshot's space."""
        try:
            return place(built, elsewhere, self.encoder) if elsewhere else []
        except InputError:
            if len(elsewhere) > 1:
                return [kept for each in elsewhere for kept in self._moved(built, [each])]
            self.unplaced.append(elsewhere[0].item_id)
            return []

    def write_behind(self) -> None:
        """Write the impressions and vectors that wait."""
        if self.state is None:
            return
        while len(self._impressions) > _WAITING:
            self._impressions.popleft()
            self.dropped += 1
            if self.meter is not None:
                self.meter.dropped.inc()
        shown = [self._impressions.popleft() for _ in range(len(self._impressions))]
        vectors = [self._vectors.popleft() for _ in range(len(self._vectors))]
        try:
            if shown:
                self.state.add_impressions(shown)
        except StorageError:
            self._impressions.extendleft(reversed(shown))
            raise
        if vectors:
            self.state.keep_vectors(vectors, VECTOR_SECONDS)

    def land(self) -> int:
        """Write part files, and forget what has been landed long ago."""
        if self.state is None or self.landing is None:
            return 0
        if self._landed_version != (version := self._version):
            land_items(self.state, self.landing)
            self._landed_version = version
        written = land(self.state, self.landing, self.sink)
        self.state.prune(int((time.time() - KEEP_DAYS * DAY) * 1e6))
        return written

    def _say_away(self, away: bool) -> None:
        self._away = away
        if self.meter is not None:
            self.meter.state_away.set(away)

    def _as_past(self, user_id: str, events: Sequence[Event], snapshot: Snapshot, degraded: bool = False) -> Past:
        """Events that the snapshot has too, by item and time, are left out; items that nobody knows as well."""
        own = snapshot.user_nums.get(user_id)
        told: set[tuple[int, int]] = set()
        if own is not None and events:
            histories = snapshot.histories
            told = set(zip(histories.of(own).tolist(), histories.times_of(own).tolist(), strict=True))
        numbered = [(snapshot.item_nums.get(each.item_id, -1), each) for each in events]
        fresh = [(num, each) for num, each in numbered if num >= 0 and (num, each.timestamp) not in told]
        chosen, rejected = (
            np.array([num for num, each in fresh if (each.event_type in REJECTED) is no], dtype=np.int32)
            for no in (False, True)
        )
        return Past(chosen, rejected, known=bool(events), degraded=degraded)

    def _write(self) -> None:
        while not self._stop.wait(_BEHIND):
            with suppress(StorageError):  # away or full: what waits goes on waiting
                self.write_behind()
                if time.monotonic() - self._looked >= _LOOK:
                    self._looked = time.monotonic()
                    self.look()

    def _land(self) -> None:
        while not self._stop.wait(_LAND):
            with suppress(StorageError):
                self.land()
