"""The HTTP API and the page, as an ASGI app.

Nothing that a request says is taken for a path or an address. Errors are one sentence as JSON `{"detail": ...}`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import anyio.to_thread
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from retinanet.config import ServeConfig
from retinanet.errors import ConfigError, did_you_mean
from retinanet.predict.draw import draw
from retinanet.serve.batching import FullError
from retinanet.serve.explain import explain
from retinanet.serve.metrics import CONTENT_TYPE, Metrics
from retinanet.serve.schemas import (
    MOST_DETECTIONS,
    DetectOptions,
    DetectResponse,
    ErrorResponse,
    ExplainOptions,
    ExplainResponse,
    ModelResponse,
    Status,
    errors,
)
from retinanet.serve.service import Answer, Asked, Served, Service
from retinanet.serve.uploads import RefusedError, Upload, discard, read_body, to_picture, until_gone
from retinanet.version import __version__

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)
PAGE: Final = Path(__file__).parent / "page"
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

_DRAWN: Final = {"schema": {"type": "string", "format": "binary"}}

_BEARER: Final = HTTPBearer(auto_error=False, description="A key of the server's --api-key-file.")

R = TypeVar("R")
M = TypeVar("M", bound=BaseModel)


def _body(options: type[BaseModel]) -> dict[str, Any]:
    """Return the bodies that are taken, for OpenAPI: raw bytes, or a form, whose text fields are the options again."""
    picture = {"type": "string", "format": "binary"}
    fields = options.model_json_schema()["properties"]
    form = {
        "type": "object",
        "properties": {"file": {"type": "array", "items": picture, "minItems": 1}, **fields},
        "required": ["file"],
        "additionalProperties": False,
    }
    return {
        "requestBody": {
            "required": True,
            "content": {"image/*": {"schema": picture}, "multipart/form-data": {"schema": form}},
        }
    }


def read_keys(path: Path) -> tuple[bytes, ...]:
    """Return the SHA-256 of each key of a file: one a line, empty lines and those that begin with # apart.

    Raises:
        ConfigError: the file cannot be read, or has no key.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"api_key_file {path} cannot be read: {error}") from error
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ConfigError(f"api_key_file {path} has no key: write one a line")
    return tuple(hashlib.sha256(key.encode()).digest() for key in keys)


def create_app(load: Callable[[], Served], config: ServeConfig | None = None, *, name: str = "model") -> FastAPI:
    """Return the app: `POST /v1/detect`, `POST /v1/explain`, `GET /v1/model`, health, metrics, and the page.

    Args:
        load: returns the detector; called when the app starts.
        config: limits.
        name: of the model, for people to read.

    Raises:
        ConfigError: a key file without a key.
    """
    config = config or ServeConfig()
    keys = read_keys(config.api_key_file) if config.api_key_file else ()
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service = Service(load(), config, metrics)
        service.start()
        app.state.service = service
        yield
        app.state.service = None
        await anyio.to_thread.run_sync(service.stop)

    app = FastAPI(
        title="retinanet",
        version=__version__,
        summary="Finds objects in pictures.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.config, app.state.name, app.state.metrics, app.state.service = config, name, metrics, None

    async def with_key(
        request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
    ) -> None:
        # All keys are compared, each in constant time: the time taken tells nothing about any of them.
        digest = hashlib.sha256((given.credentials if given else "").encode()).digest()
        if not sum(hmac.compare_digest(digest, key) for key in keys):
            await discard(request)
            raise RefusedError(
                401,
                "a key is needed: send the header Authorization: Bearer KEY",
                headers={"www-authenticate": "Bearer"},
            )

    secured = [Depends(with_key)] if keys else []
    app.include_router(_api(), dependencies=secured, responses=errors(401) if keys else None)
    app.include_router(_health())
    app.add_api_route("/docs", lambda: RedirectResponse("docs.html"), include_in_schema=False)
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    _handle_errors(app)
    app.add_middleware(_Front, metrics=metrics)
    return app


def _api() -> APIRouter:
    api = APIRouter()
    common = errors(400, 408, 413, 415, 422, 503)

    @api.post(
        "/v1/detect",
        summary="Find objects in one picture or several",
        response_model=DetectResponse,
        responses={200: {"content": {"image/jpeg": _DRAWN, "image/png": _DRAWN}}, **common},
        openapi_extra=_body(DetectOptions),
    )
    async def detect(request: Request, options: Annotated[DetectOptions, Query()]) -> Response:
        """Send the bytes of a picture as the body, or one or several files as a form.

        Several pictures are answered together or, if one of them is refused, not at all. Boxes are in pixels of the
        original pictures, after EXIF rotation.
        """
        return await _detect(request, options)

    @api.post(
        "/v1/explain",
        summary="Why something is found at a place, or is not",
        response_model=ExplainResponse,
        responses=common,
        openapi_extra=_body(ExplainOptions),
    )
    async def explain_place(request: Request, options: Annotated[ExplainOptions, Query()]) -> Response:
        """Send a picture and a place in it: what every level scored there, and which boxes it proposed."""
        return await _explain(request, options)

    @api.get("/v1/model", summary="The model that is served, and the limits")
    async def model(request: Request) -> ModelResponse:
        return _model(request.app)

    @api.get("/metrics", summary="Numbers for Prometheus", response_class=Response)
    async def metrics(request: Request) -> Response:
        return Response(request.app.state.metrics.text(), headers={"content-type": CONTENT_TYPE})

    return api


def _health() -> APIRouter:
    health = APIRouter()

    @health.get("/healthz", summary="The process lives")
    async def healthz() -> Status:
        return Status(status="ok")

    @health.get("/readyz", summary="The model is loaded and pictures are taken", responses=errors(503))
    async def readyz(request: Request) -> Status:
        service = request.app.state.service
        if service is None or not service.running:
            raise RefusedError(503, "not ready")
        return Status(status="ready")

    return health


async def _or_gone(request: Request, work: Awaitable[R]) -> R:
    """Return the result. Raises `ClientDisconnect`, and stops the work, when the client has gone before it is there."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(until_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _detect(request: Request, options: DetectOptions) -> Response:
    service, config = _service(request), request.app.state.config
    with service.places.take() as held:
        body = await read_body(request, limit=config.upload_bytes, most_files=config.max_queue)
        options = _with_fields(options, body.fields)
        asked = _asked(service.detector, options)
        kind = options.format or _accepted(request.headers.get("accept", ""))
        if kind != "json" and len(body.uploads) > 1:
            raise RefusedError(422, f"format {kind} draws one picture, found {len(body.uploads)}: send one at a time")
        held.add(len(body.uploads) - 1)
        return await _or_gone(request, _answer(service, body.uploads, asked, kind))


async def _answer(service: Service, uploads: list[Upload], asked: Asked, kind: str) -> Response:
    if len(uploads) == 1:
        answers = [await service.detect(uploads[0], asked)]
    else:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(service.detect(upload, asked)) for upload in uploads]
        answers = [task.result() for task in tasks]
    classes = service.detector.classes
    if kind == "json":
        content = {"pictures": [_picture(answer, classes) for answer in answers]}
        return Response(json.dumps(content, ensure_ascii=False), media_type="application/json")
    loop = asyncio.get_running_loop()
    drawn = await loop.run_in_executor(service.pool, _draw, service, uploads[0], answers[0], kind)
    return Response(drawn, media_type=f"image/{kind}")


def _picture(answer: Answer, classes: tuple[str, ...]) -> dict[str, Any]:
    found = answer.detections
    return {
        "name": answer.name,
        "width": answer.width,
        "height": answer.height,
        "detections": [
            {
                "box": [round(value, 2) for value in box],
                "score": round(score, 5),
                "class_id": label,
                "class": classes[label],
            }
            for box, score, label in zip(
                found.boxes_D4.tolist(), found.scores_D.tolist(), found.labels_D.tolist(), strict=True
            )
        ],
        "milliseconds": answer.milliseconds,
    }


def _draw(service: Service, upload: Upload, answer: Answer, kind: str) -> bytes:
    image = to_picture(upload, max_pixels=service.config.max_pixels)
    out = io.BytesIO()
    drawn = draw(image, service.detector.named(answer.detections))
    drawn.save(out, format=kind.upper(), **({"quality": 92} if kind == "jpeg" else {"compress_level": 1}))
    return out.getvalue()


async def _explain(request: Request, options: ExplainOptions) -> Response:
    service, config = _service(request), request.app.state.config
    with service.places.take():
        body = await read_body(request, limit=config.upload_bytes, most_files=1)
        options = _with_fields(options, body.fields)
        return await _or_gone(request, _explained(service, body.uploads[0], options))


async def _explained(service: Service, upload: Upload, options: ExplainOptions) -> Response:
    detector = service.detector
    dense, width, height, _ = await service.dense(upload)
    if options.x > width or options.y > height:
        raise RefusedError(
            422, f"x, y must lie in the picture of {width} x {height} pixels, found {options.x:g}, {options.y:g}"
        )

    def told() -> bytes:
        threshold = detector.postprocess_config.score_threshold if options.threshold is None else options.threshold
        content = explain(
            dense,
            x=options.x,
            y=options.y,
            width=width,
            height=height,
            classes=detector.classes,
            threshold=threshold,
            config=detector.postprocess_config,
        )
        return json.dumps(content, ensure_ascii=False).encode()

    content = await asyncio.get_running_loop().run_in_executor(service.pool, told)
    return Response(content, media_type="application/json")


def _model(app: FastAPI) -> ModelResponse:
    detector: Any = app.state.service.detector
    config: ServeConfig = app.state.config
    description = getattr(detector, "description", None)  # an exported model has one
    return ModelResponse(
        name=app.state.name,
        classes=list(detector.classes),
        image_size=detector.image_config.image_size,
        max_size=detector.image_config.max_size,
        tile=detector.tiling.tile or None,
        score_threshold=detector.postprocess_config.score_threshold,
        nms_threshold=detector.postprocess_config.nms_threshold,
        max_detections=detector.postprocess_config.max_detections,
        precision=getattr(description, "precision", None),
        trained_with=getattr(description, "version", None),
        version=__version__,
        limits={  # type: ignore[arg-type]
            "upload_bytes": config.upload_bytes,
            "pixels": config.max_pixels,
            "pictures": config.max_queue,
            "max_detections": MOST_DETECTIONS,
        },
    )


def _service(request: Request) -> Service:
    service: Service | None = request.app.state.service
    if service is None:
        raise RefusedError(503, "not ready", headers={"retry-after": "1"})
    return service


def _with_fields(options: M, fields: dict[str, list[str]]) -> M:
    """Return the options of the address with those of the form's text fields, which are checked alike."""
    if not fields:
        return options
    values: dict[str, Any] = {key: found if key == "classes" else found[-1] for key, found in fields.items()}
    try:
        return type(options).model_validate({**options.model_dump(exclude_unset=True), **values})
    except ValidationError as error:
        raise RefusedError(422, _sentence(error.errors())) from error


def _asked(detector: Served, options: DetectOptions) -> Asked:
    own = detector.postprocess_config
    names = [part for given in options.classes for part in ([given] if given in detector.classes else given.split(","))]
    labels = []
    for name in (name.strip() for name in names):
        if name not in detector.classes:
            known = ", ".join(detector.classes[:20])
            raise RefusedError(
                422, f"classes: the model has no {name[:100]!r}, it has {known}{did_you_mean(name, detector.classes)}"
            )
        labels.append(detector.classes.index(name))
    return Asked(
        threshold=own.score_threshold if options.threshold is None else options.threshold,
        max_detections=options.max_detections or own.max_detections,
        labels=tuple(labels) or None,
    )


def _accepted(header: str) -> str:
    """Return the first kind of answer in an Accept header that there is, else json."""
    kinds = {"application/json": "json", "*/*": "json", "image/jpeg": "jpeg", "image/*": "jpeg", "image/png": "png"}
    named = (part.partition(";")[0].strip().lower() for part in header.split(","))
    return next((kinds[name] for name in named if name in kinds), "json")


def _sentence(faults: Any) -> str:
    """Return what pydantic found as one sentence."""
    said = []
    for fault in faults:
        where = ".".join(str(part) for part in fault["loc"] if part not in {"query", "body"})
        found = f", found {str(fault['input'])[:100]!r}" if fault["type"] != "missing" and "input" in fault else ""
        said.append(f"{where}: {fault['msg'][0].lower()}{fault['msg'][1:]}{found}")
    return "; ".join(said)


def _handle_errors(app: FastAPI) -> None:
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
        return answer(422, _sentence(error.errors()))

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        return answer(error.status_code, str(error.detail), dict(error.headers or {}))

    async def gone(request: Request, _: Exception) -> Response:
        request.app.state.metrics.gone.inc()
        return Response(status_code=CLIENT_GONE)

    async def group(request: Request, error: Exception) -> Response:
        """Several pictures of one request: what was wrong with the first."""
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


class _Front:
    """Around everything: headers that every answer has, and the count of answers."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
