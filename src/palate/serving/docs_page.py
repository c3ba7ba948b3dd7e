"""`/docs` without a CDN: Swagger UI from files in the package."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

_SWAGGER = "swagger-ui-5.35.0"


def add_docs(app: FastAPI) -> None:
    """Serve the OpenAPI page at `/docs`; the app must be made with `docs_url=None, redoc_url=None`."""
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="docs-static")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="Palate API",
            swagger_js_url=f"/static/{_SWAGGER}.js",
            swagger_css_url=f"/static/{_SWAGGER}.css",
            swagger_favicon_url="data:,",
            swagger_ui_parameters={"validatorUrl": None},  # else the page sends the schema to a public validator
        )
