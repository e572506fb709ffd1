"""What the app does for each request: read it, ask the service, and put the answer together."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from retinanet.config import ServeConfig
from retinanet.errors import did_you_mean
from retinanet.predict.draw import draw
from retinanet.serve.explain import explain
from retinanet.serve.front import sentence
from retinanet.serve.schemas import MOST_DETECTIONS, DetectOptions, ExplainOptions, ModelResponse
from retinanet.serve.service import Answer, Asked, Served, Service
from retinanet.serve.uploads import RefusedError, Upload, read_body, to_image, until_gone
from retinanet.version import __version__

R = TypeVar("R")
M = TypeVar("M", bound=BaseModel)


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


async def answer_detect(request: Request, options: DetectOptions) -> Response:
    """Return the detections of the images of a request, as JSON or drawn. Raises `RefusedError`."""
    service, config = _service(request), request.app.state.config
    with service.places.take() as held:
        body = await read_body(request, limit=config.upload_bytes, most_files=config.max_queue)
        options = _with_fields(options, body.fields)
        asked = _asked(service.detector, options)
        kind = options.format or _accepted(request.headers.get("accept", ""))
        if kind != "json" and len(body.uploads) > 1:
            raise RefusedError(422, f"format {kind} draws one image, found {len(body.uploads)}: send one at a time")
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
        content = {"images": [_image(answer, classes) for answer in answers]}
        return Response(json.dumps(content, ensure_ascii=False), media_type="application/json")
    loop = asyncio.get_running_loop()
    drawn = await loop.run_in_executor(service.pool, _draw, service, uploads[0], answers[0], kind)
    return Response(drawn, media_type=f"image/{kind}")


def _image(answer: Answer, classes: tuple[str, ...]) -> dict[str, Any]:
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
    image = to_image(upload, max_pixels=service.config.max_pixels)
    out = io.BytesIO()
    drawn = draw(image, service.detector.named(answer.detections))
    drawn.save(out, format=kind.upper(), **({"quality": 92} if kind == "jpeg" else {"compress_level": 1}))
    return out.getvalue()


async def answer_explain(request: Request, options: ExplainOptions) -> Response:
    """Return what every level scored at a place of the image of a request. Raises `RefusedError`."""
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
            422, f"x, y must lie in the image of {width} x {height} pixels, found {options.x:g}, {options.y:g}"
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


def answer_model(app: FastAPI) -> ModelResponse:
    """Return the model that is served, and the limits."""
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
            "images": config.max_queue,
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
        raise RefusedError(422, sentence(error.errors())) from error


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
