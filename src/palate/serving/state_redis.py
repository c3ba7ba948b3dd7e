"""State in Redis or Valkey: for servers on several hosts. One node or primary; its keys begin with "palate:"."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np

from palate.data.dataset import FloatArray
from palate.errors import InputError
from palate.serving.state import (
    DAY,
    KEEP_DAYS,
    LANDED,
    LONGEST_HISTORY,
    Batch,
    Event,
    Impression,
    KeptItem,
    Table,
    unavailable,
)

P = "palate:"
_CONNECT, _ANSWER = 0.3, 1.0  # seconds that are waited

# The server runs a script as one step: all or nothing, and nobody sees half of it.
_ADD = f"""
local new = 0
for i = 3, #ARGV do
  local event = cjson.decode(ARGV[i])
  if redis.call('SET', '{P}id:' .. event.event_id, 1, 'NX', 'EX', ARGV[1]) then
    local own = '{P}user:' .. event.user_id
    redis.call('XADD', '{P}events', '*', 'row', ARGV[i])
    redis.call('RPUSH', own, ARGV[i])
    redis.call('LTRIM', own, -tonumber(ARGV[2]), -1)
    redis.call('EXPIRE', own, ARGV[1])
    new = new + 1
  end
end
return new
"""
_PUT = f"""
for i = 2, #ARGV, 2 do
  redis.call('HSET', '{P}items', ARGV[i], ARGV[i + 1])
  redis.call('ZADD', '{P}versions', redis.call('INCR', '{P}version'), ARGV[i])
  if cjson.decode(ARGV[i + 1]).gone then
    redis.call('ZREM', '{P}llm_queue', ARGV[i])
  else
    redis.call('ZADD', '{P}llm_queue', ARGV[1], ARGV[i])
  end
end
"""
_BATCH = f"""
local stream, reserved = '{P}' .. ARGV[1], '{P}reserved:' .. ARGV[1]
local last = redis.call('GET', reserved)
if last then return redis.call('XRANGE', stream, '-', last) end
local rows = redis.call('XRANGE', stream, '-', '+', 'COUNT', ARGV[2])
if #rows > 0 then redis.call('SET', reserved, rows[#rows][1]) end
return rows
"""
_LANDED = f"""
local reserved = '{P}reserved:' .. ARGV[1]
if redis.call('GET', reserved) == ARGV[2] then
  redis.call('XTRIM', '{P}' .. ARGV[1], 'MINID', ARGV[3])
  redis.call('DEL', reserved)
end
"""


class RedisState:
    """See `State`. Histories and event ids run out by themselves after `KEEP_DAYS`.

    What is acknowledged survives a power cut of the server as far as its `appendfsync` says; `memory()["durable"]`
    is true where that is `always`. Events wait in a stream until they are landed, so its `maxmemory-policy` must not be
    one that evicts all keys.

    Args:
        address: `redis://HOST:PORT/DB`, `rediss://` with TLS.

    Raises:
        InputError: if the package `redis` is not installed.
    """

    def __init__(self, address: str) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise InputError("The client of Redis is not installed", hint="pip install 'palate[redis]'") from error
        self._error = redis.RedisError
        # One try again: after a restart of the server the first use of a kept connection fails.
        self._db: Any = redis.Redis.from_url(
            address, socket_connect_timeout=_CONNECT, socket_timeout=_ANSWER, retry=Retry(NoBackoff(), 1)
        )
        known = self._db.get_connection_kwargs()
        self._where = f"redis {known.get('host', '')}:{known.get('port', '')}"  # never the password
        self._run: Callable[..., Any] = self._db.eval

    def add_events(self, events: Sequence[Event]) -> int:
        rows = [json.dumps(asdict(event)) for event in events]
        with self._asking():
            return int(self._run(_ADD, 0, int(KEEP_DAYS * DAY), LONGEST_HISTORY, *rows))

    def recent(self, user_id: str) -> list[Event]:
        with self._asking():
            return [Event(**json.loads(row)) for row in self._db.lrange(f"{P}user:{user_id}", 0, -1)]

    def add_impressions(self, impressions: Sequence[Impression]) -> None:
        with self._asking():
            pipe = self._db.pipeline()
            for impression in impressions:
                pipe.xadd(f"{P}impressions", {"row": json.dumps(impression._asdict())})
            pipe.execute()

    def vector(self, user_id: str, tag: str) -> FloatArray | None:
        with self._asking():
            kept = self._db.hget(f"{P}vector:{user_id}", tag)
        return None if kept is None else np.frombuffer(kept, dtype=np.float32)

    def keep_vectors(self, vectors: Sequence[tuple[str, str, FloatArray]], seconds: float) -> None:
        with self._asking():
            pipe = self._db.pipeline()
            for user_id, tag, vector in vectors:
                key = f"{P}vector:{user_id}"
                pipe.delete(key)
                pipe.hset(key, tag, vector.astype(np.float32).tobytes())
                pipe.pexpire(key, max(1, int(1000 * seconds)))
            pipe.execute()

    def put_items(self, items: Sequence[KeptItem]) -> None:
        rows = [part for kept in items for part in (kept.item["item_id"], json.dumps(kept.as_dict()))]
        with self._asking():
            self._run(_PUT, 0, time.time(), *rows)

    def items(self, after: int = 0) -> tuple[int, list[KeptItem]]:
        with self._asking():
            found = self._db.zrangebyscore(f"{P}versions", f"({after}", "+inf", withscores=True)
            rows = self._db.hmget(f"{P}items", [item_id for item_id, _ in found]) if found else []
        return (int(found[-1][1]) if found else after), [KeptItem(**json.loads(row)) for row in rows]

    def queued(self) -> list[str]:
        with self._asking():
            return [item_id.decode() for item_id in self._db.zrange(f"{P}llm_queue", 0, -1)]

    def asked(self, item_ids: Sequence[str]) -> None:
        if item_ids:
            with self._asking():
                self._db.zrem(f"{P}llm_queue", *item_ids)

    def batch(self, table: Table, at_most: int) -> Batch | None:
        """Which rows are next is written down as they are given out, so that a killed flush is done again alike."""
        with self._asking():
            found = self._run(_BATCH, 0, table, at_most)
        if not found:
            return None
        rows = [json.loads(pairs[1]) for _, pairs in found]
        dicts = [{name: row[name] for name in LANDED[table]} for row in rows]
        return Batch(table, found[0][0].decode(), found[-1][0].decode(), dicts)

    def landed(self, batch: Batch) -> None:
        milliseconds, _, number = batch.last.partition("-")
        with self._asking():
            self._run(_LANDED, 0, batch.table, batch.last, f"{milliseconds}-{int(number) + 1}")

    def prune(self, before: int) -> int:
        return 0  # what is old runs out by itself

    def memory(self) -> dict[str, Any]:
        with self._asking():
            used = self._db.info("memory")["used_memory"]
            rows = {
                "events": self._db.xlen(f"{P}events"),
                "impressions": self._db.xlen(f"{P}impressions"),
                "items": self._db.hlen(f"{P}items"),
                "llm_queue": self._db.zcard(f"{P}llm_queue"),
            }
            durability = self._db.info("persistence").get("aof_enabled")
            always = bool(durability) and self._db.config_get("appendfsync").get("appendfsync") == "always"
        return {"store": "redis", "bytes": used, "rows": rows, "durable": always}

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            raise unavailable(self._where, error) from error
