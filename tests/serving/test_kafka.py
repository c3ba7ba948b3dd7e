"""What happened comes to Kafka: the real client, and the broker that librdkafka brings along for tests."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from palate.errors import InputError, StorageError
from palate.serving import kafka
from palate.serving.kafka import KafkaSink, settings_of
from palate.serving.landing import land
from palate.serving.state import Event, Impression, State, open_state

confluent = pytest.importorskip("confluent_kafka", reason="needs the extra `kafka`")

QUIET = {"log_level": "0"}


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    """The address of a mock broker, that lives as long as the client that holds it."""
    holder = confluent.Producer({"test.mock.num.brokers": "1", **QUIET})
    (found,) = holder.list_topics(timeout=10).brokers.values()
    yield f"{found.host}:{found.port}"
    holder.flush(1)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = open_state(f"sqlite:{tmp_path / 'state.sqlite'}")
    yield opened
    opened.close()


def read(broker: str, topic: str, n: int) -> list[tuple[str, dict[str, object]]]:
    """Key and row of the first `n` messages of a topic's partitions."""
    consumer = confluent.Consumer(
        {"bootstrap.servers": broker, "group.id": str(time.monotonic_ns()), "auto.offset.reset": "earliest", **QUIET}
    )
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([confluent.TopicPartition(topic, number, 0) for number in partitions])
    found = []
    deadline = time.monotonic() + 20
    while len(found) < n and time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            found.append((message.key().decode(), json.loads(message.value())))
    consumer.close()
    return found


def event(number: int, prefix: str = "e") -> Event:
    return Event(f"{prefix}{number}", f"u{number % 3}", "i\u00e9", 1_700_000_000_000_000 + number, "click", 1.5, "r")


def test_events_and_impressions_come_with_their_keys(broker: str, state: State, tmp_path: Path) -> None:
    sink = KafkaSink({"bootstrap.servers": broker, **QUIET}, "one")
    state.add_events([event(n) for n in range(50)])
    state.add_impressions([Impression("r1", "u", "i1", 7, n, "popular", 0.5, "default", None, "s") for n in range(3)])
    assert land(state, tmp_path, sink) == 53
    rows = dict(read(broker, "one.events", 50))
    assert {*rows} == {f"e{n}" for n in range(50)}
    assert rows["e1"] == {
        "event_id": "e1",
        "user_id": "u1",
        "item_id": "i\u00e9",
        "timestamp": "2023-11-14T22:13:20.000001+00:00",
        "event_type": "click",
        "value": 1.5,
        "request_id": "r",
    }
    shown = dict(read(broker, "one.impressions", 3))
    assert {*shown} == {"r1:0", "r1:1", "r1:2"} and shown["r1:2"]["position"] == 2
    assert state.batch("events", 9) is None and state.batch("impressions", 9) is None


def test_while_kafka_is_away_what_happened_stays_and_comes_later(
    broker: str, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "_PATIENCE", 0.3)
    away = KafkaSink({"bootstrap.servers": "127.0.0.1:1", **QUIET}, "two")
    state.add_events([event(n) for n in range(5)])
    with pytest.raises(StorageError) as caught:
        land(state, tmp_path, away)
    assert caught.value.retryable and "127.0.0.1:1" in str(caught.value.where)
    assert state.batch("events", 9) is not None
    state.add_events([event(9)])
    monkeypatch.undo()
    assert land(state, tmp_path, KafkaSink({"bootstrap.servers": broker, **QUIET}, "two")) == 6
    assert sorted(key for key, _ in read(broker, "two.events", 6)) == ["e0", "e1", "e2", "e3", "e4", "e9"]


def test_killed_before_the_state_knows_it_is_sent_again(broker: str, state: State, tmp_path: Path) -> None:
    sink, marked = KafkaSink({"bootstrap.servers": broker, **QUIET}, "three"), state.landed
    state.add_events([event(n) for n in range(4)])
    state.landed = lambda batch: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        land(state, tmp_path, sink)
    state.landed = marked  # type: ignore[method-assign]
    assert land(state, tmp_path, sink) == 4
    keys = [key for key, _ in read(broker, "three.events", 8)]
    assert sorted(keys) == sorted([f"e{n}" for n in range(4)] * 2)  # at least once: the key tells
    assert len([*(tmp_path / "events").glob("*.parquet")]) == 1


def test_a_full_queue_is_waited_for(broker: str) -> None:
    sink = KafkaSink({"bootstrap.servers": broker, "queue.buffering.max.messages": "10", **QUIET}, "four")
    rows = [vars(event(n)) for n in range(200)]
    sink.send("events", rows)
    assert {key for key, _ in read(broker, "four.events", 200)} == {f"e{n}" for n in range(200)}


def test_settings_come_from_the_environment() -> None:
    known = {"PALATE_KAFKA": "a:1", "PALATE_KAFKA_SASL_PASSWORD": "p", "PALATE_KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}
    found = settings_of("a:1,b:2", known)
    assert found == {"bootstrap.servers": "a:1,b:2", "sasl.password": "p", "security.protocol": "SASL_SSL"}
    with pytest.raises(InputError, match="refuses a setting") as caught:
        KafkaSink({"bootstrap.servers": "a:1", "sasl.passwort": "secret"})
    assert "sasl.passwort" in str(caught.value) and "secret" not in str(caught.value)
