"""Events and impressions to Kafka topics, behind the answers: each at least once, under its own key."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from palate.errors import InputError, StorageError, printable
from palate.serving.state import Table

SETTINGS = "PALATE_KAFKA_"  # PALATE_KAFKA_SASL_PASSWORD is librdkafka's sasl.password
_PATIENCE = 10.0  # seconds until what is not acknowledged is given up, for now
_FULL = 0.1  # seconds between tries while the client's own queue is full


def settings_of(servers: str, environment: Mapping[str, str]) -> dict[str, str]:
    """librdkafka's, from the environment: security, credentials, compression, whatever it knows."""
    named = {
        name.removeprefix(SETTINGS).lower().replace("_", "."): value
        for name, value in environment.items()
        if name.startswith(SETTINGS)
    }
    return {"bootstrap.servers": servers, **named}


class KafkaSink:
    """Sends rows to the topics `palate.events` and `palate.impressions` as JSON. Thread-safe.

    A row comes at least once: what was not acknowledged by all replicas in time is sent again. The key of an event is
    its `event_id`, that of an impression `request_id:position`, so that a reader, or compaction, keeps one of each.

    Args:
        settings: librdkafka's; see `settings_of`.
        prefix: Of the topics.

    Raises:
        InputError: The client is not installed, or knows no such setting.
    """

    def __init__(self, settings: Mapping[str, str], prefix: str = "palate") -> None:
        try:
            from confluent_kafka import KafkaException, Producer
        except ImportError as error:
            raise InputError("The client of Kafka is not installed.", hint="pip install 'palate[kafka]'") from error
        ours = {"acks": "all", "enable.idempotence": "true", "delivery.timeout.ms": str(int(1000 * _PATIENCE))}
        self._where, self._prefix = f"kafka {settings.get('bootstrap.servers', '')}", prefix
        try:
            self._producer: Any = Producer({**ours, **settings}, logger=None)
        except KafkaException as error:
            got = printable(error.args[0].str() if error.args else error)
            raise InputError("Kafka's client refuses a setting.", where=f"{SETTINGS}…", got=got) from error

    def send(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Return when all of them are acknowledged.

        Raises:
            StorageError: Some are not; send all of them again. Retryable.
        """
        failed: list[str] = []

        def told(error: Any, message: Any) -> None:
            if error is not None:
                failed.append(str(error))

        deadline = time.monotonic() + _PATIENCE
        for row in rows:
            self._produce(table, row, told, deadline)
        waiting = self._producer.flush(_PATIENCE + 1)
        if failed or waiting:
            got = printable(failed[0] if failed else f"{waiting} rows are not acknowledged")
            raise StorageError("Kafka did not take what happened.", where=self._where, got=got, retryable=True)

    def _produce(self, table: Table, row: Mapping[str, Any], told: Any, deadline: float) -> None:
        key = row["event_id"] if table == "events" else f"{row['request_id']}:{row['position']}"
        while True:
            try:
                self._producer.produce(f"{self._prefix}.{table}", _as_json(row), key.encode(), on_delivery=told)
            except BufferError as error:
                if time.monotonic() > deadline:
                    raise StorageError(
                        "Kafka does not take what happened.", where=self._where, got=error, retryable=True
                    ) from error
                self._producer.poll(_FULL)
            else:
                self._producer.poll(0)
                return


def _as_json(row: Mapping[str, Any]) -> bytes:
    """As `POST /v1/events` takes it: the time in ISO 8601."""
    moment = datetime.fromtimestamp(row["timestamp"] / 1e6, UTC).isoformat(timespec="microseconds")
    return json.dumps({**row, "timestamp": moment}, ensure_ascii=False).encode()
