"""The HTTP API and the page, as an ASGI app.

Nothing that a request says is taken for a path or an address. Errors are one sentence as JSON `{"detail": ...}`.
"""

from __future__ import annotations

import hashlib
import hmac
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
from retinanet.serve.answers import answer_detect, answer_explain, answer_model
from retinanet.serve.front import Front, handle_errors
from retinanet.serve.metrics import CONTENT_TYPE, Metrics
from retinanet.serve.schemas import (
    DetectOptions,
    DetectResponse,
    ExplainOptions,
    ExplainResponse,
    ModelResponse,
    Status,
    errors,
)
from retinanet.serve.service import Served, Service
from retinanet.serve.uploads import RefusedError, discard
from retinanet.version import __version__

PAGE: Final = Path(__file__).parent / "page"

_DRAWN: Final = {"schema": {"type": "string", "format": "binary"}}

_BEARER: Final = HTTPBearer(auto_error=False, description="A key of the server's --api-key-file.")


def _body(options: type[BaseModel]) -> dict[str, Any]:
    """Return the bodies that are taken, for OpenAPI: raw bytes, or a form, whose text fields are the options again."""
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
        summary="Finds objects in images.",
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
    handle_errors(app)
    app.add_middleware(Front, metrics=metrics)
    return app


def _api() -> APIRouter:
    api = APIRouter()
    common = errors(400, 408, 413, 415, 422, 503)

    @api.post(
        "/v1/detect",
        summary="Find objects in one image or several",
        response_model=DetectResponse,
        responses={200: {"content": {"image/jpeg": _DRAWN, "image/png": _DRAWN}}, **common},
        openapi_extra=_body(DetectOptions),
    )
    async def detect(request: Request, options: Annotated[DetectOptions, Query()]) -> Response:
        """Send the bytes of an image as the body, or one or several files as a form.

        Several images are answered together or, if one of them is refused, not at all. Boxes are in pixels of the
        original images, after EXIF rotation.
        """
        return await answer_detect(request, options)

    @api.post(
        "/v1/explain",
        summary="Why something is found at a place, or is not",
        response_model=ExplainResponse,
        responses=common,
        openapi_extra=_body(ExplainOptions),
    )
    async def explain_place(request: Request, options: Annotated[ExplainOptions, Query()]) -> Response:
        """Send an image and a place in it: what every level scored there, and which boxes it proposed."""
        return await answer_explain(request, options)

    @api.get("/v1/model", summary="The model that is served, and the limits")
    async def model(request: Request) -> ModelResponse:
        return answer_model(request.app)

    @api.get("/metrics", summary="Numbers for Prometheus", response_class=Response)
    async def metrics(request: Request) -> Response:
        return Response(request.app.state.metrics.text(), headers={"content-type": CONTENT_TYPE})

    return api


def _health() -> APIRouter:
    health = APIRouter()

    @health.get("/healthz", summary="The process lives")
    async def healthz() -> Status:
        return Status(status="ok")

    @health.get("/readyz", summary="The model is loaded and images are taken", responses=errors(503))
    async def readyz(request: Request) -> Status:
        service = request.app.state.service
        if service is None or not service.running:
            raise RefusedError(503, "not ready")
        return Status(status="ready")

    return health
