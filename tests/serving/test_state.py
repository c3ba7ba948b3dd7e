from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palate.errors import InputError, StorageError
from palate.serving.state import LONGEST_HISTORY, Event, Impression, KeptItem, State, open_state

ITEM = {"item_id": "n1", "title": "New", "text": "", "categories": ["war"], "year": 2024}


@pytest.fixture(scope="module")
def state(address: str) -> Iterator[State]:
    opened = open_state(address)
    yield opened
    opened.close()


def drained(state: State, table: str = "events", at_most: int = 10**6) -> list[dict[str, object]]:
    rows = []
    while (batch := state.batch(table, at_most)) is not None:  # type: ignore[arg-type]
        rows += batch.rows
        state.landed(batch)
    return rows


def event(event_id: str, user_id: str = "u", item_id: str = "i", when: int = 5) -> Event:
    return Event(event_id, user_id, item_id, when, "click", 1.5, "r1")


def test_events_are_read_back_in_order_and_once(state: State, address: str) -> None:
    events = [event(f"a{n}", "ann", f"i{n}", 10 - n) for n in range(4)]
    assert state.add_events(events) == 4
    assert state.add_events([*events[:2], event("a9", "ann")]) == 1
    assert state.add_events([event("a7", "ann"), event("a7", "ann", "other")]) == 1
    found = state.recent("ann")
    assert found[:4] == events
    assert [each.event_id for each in found[4:]] == ["a9", "a7"] and found[5].item_id == "i"
    again = open_state(address)
    assert again.recent("ann") == found
    again.close()
    assert state.recent("nobody") == []


def test_only_the_latest_are_read(state: State) -> None:
    state.add_events([event(f"many{n}", "busy") for n in range(LONGEST_HISTORY + 3)])
    found = state.recent("busy")
    assert (len(found), found[0].event_id) == (LONGEST_HISTORY, "many3")


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=st.lists(st.lists(st.tuples(st.integers(0, 9), st.text(max_size=5)), max_size=6), max_size=5))
def test_whatever_comes_twice_counts_once(state: State, rounds: list[list[tuple[int, str]]]) -> None:
    drained(state)
    run = str(time.monotonic_ns())
    first: dict[str, str] = {}
    for events in rounds:
        new = {f"{run}-{number}" for number, _ in events} - set(first)
        for number, item in events:
            first.setdefault(f"{run}-{number}", item)
        assert state.add_events([event(f"{run}-{number}", run, item) for number, item in events]) == len(new)
    assert {each.event_id: each.item_id for each in state.recent(run)} == first
    assert {row["event_id"]: row["item_id"] for row in drained(state, at_most=3)} == first


def test_threads_together_lose_and_double_nothing(state: State) -> None:
    drained(state)
    counts: list[int] = []

    def send(thread: int) -> None:
        counts.extend(state.add_events([event(f"t{(thread * 13 + n) % 60}", "threads")]) for n in range(30))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [row["event_id"] for row in drained(state)]
    assert len(ids) == len(set(ids)) == sum(counts)


def test_a_batch_comes_again_until_it_has_landed(state: State, address: str) -> None:
    drained(state)
    state.add_events([event(f"b{n}") for n in range(5)])
    first = state.batch("events", 3)
    assert first is not None and [row["event_id"] for row in first.rows] == ["b0", "b1", "b2"]
    state.add_events([event("b5")])
    other = open_state(address)
    assert other.batch("events", 100) == first  # even to who asks for more
    other.landed(first)
    state.landed(first)
    other.close()
    rest = state.batch("events", 100)
    assert rest is not None and [row["event_id"] for row in rest.rows] == ["b3", "b4", "b5"]
    state.landed(rest)
    assert state.batch("events", 100) is None
    assert state.add_events([event("b0")]) == 0  # landed, and remembered all the same
    assert len(state.recent("u")) >= 6


def test_impressions_go_when_they_have_landed(state: State) -> None:
    shown = [Impression("r1", "u", f"i{n}", 7, n, "sequence", 0.5, "default", None, "s") for n in range(3)]
    state.add_impressions(shown)
    rows = drained(state, "impressions")
    assert [(row["item_id"], row["position"], row["propensity"]) for row in rows] == [
        ("i0", 0, None),
        ("i1", 1, None),
        ("i2", 2, None),
    ]
    assert state.memory()["rows"]["impressions"] == 0


def test_a_vector_runs_out_and_belongs_to_its_tag(state: State) -> None:
    vector = np.array([0.5, -1.0], dtype=np.float32)
    state.keep_vectors([("u", "one", vector), ("v", "one", vector)], 60)
    assert np.array_equal(state.vector("u", "one"), vector)
    assert state.vector("u", "two") is None
    state.keep_vectors([("u", "two", vector)], 0.02)
    time.sleep(0.05)
    assert state.vector("u", "two") is None and state.vector("u", "one") is None


def test_items_are_replaced_versioned_and_queued(state: State, address: str) -> None:
    kept = KeptItem(ITEM, "s", [0.5, 1.0], 7, {"calm": 0.25})
    other = KeptItem({**ITEM, "item_id": "n2"}, "s", [1.0, 0.0], 8, {})
    state.put_items([kept, other])
    version, items = state.items()
    assert items == [kept, other] and state.queued() == ["n1", "n2"]
    assert state.items(version) == (version, [])
    changed = KeptItem({**ITEM, "title": "Newer"}, "s", [0.0, 1.0], 7, {})
    state.put_items([changed])
    assert state.items(version)[1] == [changed]
    again = open_state(address)
    assert again.items()[1] == [other, changed]
    again.close()
    state.asked(["n1"])
    assert state.queued() == ["n2"]
    state.asked([])


def test_a_deleted_item_is_kept_as_gone_and_leaves_the_queue(state: State, address: str) -> None:
    kept = KeptItem({**ITEM, "item_id": "d1"}, "s", [0.5, 1.0], 7, {"calm": 0.25})
    gone = KeptItem({"item_id": "d1"}, "", [], -1, {}, gone=True)
    state.put_items([kept])
    version, _ = state.items()
    assert "d1" in state.queued()
    state.put_items([gone])
    assert state.items(version)[1] == [gone] and "d1" not in state.queued()
    other = open_state(address)
    assert gone in other.items()[1] and kept not in other.items()[1]  # another process, or a restart
    other.put_items([kept])
    other.close()
    assert state.items(version)[1] == [kept] and "d1" in state.queued()


def test_the_memory_report(state: State) -> None:
    report = state.memory()
    assert report["bytes"] > 0 and report["durable"] is True
    assert report["rows"]["items"] >= 2


def test_an_old_event_is_forgotten_once_it_has_landed(tmp_path: Path) -> None:
    state = open_state(f"sqlite:{tmp_path / 's'}")
    state.add_events([event("old")])
    later = time.time_ns() // 1000 + 1
    assert state.prune(later) == 0
    drained(state)
    assert state.prune(later) == 1 and state.recent("u") == []
    state.close()


@pytest.mark.parametrize("address", ["mysql://x", "state.sqlite"])
def test_an_address_of_no_store_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="No such kind of state"):
        open_state(address)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read or written") as caught:
        open_state(f"sqlite:{tmp_path}")
    assert caught.value.retryable and caught.value.where == str(tmp_path)
