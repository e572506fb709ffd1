"""Around every request: security headers, metrics, and errors as one sentence of JSON."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from retinanet.config import ServeConfig
from retinanet.serve.batching import FullError
from retinanet.serve.metrics import Metrics
from retinanet.serve.schemas import ErrorResponse
from retinanet.serve.uploads import RefusedError, discard

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

CLIENT_GONE: Final = 499
"""Status in the metrics of a request whose client went away; nobody gets to see it."""

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}


def handle_errors(app: FastAPI) -> None:
    """Let the app answer every error with its status and one sentence."""

    def answer(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
        return JSONResponse(ErrorResponse(detail=message).model_dump(), status_code=status, headers=headers)

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)  # noqa: S101
        return answer(error.status, error.message, error.headers)

    async def full(request: Request, error: Exception) -> Response:
        assert isinstance(error, FullError)  # noqa: S101
        config: ServeConfig = request.app.state.config
        await discard(request)
        message = f"all {config.max_queue} places are taken: try again in {error.retry_after} s"
        return answer(503, message, {"retry-after": str(error.retry_after)})

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        await discard(request)
        return answer(422, sentence(error.errors()))

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        return answer(error.status_code, str(error.detail), dict(error.headers or {}))

    async def gone(request: Request, _: Exception) -> Response:
        request.app.state.metrics.gone.inc()
        return Response(status_code=CLIENT_GONE)

    async def group(request: Request, error: Exception) -> Response:
        """Several images of one request: what was wrong with the first."""
        assert isinstance(error, BaseExceptionGroup)  # noqa: S101
        first = error.exceptions[0]
        if isinstance(first, RefusedError):
            return await refused(request, first)
        raise error

    async def broken(_: Request, error: Exception) -> Response:
        return answer(500, "an error in the server; its log says more")  # which uvicorn writes

    app.add_exception_handler(RefusedError, refused)
    app.add_exception_handler(FullError, full)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(ExceptionGroup, group)
    app.add_exception_handler(Exception, broken)


def sentence(faults: Any) -> str:
    """Return what pydantic found as one sentence."""
    said = []
    for fault in faults:
        where = ".".join(str(part) for part in fault["loc"] if part not in {"query", "body"})
        found = f", found {str(fault['input'])[:100]!r}" if fault["type"] != "missing" and "input" in fault else ""
        said.append(f"{where}: {fault['msg'][0].lower()}{fault['msg'][1:]}{found}")
    return "; ".join(said)


class Front:
    """Around everything: headers that every answer has, and the count of answers."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of the ASGI server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [*self._headers]
                if scope["path"].startswith("/v1/"):
                    own.append((b"cache-control", b"no-store"))
                elif not scope["path"].startswith("/metrics"):
                    own.append((b"cache-control", b"no-cache"))
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            known = {"/v1/detect", "/v1/explain", "/v1/model", "/healthz", "/readyz", "/metrics", "/openapi.json"}
            path = scope["path"] if scope["path"] in known else "page"
            self._metrics.requests.labels(path, status).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - start)
