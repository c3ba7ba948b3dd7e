"""The HTTP API over a snapshot and a state: no language model, no training, no torch in the process."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Thread
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from palate import __version__
from palate.data.parse_expression import MAX_LENGTH
from palate.errors import InputError, StorageError
from palate.llm.encoders import Encoder
from palate.serving import describe
from palate.serving.docs_page import add_docs
from palate.serving.json_bytes import json_response
from palate.serving.live import Live
from palate.serving.live_api import live_routes
from palate.serving.load import Snapshot, load_snapshot
from palate.serving.metering import Measured, Meter
from palate.serving.pipeline import recommend
from palate.serving.pipeline_config import PipelineConfig
from palate.serving.slates import OnSlate, Slates, parse_restrict
from palate.serving.state import State
from palate.serving.variants import Choose, Variants
from palate.serving.versions import current

MAX_N = 200
MAX_HISTORY = 5000

Count = Annotated[int, Query(ge=1, le=MAX_N, description="items wanted")]
RestrictText = Annotated[
    str | None,
    Query(max_length=MAX_LENGTH, description='as `attr:calm and not seen and year >= 1990 and category = "Drama"`'),
]
RequestId = Annotated[str | None, Header(alias="X-Request-ID", max_length=200, pattern=r"^[!-~]+$")]
VariantName = Annotated[
    str | None,
    Header(
        alias="X-Palate-Variant", max_length=200, description="a variant of palate.yaml, to look at; logged as such"
    ),
]


class HistoryRequest(BaseModel):
    """A history instead of a user."""

    model_config = ConfigDict(extra="forbid")

    history: list[str] = Field(max_length=MAX_HISTORY, description="item ids, oldest first")
    n: int = Field(default=10, ge=1, le=MAX_N)
    restrict: str | None = Field(default=None, max_length=MAX_LENGTH)
    explain: bool = True


def create_app(
    snapshot_folder: Path,
    api_key: str | None = None,
    pipeline: PipelineConfig | None = None,
    state: State | None = None,
    landing: Path | None = None,
    encoder: Encoder | None = None,
    choose: Choose | None = None,
    on_slate: OnSlate | None = None,
) -> FastAPI:
    """The application over a snapshot, or over the current one of a folder; `pipeline` says what slates are made of.

    `choose` is an experiment's: it gives each user a label, which impressions are logged under, and a pipeline.
    `on_slate` is told the label and the slate of every answer: sources, seconds of the stages, what was gone without.

    With a `state` it takes events and new items (whose texts `encoder` reads, MiniLM by default), and lands events
    and impressions below `landing`. Without one it only reads.

    Routes below `/v1` ask for `X-API-Key` where `api_key` is given; health and metrics never do. Bad input is a
    422 that names the field, an unknown item a 404, an unknown user a 200 with popular items.

    Raises:
        InputError: if no snapshot is in use.
        StorageError: naming the file of the snapshot that is damaged.
    """
    snapshot = load_snapshot(current(snapshot_folder))
    _warm(snapshot)
    live = Live(snapshot, state, landing, encoder)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        live.start()
        yield
        live.close()

    app = FastAPI(title="Palate", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.snapshot, app.state.live = snapshot, live
    app.state.meter = Meter()
    app.add_middleware(Measured, meter=app.state.meter)
    app.add_exception_handler(InputError, _input_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(StorageError, _storage_error)
    app.include_router(_routes(live, api_key, Slates(live, Variants(pipeline, choose), on_slate)))
    if state is not None:
        app.include_router(live_routes(live), prefix="/v1", dependencies=[Depends(_guard(api_key))])
    app.include_router(_health(snapshot, app.state.meter))
    add_docs(app)
    return app


def _routes(live: Live, api_key: str | None, slates: Slates) -> APIRouter:
    routes = APIRouter(prefix="/v1", dependencies=[Depends(_guard(api_key))])

    @routes.get("/recommend/{user_id}", response_model=dict[str, Any])
    def recommend_user(
        user_id: str,
        n: Count = 10,
        restrict: RestrictText = None,
        explain: bool = True,
        request_id: RequestId = None,
        variant: VariantName = None,
    ) -> Response:
        snapshot, past = live.snapshot, live.past(user_id)
        known = user_id in live.built.user_nums or past.known
        answer = slates.answer(snapshot, user_id, n, restrict, explain, request_id, variant, past)
        headers = {"X-Palate-Degraded": "state"} if past.degraded else None
        return json_response({"user_id": user_id, "known_user": known, **answer}, headers)

    @routes.post("/recommend", response_model=dict[str, Any])
    def recommend_history(body: HistoryRequest, request_id: RequestId = None, variant: VariantName = None) -> Response:
        snapshot = live.snapshot
        unknown = [item_id for item_id in body.history if item_id not in snapshot.item_nums]
        history = [snapshot.item_nums[item_id] for item_id in body.history if item_id in snapshot.item_nums]
        items = np.array(history, dtype=np.int32)
        answer = slates.answer(snapshot, items, body.n, body.restrict, body.explain, request_id, variant)
        return json_response({"known_user": False, "unknown_items": unknown, **answer})

    @routes.get("/items/{item_id}")
    def item(item_id: str) -> dict[str, Any]:
        snapshot = live.snapshot
        return describe.item(snapshot, _item_num(snapshot, item_id))

    @routes.get("/items/{item_id}/similar")
    def similar(item_id: str, n: Count = 10, restrict: RestrictText = None) -> dict[str, Any]:
        snapshot = live.snapshot
        num = _item_num(snapshot, item_id)
        return describe.similar(snapshot, num, n, parse_restrict(restrict, snapshot))

    @routes.get("/users/{user_id}")
    def user(user_id: str) -> dict[str, Any]:
        if user_id not in live.built.user_nums:
            raise HTTPException(404, f"unknown user: {user_id}")
        return describe.user(live.built, user_id)

    @routes.get("/interests")
    def interests() -> dict[str, Any]:
        return describe.interests(live.built)

    @routes.get("/run")
    def run() -> dict[str, Any]:
        built = live.built
        return {"snapshot": built.name, "created": built.manifest["created"], "run": built.run}

    return routes


def _health(snapshot: Snapshot, meter: Meter) -> APIRouter:
    routes = APIRouter()

    @routes.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @routes.get("/health/ready")
    async def ready() -> dict[str, str]:
        return {"status": "ok", "snapshot": snapshot.name}

    @routes.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(meter.text(), media_type="text/plain; version=0.0.4")

    return routes


def _item_num(snapshot: Snapshot, item_id: str) -> int:
    num = snapshot.item_nums.get(item_id)
    if num is None:
        raise HTTPException(404, f"unknown item: {item_id}")
    return num


def _guard(api_key: str | None) -> Callable[..., None]:
    def check(x_api_key: Annotated[str | None, Header()] = None) -> None:
        if api_key is not None and not secrets.compare_digest((x_api_key or "").encode(), api_key.encode()):
            raise HTTPException(401, "X-API-Key is missing or wrong")

    return check


async def _input_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, InputError)
    detail = {"field": error.where, "what": error.what, "got": str(error.got), "allowed": str(error.allowed)}
    return JSONResponse({"detail": [detail]}, status_code=422)


async def _storage_error(request: Request, error: Exception) -> JSONResponse:
    """Where the state lies is not told to clients."""
    assert isinstance(error, StorageError)
    detail = {"what": error.what, "got": str(error.got), "hint": error.hint}
    return JSONResponse({"detail": [detail]}, status_code=503, headers={"Retry-After": "1"})


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    detail = [{"field": ".".join(map(str, e["loc"][1:])) or e["loc"][0], "what": e["msg"]} for e in error.errors()]
    return JSONResponse({"detail": detail}, status_code=422)


def _warm(snapshot: Snapshot) -> None:
    """Build what is built once, so that the first request is not the slow one."""
    recommend(snapshot, snapshot.by_popularity[:1], 1)
    recommend(snapshot, "", 1)
    describe.similar(snapshot, 0, 1)
    describe.item(snapshot, snapshot.item_nums[snapshot.item_ids[0]])
    # Seconds where it was never done on this machine; until it is, answers are the same and slower.
    Thread(target=snapshot.index.main.compile, name="compile", daemon=True).start()
