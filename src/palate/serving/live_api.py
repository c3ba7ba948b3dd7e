"""Routes that change what is served: what people did, and items that came."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from palate.errors import InputError
from palate.serving.arrivals import ID, Arrival, Id
from palate.serving.live import Live
from palate.serving.state import Event

AT_ONCE = 1000  # events or items of one request
_AHEAD = 86_400_000_000  # microseconds that a client's clock may be ahead

EventType = Literal[
    "event", "view", "click", "play", "like", "save", "share", "cart", "purchase", "rating", "skip", "hide", "dislike"
]


class EventBody(BaseModel):
    """What a person did. The same `event_id` again is a replay and changes nothing."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    event_id: Id
    user_id: Id
    item_id: Id = Field(description="an item that is not known is kept, and counts once it is")
    event_type: EventType = "event"
    timestamp: AwareDatetime | None = Field(default=None, description="ISO 8601 with a zone; default: now")
    value: float | None = None
    request_id: Id | None = Field(default=None, description="of the slate that led to it")


class EventsBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    events: list[EventBody] = Field(min_length=1, max_length=AT_ONCE)


class ItemsBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    items: list[Arrival] = Field(min_length=1, max_length=AT_ONCE)


def live_routes(live: Live) -> APIRouter:
    """Of a server with a state. A state that is away, locked or full is a 503: nothing was kept."""
    routes = APIRouter(prefix="/v1")
    state = live.state
    assert state is not None

    @routes.post("/events")
    def events(body: EventsBody) -> dict[str, Any]:
        """Durable when answered; the next recommendation of these people rests on it."""
        new = state.add_events([_event(each) for each in body.events])
        known = live.snapshot.item_nums
        unknown = {each.item_id for each in body.events if each.item_id not in known}
        return {"new": new, "replayed": len(body.events) - new, "unknown_items": sorted(unknown)}

    @routes.put("/items")
    def items(body: ItemsBody) -> dict[str, Any]:
        """Served when answered: by vector, labels and leaf. Queued for the language model."""
        changed, own = live.put(body.items)
        return {"changed": changed, "unchanged": len(body.items) - changed - len(own), "in_snapshot": own}

    @routes.delete("/items/{item_id:path}")
    def delete(item_id: Annotated[str, Path(min_length=1, max_length=200, pattern=ID)]) -> dict[str, Any]:
        """Durable when answered: the item is not shown again, by no server and no later snapshot, until it is put."""
        return {"item_id": item_id, "was_served": live.delete(item_id)}

    @routes.get("/state")
    def memory() -> dict[str, Any]:
        """Bytes and rows of the state; items served beside the snapshot, and what could not be served or written."""
        served = live.snapshot.items.height - live.snapshot.n_built
        own = {"new_items": served, "unplaced_items": live.unplaced, "dropped_impressions": live.dropped}
        return {**state.memory(), **own}

    return routes


def _event(body: EventBody) -> Event:
    now = time.time_ns() // 1000
    when = now if body.timestamp is None else _microseconds(body.timestamp)
    if when > now + _AHEAD:
        raise InputError(
            "The event is in the future", where="timestamp", got=body.timestamp, allowed="a day ahead at most"
        )
    return Event(body.event_id, body.user_id, body.item_id, when, body.event_type, body.value, body.request_id)


def _microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)
