"""The labelling page at `/console/label`, and the three calls it makes. The only part of the console that writes.

It listens on this machine alone. What writes asks for our own origin and for a token that no other page can read;
the Host check keeps out names of elsewhere that were re-bound to this machine.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from palate import __version__
from palate.console.label_desk import Desk
from palate.console.pages import STATIC, Guarded
from palate.console.words import environment
from palate.errors import InputError, PalateError
from palate.knowledge.rater_labels import ConflictError

ROOT = "/console"
TOKEN = "x-palate-token"
_LARGEST = 64_000  # bytes of a body
Answer = dict[str, Any] | None


def create_label_app(desk: Desk) -> Starlette:
    pages = LabelPages(desk)
    routes = [
        Route("/label", pages.page),
        Route("/label/state", pages.state),
        Route("/label/picture", pages.picture),
        Route("/label/save", pages.save, methods=["POST"]),
        Route("/label/undo", pages.undo, methods=["POST"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "::1", "[::1]"])
    home = Route("/", lambda request: RedirectResponse(f"{ROOT}/label"))
    return Starlette(routes=[home, Mount(ROOT, Guarded(Starlette(routes=routes)))], middleware=[hosts])


class LabelPages:
    """One method for each address."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.token = desk, secrets.token_urlsafe(24)
        self.template = environment("palate.console").get_template("label.html")

    def page(self, request: Request) -> Response:
        rater = request.query_params.get("rater", "")
        html = self.template.render(root=ROOT, rater=rater, version=__version__, desk=self.desk)
        return HTMLResponse(html)

    def state(self, request: Request) -> Response:
        """Pages of elsewhere may ask for this, but no browser lets them read it: so the token is safe in it."""
        return _answered(lambda: {"token": self.token, **self.desk.state(request.query_params.get("rater", ""))})

    def picture(self, request: Request) -> Response:
        number = request.query_params.get("n", "0")
        wanted = int(number[:6]) if number.isascii() and number.isdecimal() else -1
        found = self.desk.picture(request.query_params.get("id", ""), wanted)
        if found is None:
            return Response(status_code=HTTPStatus.NOT_FOUND)
        return Response(found[0], media_type=found[1])

    async def save(self, request: Request) -> Response:
        return await self._write(request, self.desk.say)

    async def undo(self, request: Request) -> Response:
        return await self._write(request, lambda said: {"undone": self.desk.undo(str(said.get("rater")))})

    async def _write(self, request: Request, work: Callable[[dict[str, Any]], Answer]) -> Response:
        refused = self._refused(request)
        if refused:
            return JSONResponse({"what": refused}, HTTPStatus.FORBIDDEN)
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > _LARGEST:
                return JSONResponse({"what": "The request is too long."}, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return await run_in_threadpool(_answered, lambda: work(_map(body)))

    def _refused(self, request: Request) -> str | None:
        """Why a request that writes is not ours; None: it is."""
        own = f"{request.url.scheme}://{request.headers.get('host', '')}"
        if request.headers.get("origin", own) != own or request.headers.get("sec-fetch-site") in (
            "cross-site",
            "same-site",
        ):
            return "This request comes from another page."
        if not request.headers.get("content-type", "").startswith("application/json"):
            return "Only JSON is taken."
        if not secrets.compare_digest(request.headers.get(TOKEN, "").encode(), self.token.encode()):
            return "The token is missing or of an earlier server."
        return None


def _answered(work: Callable[[], Answer]) -> Response:
    """The answer, or in words what is wrong."""
    try:
        return JSONResponse(work())
    except ConflictError as error:
        now = None if error.now is None else {"label": error.now.label, "comment": error.now.comment}
        return JSONResponse({"what": error.what, "now": now}, HTTPStatus.CONFLICT)
    except InputError as error:
        return JSONResponse({"what": str(error)}, HTTPStatus.UNPROCESSABLE_ENTITY)
    except PalateError as error:
        return JSONResponse({"what": str(error)}, HTTPStatus.INTERNAL_SERVER_ERROR)


def _map(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except ValueError as error:
        raise InputError("This is not JSON.", got=error) from error
    if not isinstance(said, dict):
        raise InputError("A request is a map.", got=type(said).__name__)
    return said
