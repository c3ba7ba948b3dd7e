"""The HTTP API over a snapshot and a state: no language model, no training, no torch in the process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader
from pydantic import BaseModel, ConfigDict, Field

from palate import __version__
from palate.data.parse_expression import MAX_LENGTH
from palate.errors import InputError, StorageError
from palate.llm.encoders import Encoder
from palate.serving import describe
from palate.serving.arrivals import Id
from palate.serving.crew import crew
from palate.serving.docs_page import add_docs
from palate.serving.json_bytes import json_response
from palate.serving.live import Live
from palate.serving.live_api import live_routes
from palate.serving.load import load_snapshot
from palate.serving.opened import Snapshot
from palate.serving.operations import Operations
from palate.serving.pipeline import recommend
from palate.serving.pipeline_config import BudgetConfig, PipelineConfig
from palate.serving.plain import Errors, Plain
from palate.serving.running import Running
from palate.serving.slates import Slates, parse_restrict
from palate.serving.stages import Steps
from palate.serving.state import State
from palate.serving.variants import Choose, Variants
from palate.serving.versions import current

MAX_N = 200
MAX_HISTORY = 5000
SLATE = "/recommend/{user_id}"

Count = Annotated[int, Query(ge=1, le=MAX_N, description="items wanted")]
RestrictText = Annotated[
    str | None,
    Query(max_length=MAX_LENGTH, description='as `attr:calm and not seen and year >= 1990 and category = "Drama"`'),
]
_KEY = [Depends(APIKeyHeader(name="X-API-Key", auto_error=False))]  # said in the documentation; asked for at the doors
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

    history: list[Id] = Field(max_length=MAX_HISTORY, description="item ids, oldest first")
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
    operations: Operations | None = None,
) -> FastAPI:
    """The application over a snapshot, or over the current one of a folder; `pipeline` says what slates are made of.

    `choose` is an experiment's: it gives each user a label, which impressions are logged under, and a pipeline.

    With a `state` it takes events and new items (whose texts `encoder` reads, MiniLM by default), and lands events
    and impressions below `landing`. Without one it only reads.

    Routes below `/v1` ask for `X-API-Key` where `api_key` (which may do all) or keys of `operations` are given; health
    and metrics never do. Bad input is a 422 that names the field, an unknown item a 404, an unknown user a 200 with
    popular items.

    Raises:
        InputError: if no snapshot is in use.
        StorageError: naming the file of the snapshot that is damaged.
    """
    live = Live(_opened(current(snapshot_folder)), state, landing, encoder)
    running = Running(live, snapshot_folder, _opened, api_key, operations or Operations())
    app = FastAPI(title="Palate", version=__version__, docs_url=None, redoc_url=None, lifespan=running.lifespan)
    app.state.live, app.state.running = live, running
    app.add_exception_handler(InputError, _input_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(StorageError, _storage_error)
    routes = _routes(live, running, Slates(live, Variants(pipeline, choose), running.meter))
    app.include_router(routes)
    errors: Errors = {InputError: _input_error, StorageError: _storage_error}
    slate = next(each for each in routes.routes if isinstance(each, APIRoute) and each.path == f"/v1{SLATE}")
    app.add_middleware(Plain, start="/v1/recommend/", route=slate, call=slate.endpoint, errors=errors)
    if state is not None:
        app.include_router(live_routes(live), dependencies=_KEY)
    running.add_to(app)
    add_docs(app)
    return app


def _routes(live: Live, running: Running, slates: Slates) -> APIRouter:
    routes = APIRouter(prefix="/v1", dependencies=_KEY)

    async def recommend_user(
        user_id: str,
        n: Count = 10,
        restrict: RestrictText = None,
        explain: bool = True,
        request_id: RequestId = None,
        variant: VariantName = None,
    ) -> Response:
        def steps() -> Steps[Response]:
            snapshot = live.snapshot  # another may be served before the answer is made
            with running.meter.stage("state"):
                past = live.past(user_id, snapshot)
            known = user_id in snapshot.user_nums or past.known
            answer = yield from slates.answer(snapshot, user_id, n, restrict, explain, request_id, variant, past)
            running.sampler.offer(snapshot, user_id, restrict)
            headers = {"X-Palate-Degraded": "state"} if past.degraded else None
            return json_response({"user_id": user_id, "known_user": known, **answer}, headers)

        return await crew().awaited(steps())

    routes.add_api_route(SLATE, recommend_user, response_model=dict[str, Any])

    @routes.post("/recommend", response_model=dict[str, Any])
    async def recommend_history(
        body: HistoryRequest, request_id: RequestId = None, variant: VariantName = None
    ) -> Response:
        def steps() -> Steps[Response]:
            snapshot = live.snapshot
            unknown = [item_id for item_id in body.history if item_id not in snapshot.item_nums]
            history = [snapshot.item_nums[item_id] for item_id in body.history if item_id in snapshot.item_nums]
            items = np.array(history, dtype=np.int32)
            answer = yield from slates.answer(snapshot, items, body.n, body.restrict, body.explain, request_id, variant)
            return json_response({"known_user": False, "unknown_items": unknown, **answer})

        return await crew().awaited(steps())

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
        snapshot = live.snapshot
        if user_id not in snapshot.user_nums:
            raise HTTPException(404, f"unknown user: {user_id}")
        return describe.user(snapshot, user_id)

    @routes.get("/interests")
    def interests() -> dict[str, Any]:
        return describe.interests(live.built)

    @routes.get("/run")
    def run() -> dict[str, Any]:
        built = live.built
        return {"snapshot": built.name, "created": built.manifest["created"], "run": built.run}

    return routes


def _item_num(snapshot: Snapshot, item_id: str) -> int:
    num = snapshot.item_nums.get(item_id)
    if num is None:
        raise HTTPException(404, f"unknown item: {item_id}")
    return num


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


def _opened(path: Path) -> Snapshot:
    snapshot = load_snapshot(path)
    _warm(snapshot)
    return snapshot


def _warm(snapshot: Snapshot) -> None:
    """Build what is built once, so that the first request is not the slow one."""
    patient = PipelineConfig(budget=BudgetConfig(candidates=None, rank=None))  # in this thread, beside slates
    recommend(snapshot, snapshot.by_popularity[:1], 1, config=patient)
    recommend(snapshot, "", 1, config=patient)
    describe.similar(snapshot, 0, 1)
    describe.item(snapshot, snapshot.item_nums[snapshot.item_ids[0]])
