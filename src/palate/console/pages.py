"""The console: read-only pages under `/console`, from the snapshot that the API answers from."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate import __version__
from palate.console import experiments, views
from palate.console.words import environment
from palate.serving.live import Live
from palate.serving.opened import Snapshot

STATIC = Path(__file__).parent / "static"
ECHARTS, HTMX = "vendor/echarts-6.1.0.min.js", "vendor/htmx-4.0.1.min.js"
HEADERS = {
    # No inline script or style, nothing from elsewhere, no frame around us: text of the data stays text.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
LONGEST = 500  # characters of a search
View = dict[str, Any]


def add_console(app: FastAPI, live: Live, trials: Path | None = None) -> None:
    """Mount the console's pages at `/console`, over what is served. They only read, and ask no language model.

    `trials` is a project's folder of experiments and their reports.
    """
    pages = Pages(live, trials)
    routes = [
        Route("/", pages.overview),
        Route("/people", pages.people),
        Route("/people/found", pages.people_found),
        Route("/person", pages.person),
        Route("/interests", pages.interests),
        Route("/interests/panel", pages.panel),
        Route("/items", pages.items),
        Route("/items/found", pages.items_found),
        Route("/item", pages.item),
        Route("/experiments", pages.experiments),
        Route("/experiment", pages.experiment),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    console = Starlette(routes=routes, exception_handlers={HTTPException: pages.failed})
    app.mount("/console", Guarded(console))


class Guarded:
    """Puts the security headers on every answer, files and errors too."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *ours]
            await send(message)

        await self.app(scope, receive, guarded)


class Pages:
    """One method for each page; ids come in the query, so that any text can be an id."""

    def __init__(self, live: Live, trials: Path | None = None) -> None:
        self.live, self.trials = live, trials
        self.templates = environment("palate.console")

    @property
    def snapshot(self) -> Snapshot:
        return self.live.built

    def overview(self, request: Request) -> Response:
        return self._page(request, "overview.html", "run", views.overview(self.snapshot))

    def people(self, request: Request) -> Response:
        return self._page(request, "people.html", "people", views.people(self.snapshot, _asked(request, "q")))

    def people_found(self, request: Request) -> Response:
        return self._page(request, "people_found.html", "people", views.people(self.snapshot, _asked(request, "q")))

    def person(self, request: Request) -> Response:
        draw = _asked(request, "draw")[:6]
        number = int(draw) if draw.isascii() and draw.isdecimal() else 1
        return self._found(
            request, "person.html", "people", "person", lambda id_: views.person(self.snapshot, id_, number)
        )

    def interests(self, request: Request) -> Response:
        number = _asked(request, "node") or "0"
        chosen = views.interest(self.snapshot, number)
        if chosen is None:
            return self._missing(request, "interest", number)
        return self._page(request, "interests.html", "interests", views.interests(self.snapshot) | {"chosen": chosen})

    def panel(self, request: Request) -> Response:
        number = _asked(request, "node")
        chosen = views.interest(self.snapshot, number)
        if chosen is None:
            return self._missing(request, "interest", number)
        return self._page(request, "interest.html", "interests", {"chosen": chosen})

    def items(self, request: Request) -> Response:
        return self._page(request, "items.html", "items", views.items(self.snapshot, _asked(request, "q")))

    def items_found(self, request: Request) -> Response:
        return self._page(request, "items_found.html", "items", views.items(self.snapshot, _asked(request, "q")))

    def item(self, request: Request) -> Response:
        return self._found(request, "item.html", "items", "item", lambda id_: views.item(self.snapshot, id_))

    def experiments(self, request: Request) -> Response:
        return self._page(request, "experiments.html", "experiments", experiments.experiments(self.trials))

    def experiment(self, request: Request) -> Response:
        return self._found(
            request,
            "experiment.html",
            "experiments",
            "experiment",
            lambda id_: experiments.experiment(self.trials, id_),
        )

    async def failed(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
        words = "There is no such page." if status == HTTPStatus.NOT_FOUND else "This page cannot be shown."
        return self._page(request, "missing.html", "", {"words": words, "got": request.url.path[:LONGEST]}, status)

    def _found(self, request: Request, name: str, area: str, kind: str, view: Callable[[str], View | None]) -> Response:
        wanted = request.query_params.get("id", "")
        found = view(wanted)
        return self._missing(request, kind, wanted) if found is None else self._page(request, name, area, found)

    def _missing(self, request: Request, kind: str, wanted: str) -> Response:
        context = {"words": f"This snapshot knows no such {kind}.", "got": wanted[:LONGEST] or "nothing was asked for"}
        return self._page(request, "missing.html", "", context, HTTPStatus.NOT_FOUND)

    def _page(self, request: Request, name: str, area: str, context: View, status: int = HTTPStatus.OK) -> Response:
        html = self.templates.get_template(name).render(
            **context,
            root=request.scope.get("root_path", ""),
            area=area,
            snapshot=self.snapshot,
            version=__version__,
            scripts=(ECHARTS, HTMX, "charts.js", "console.js"),
        )
        return HTMLResponse(html, status)


def _asked(request: Request, name: str) -> str:
    return request.query_params.get(name, "")[:LONGEST]
