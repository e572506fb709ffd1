"""Wrap every request: add security headers, record metrics, and turn exceptions into JSON error answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from retinanet.config import ServeConfig
from retinanet.serve.batching import QueueFullError
from retinanet.serve.metrics import Metrics
from retinanet.serve.schemas import ErrorResponse
from retinanet.serve.uploads import RefusedError, discard

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

CLIENT_GONE: Final = 499
"""Status, in the metrics only, of a request whose client disconnected before the answer was ready."""

METHODS: Final = {
    **dict.fromkeys(("/v1/detect", "/v1/explain"), "POST"),
    **dict.fromkeys(("/v1/model", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"), "GET"),
}
"""Method of each path of the API. A path with GET also takes HEAD, which health probes send."""

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
    """Register the exception handlers of the app. Each answers with an HTTP status and one sentence as JSON."""

    def answer(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
        return JSONResponse(ErrorResponse(detail=message).model_dump(), status_code=status, headers=headers)

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)  # noqa: S101
        return answer(error.status, error.message, error.headers)

    async def queue_full(request: Request, error: Exception) -> Response:
        assert isinstance(error, QueueFullError)  # noqa: S101
        config: ServeConfig = request.app.state.config
        await discard(request)
        message = f"all {config.max_queue} slots (--max-queue) are in use: try again in {error.retry_after} s"
        return answer(503, message, {"retry-after": str(error.retry_after)})

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        await discard(request)
        return answer(422, validation_message(error.errors()))

    async def http_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        return answer(error.status_code, str(error.detail), dict(error.headers or {}))

    async def disconnected(request: Request, _: Exception) -> Response:
        request.app.state.metrics.disconnects.inc()
        return Response(status_code=CLIENT_GONE)

    async def first_of_group(request: Request, error: Exception) -> Response:
        """Answer with the error of the first image that failed in a request of several images."""
        assert isinstance(error, BaseExceptionGroup)  # noqa: S101
        first = error.exceptions[0]
        if isinstance(first, RefusedError):
            return await refused(request, first)
        raise error

    async def internal_error(_: Request, error: Exception) -> Response:
        # uvicorn writes the traceback to the log.
        return answer(500, "internal server error: see the log of the server for its cause")

    app.add_exception_handler(RefusedError, refused)
    app.add_exception_handler(QueueFullError, queue_full)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(ClientDisconnect, disconnected)
    app.add_exception_handler(ExceptionGroup, first_of_group)
    app.add_exception_handler(Exception, internal_error)


def validation_message(errors: Any) -> str:
    """Return the errors that pydantic found as one line: for each, the field, what was expected and what was found."""
    parts = []
    words: dict[str, str] = {}  # of each parameter, the words that it takes beside numbers
    for error in sorted(errors, key=lambda error: error["type"] != "literal_error"):
        place = [part for part in error["loc"] if part not in {"query", "body"}]
        name = ".".join(str(part) for part in place if part == place[0] or isinstance(part, int))
        if error["type"] == "literal_error" and len(place) > 1:
            words[name] = f", or {error['ctx']['expected']}"
            continue  # the error of the number names the word
        found = f", found {str(error['input'])[:100]!r}" if error["type"] != "missing" and "input" in error else ""
        unknown = error["type"] == "extra_forbidden"
        message = "unknown parameter" if unknown else f"{error['msg'][0].lower()}{error['msg'][1:]}"
        parts.append(f"{name}: {message}{words.get(name, '')}{found}")
    return "; ".join(parts)


def _method_not_allowed(allowed: str, found: str) -> Response:
    answer = ErrorResponse(detail=f"expected the method {allowed}, found {found}")
    return JSONResponse(answer.model_dump(), status_code=405, headers={"allow": allowed})


class FrontMiddleware:
    """ASGI middleware that adds the security headers to every answer and records its status and duration."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*self._headers]
                if scope["path"].startswith("/v1/"):
                    headers.append((b"cache-control", b"no-store"))
                elif not scope["path"].startswith("/metrics"):
                    headers.append((b"cache-control", b"no-cache"))
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            await send(message)

        path = scope["path"].rstrip("/")
        if path in METHODS:  # a trailing slash makes no difference
            scope = {**scope, "path": path, "raw_path": path.encode()}
        method = METHODS.get(path)
        is_head = method == "GET" and scope["method"] == "HEAD"  # uvicorn sends no body after HEAD
        app = self._app
        if is_head:
            scope = {**scope, "method": "GET"}
        elif method is not None and scope["method"] != method:
            app = _method_not_allowed("GET, HEAD" if method == "GET" else method, scope["method"])
        try:
            await app(scope, receive, send_with_headers)
        finally:
            path = scope["path"] if scope["path"] in METHODS.keys() - {"/docs"} else "page"
            self._metrics.requests.labels(path, status).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - start)
