"""OpenTelemetry traces, where they are asked for: nothing is imported, and no span costs anything, before that."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate import __version__
from palate.errors import InputError

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_tracer: Any = None  # of this process
_provider: Any = None


def start_tracing(exporter: Any = None) -> bool:
    """Have spans exported from now on: by `exporter` at once, else in batches over OTLP/HTTP.

    Without an exporter it needs `OTEL_EXPORTER_OTLP_ENDPOINT`, and returns False where that is not set; the SDK reads
    its other settings (`OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, ...) from the environment too.

    Raises:
        InputError: if it is asked for and the SDK is not installed.
    """
    global _provider, _tracer
    if exporter is None and not os.environ.get(ENDPOINT):
        return False
    if importlib.util.find_spec("opentelemetry") is None or importlib.util.find_spec("opentelemetry.sdk") is None:
        raise InputError(
            "Traces need the OpenTelemetry SDK", where=ENDPOINT, hint="pip install 'palate[otel]', or unset it."
        )
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME", "palate")
    provider = TracerProvider(resource=Resource.create({"service.name": name, "service.version": __version__}))
    if exporter is None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    else:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    _provider, _tracer = provider, provider.get_tracer("palate", __version__)
    return True


def stop_tracing() -> None:
    """No more spans; those that wait are sent."""
    global _provider, _tracer  # noqa: PLW0603
    if _provider is not None:
        _provider.shutdown()
    _provider = _tracer = None


@contextmanager
def span(name: str) -> Iterator[None]:
    """A part of the request under way. Never the current span: another thread may end it, in another context."""
    if _tracer is None:
        yield
        return
    from opentelemetry.trace import Status, StatusCode

    part = _tracer.start_span(name)
    try:
        yield
    except Exception as error:
        part.record_exception(error)
        part.set_status(Status(StatusCode.ERROR))
        raise
    finally:
        part.end()


class Traced:
    """A span for every request, a child of the caller's where a `traceparent` came. No paths: ids are people's."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _tracer is None or scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        parent = TraceContextTextMapPropagator().extract(carrier)
        with _tracer.start_as_current_span(scope["method"], context=parent, kind=SpanKind.SERVER) as current:

            async def noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    current.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        current.set_status(Status(StatusCode.ERROR))
                await send(message)

            try:
                await self.app(scope, receive, noting)
            finally:
                route = getattr(scope.get("route"), "path", "unmatched")
                current.update_name(f"{scope['method']} {route}")
                current.set_attribute("http.route", route)
                current.set_attribute("http.request.method", scope["method"])
                current.set_attribute("palate.request_id", scope.get("palate.request_id", ""))
