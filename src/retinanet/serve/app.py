"""Build the ASGI app: the HTTP API and the web page.

No text of a request is used as a file path or a network address. An error answer is the JSON object
`{"detail": "one sentence"}`.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import anyio.to_thread
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from retinanet.config import ServeConfig
from retinanet.errors import ConfigError
from retinanet.files import read_text
from retinanet.serve.answers import answer_detect, answer_explain, answer_model
from retinanet.serve.explain_schemas import ExplainedObjects, ExplainResponse
from retinanet.serve.front import FrontMiddleware, handle_errors
from retinanet.serve.metrics import CONTENT_TYPE, Metrics
from retinanet.serve.schemas import (
    DetectOptions,
    DetectResponse,
    ExplainOptions,
    ModelResponse,
    Status,
    errors,
)
from retinanet.serve.service import ServedDetector, Service
from retinanet.serve.uploads import RefusedError, discard
from retinanet.version import __version__

PAGE: Final = Path(__file__).parent / "page"

_IMAGE_CONTENT: Final = {"schema": {"type": "string", "format": "binary"}}

_BEARER: Final = HTTPBearer(auto_error=False, description="A key of the file given as --api-key-file.")


def _body(options: type[BaseModel]) -> dict[str, Any]:
    """Return the OpenAPI description of a request body: raw bytes, or a form with files and the options as fields."""
    image = {"type": "string", "format": "binary"}
    fields = options.model_json_schema()["properties"]
    form = {
        "type": "object",
        "properties": {"file": {"type": "array", "items": image, "minItems": 1}, **fields},
        "required": ["file"],
        "additionalProperties": False,
    }
    return {
        "requestBody": {
            "required": True,
            "content": {"image/*": {"schema": image}, "multipart/form-data": {"schema": form}},
        }
    }


def read_keys(path: Path) -> tuple[bytes, ...]:
    """Return the SHA-256 digest of each key in a key file.

    Args:
        path: text file with one key per line. Empty lines and lines that begin with # are ignored.

    Raises:
        ConfigError: the file cannot be read, or contains no key.
    """
    try:
        lines = [line.strip() for line in read_text(path).splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"api_key_file {path} cannot be read: {error}") from error
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ConfigError(f"api_key_file {path} contains no key: write one key per line")
    return tuple(hashlib.sha256(key.encode()).digest() for key in keys)


def create_app(
    load: Callable[[], ServedDetector],
    config: ServeConfig | None = None,
    *,
    name: str = "model",
    server_id: str | None = None,
) -> FastAPI:
    """Return the app: `POST /v1/detect`, `POST /v1/explain`, `GET /v1/model`, health checks, metrics and web page.

    Args:
        load: function that returns the detector. The app calls `load` when it starts.
        config: limits and key file of the server.
        name: name of the model, shown to users.
        server_id: identifier of this start of the server, equal in all its processes. Default: a random identifier.

    Raises:
        ConfigError: the key file cannot be read, or contains no key.
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
        summary="Detect objects in images.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.config, app.state.name, app.state.metrics, app.state.service = config, name, metrics, None
    app.state.server_id = server_id or secrets.token_hex(8)

    async def require_key(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
    ) -> None:
        # All keys are compared, each in constant time, so that the response time reveals nothing about the keys.
        digest = hashlib.sha256((credentials.credentials if credentials else "").encode()).digest()
        if not sum(hmac.compare_digest(digest, key) for key in keys):
            await discard(request)
            raise RefusedError(
                401,
                "expected a valid API key: send the header Authorization: Bearer KEY",
                headers={"www-authenticate": "Bearer"},
            )

    secured = [Depends(require_key)] if keys else []
    app.include_router(_api(), dependencies=secured, responses=errors(401) if keys else None)
    app.include_router(_health())
    app.add_api_route("/docs", lambda: RedirectResponse("docs.html"), include_in_schema=False)
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    handle_errors(app)
    app.add_middleware(FrontMiddleware, metrics=metrics)
    return app


def _api() -> APIRouter:
    api = APIRouter()
    common = errors(400, 408, 413, 415, 422, 503)

    @api.post(
        "/v1/detect",
        summary="Detect objects in one or several images",
        response_model=DetectResponse,
        responses={200: {"content": {"image/jpeg": _IMAGE_CONTENT, "image/png": _IMAGE_CONTENT}}, **common},
        openapi_extra=_body(DetectOptions),
    )
    async def detect(request: Request, options: Annotated[DetectOptions, Query()]) -> Response:
        """Send the bytes of one image as the request body, or one or several image files as a form.

        The answer covers all images of the request. If one image is refused, the whole request is refused. Boxes are
        in pixels of the original image after EXIF rotation.
        """
        return await answer_detect(request, options)

    @api.post(
        "/v1/explain",
        summary="Explain why objects, or a place, are detected or not",
        response_model=ExplainedObjects | ExplainResponse,
        responses=common,
        openapi_extra=_body(ExplainOptions),
    )
    async def explain(request: Request, options: Annotated[ExplainOptions, Query()]) -> Response:
        """Send one image, and objects that should be in it (`box` and `class`), or a place (`x` and `y`), or both.

        For objects, the answer contains the one cause for which each object is missed. For a place, it contains the
        object that the place suggests, with its cause, and the scores and boxes of every feature level at the place.
        Objects that are sent with a place are its neighbours: a detection of a neighbour does not count as the
        suggested object.
        """
        return await answer_explain(request, options)

    @api.get("/v1/model", summary="Return the properties of the model and the limits of the server")
    async def model(request: Request) -> ModelResponse:
        return answer_model(request.app)

    @api.get("/metrics", summary="Return metrics in Prometheus' text format", response_class=Response)
    async def metrics(request: Request) -> Response:
        return Response(request.app.state.metrics.text(), headers={"content-type": CONTENT_TYPE})

    return api


def _health() -> APIRouter:
    health = APIRouter()

    @health.get("/healthz", summary="Return 200 while the process runs")
    async def healthz() -> Status:
        return Status(status="ok")

    @health.get(
        "/readyz", summary="Return 200 while the model is loaded and the server accepts images", responses=errors(503)
    )
    async def readyz(request: Request) -> Status:
        service = request.app.state.service
        if service is None or not service.running:
            raise RefusedError(503, "the server is not ready: it is starting or stopping")
        return Status(status="ready")

    return health
