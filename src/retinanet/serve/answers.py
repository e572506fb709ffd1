"""Answer each request of the API: read its body, run the detector, and build the response."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from retinanet.class_styles import class_styles
from retinanet.config import PredictConfig, ServeConfig
from retinanet.errors import ConfigError
from retinanet.images import tiles
from retinanet.predict.draw import draw
from retinanet.serve.explain_objects import explain_objects, explain_place
from retinanet.serve.front import validation_message
from retinanet.serve.marked_objects import MarkedObjects
from retinanet.serve.schemas import MAX_DETECTIONS, DetectOptions, ExplainOptions, Limits, ModelResponse, Style, Tuned
from retinanet.serve.service import DetectSettings, ImageDetections, ServedDetector, Service
from retinanet.serve.settings import detect_settings, postprocess_config, threshold_of
from retinanet.serve.uploads import RefusedError, Upload, read_body, to_image, wait_for_disconnect
from retinanet.version import __version__

LISTS: Final = ("classes", "box", "class")
"""Form fields that may be repeated. Of other fields, the last value counts."""
R = TypeVar("R")
M = TypeVar("M", bound=BaseModel)


async def _unless_disconnected(request: Request, work: Awaitable[R]) -> R:
    """Return the result of `work`. If the client disconnects first, cancel `work` and raise `ClientDisconnect`."""
    task = asyncio.ensure_future(work)
    disconnect = asyncio.ensure_future(wait_for_disconnect(request))
    try:
        await asyncio.wait({task, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        disconnect.cancel()
        await asyncio.gather(task, disconnect, return_exceptions=True)


async def answer_detect(request: Request, options: DetectOptions) -> Response:
    """Return the detections in the images of a request, as JSON or as a drawn image.

    Raises:
        RefusedError: the request is invalid or too large.
        QueueFullError: all slots are in use.
    """
    service, config = _service(request), request.app.state.config
    with service.slots.hold() as held:
        body = await read_body(request, limit=config.upload_bytes, max_files=config.max_queue)
        options = _with_fields(options, body.fields)
        settings = detect_settings(service.detector, options)
        answer_format = options.format or _accepted_format(request.headers.get("accept", ""))
        if answer_format != "json" and len(body.uploads) > 1:
            raise RefusedError(
                422,
                f"format {answer_format}: expected one image per request, found {len(body.uploads)}. "
                "Send each image in a request of its own, or use format json",
            )
        held.add(len(body.uploads) - 1)
        return await _unless_disconnected(request, _detect(service, body.uploads, settings, answer_format))


async def _detect(service: Service, uploads: list[Upload], settings: DetectSettings, answer_format: str) -> Response:
    if len(uploads) == 1:
        results = [await service.detect(uploads[0], settings)]
    else:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(service.detect(upload, settings)) for upload in uploads]
        results = [task.result() for task in tasks]
    if answer_format == "json":
        images = json.dumps([_to_json(result, service.detector.classes) for result in results], ensure_ascii=False)
        # The deprecated field "pictures" repeats the text of "images", which is encoded only once.
        return Response(f'{{"images": {images}, "pictures": {images}}}', media_type="application/json")
    loop = asyncio.get_running_loop()
    drawn = await loop.run_in_executor(service.pool, _draw, service, uploads[0], results[0], answer_format)
    return Response(drawn, media_type=f"image/{answer_format}")


def _to_json(result: ImageDetections, classes: tuple[str, ...]) -> dict[str, Any]:
    detections = result.detections
    return {
        "name": result.name,
        "width": result.width,
        "height": result.height,
        "detections": [
            {
                "box": [round(value, 2) for value in box],
                "score": round(score, 5),
                "class_id": label,
                "class": classes[label],
            }
            for box, score, label in zip(
                detections.boxes_D4.tolist(), detections.scores_D.tolist(), detections.labels_D.tolist(), strict=True
            )
        ],
        "milliseconds": result.milliseconds,
    }


def _draw(service: Service, upload: Upload, result: ImageDetections, image_format: str) -> bytes:
    image = to_image(upload, max_pixels=service.config.max_pixels)
    out = io.BytesIO()
    drawn = draw(image, service.detector.named(result.detections), classes=service.detector.classes)
    options = {"quality": 92} if image_format == "jpeg" else {"compress_level": 1}
    drawn.save(out, format=image_format.upper(), **options)
    return out.getvalue()


async def answer_explain(request: Request, options: ExplainOptions) -> Response:
    """Return why each object that a request marks is missed, or the scores and boxes at a place of its image.

    Raises:
        RefusedError: the request is invalid or too large.
        QueueFullError: all slots are in use.
    """
    service, config = _service(request), request.app.state.config
    with service.slots.hold():
        body = await read_body(request, limit=config.upload_bytes, max_files=1)
        options = _with_fields(options, body.fields)
        _check_place_or_objects(options)
        return await _unless_disconnected(request, _explain(service, body.uploads[0], options))


async def _explain(service: Service, upload: Upload, options: ExplainOptions) -> Response:
    detector, x, y = service.detector, options.x, options.y
    config = postprocess_config(detector, options.agnostic_nms)
    config = dataclasses.replace(config, max_detections=options.max_detections or config.max_detections)
    threshold = threshold_of(detector, options.threshold)
    marked = MarkedObjects.parse(options.box, options.class_, detector.classes)
    dense, width, height, _ = await service.dense(upload)
    marked.check_inside(width, height)
    settings: dict[str, Any] = {"detector": detector, "threshold": threshold, "config": config}
    work: Callable[[], dict[str, Any]]
    if x is not None and y is not None:
        if x > width or y > height:
            raise RefusedError(
                422, f"x, y: expected a place in the image of {width} x {height} pixels, found {x:g}, {y:g}"
            )
        is_whole = _tiles(detector, width, height) == 1
        place: dict[str, Any] = {"x": x, "y": y, "width": width, "height": height, "with_object": is_whole}
        work = partial(explain_place, dense, marked, **place, **settings)
    else:
        _check_untiled(detector, width, height)
        work = partial(explain_objects, dense, marked, **settings)
    try:
        content = await asyncio.get_running_loop().run_in_executor(
            service.pool, lambda: json.dumps(work(), ensure_ascii=False).encode()
        )
    except ConfigError as error:
        raise RefusedError(422, str(error)) from error
    return Response(content, media_type="application/json")


def _check_place_or_objects(options: ExplainOptions) -> None:
    """Raise `RefusedError` 422 unless the options hold a place, objects, or both."""
    values = {"x": options.x, "y": options.y, "box": options.box, "class": options.class_}
    found = [name for name, value in values.items() if value not in (None, [])]
    if found not in (["x", "y"], ["box", "class"], ["x", "y", "box", "class"]):
        raise RefusedError(
            422,
            f"expected x and y, or box and class, or all of them, found {', '.join(found) or 'none of these'}: give a "
            "place of the image, or the box and the class of an object",
        )


def _tiles(detector: ServedDetector, width: int, height: int) -> int:
    """Return the number of tiles that detection cuts an image into."""
    tile = detector.tiling.tile
    return len(tiles(width, height, tile=tile, overlap=detector.tiling.overlap)) if tile else 1


def _check_untiled(detector: ServedDetector, width: int, height: int) -> None:
    """Raise `RefusedError` 422 if detection cuts an image into several tiles: a cause follows from one evaluation."""
    if _tiles(detector, width, height) > 1:
        tile = detector.tiling.tile
        raise RefusedError(
            422,
            f"box: expected an image of one tile, at most {tile} x {tile} pixels, found {width} x {height}: cut out "
            "the part of the image around the object",
        )


def answer_model(app: FastAPI) -> ModelResponse:
    """Return the properties of the served model, and the limits of the server."""
    detector: Any = app.state.service.detector
    config: ServeConfig = app.state.config
    description = getattr(detector, "description", None)  # None for a checkpoint
    styles = class_styles(detector.classes)
    return ModelResponse(
        name=app.state.name,
        classes=list(detector.classes),
        styles=[Style(**dataclasses.asdict(styles[name])) for name in detector.classes],
        image_size=detector.image_config.image_size,
        max_size=detector.image_config.max_size,
        tile=detector.tiling.tile or None,
        score_threshold=detector.postprocess_config.score_threshold,
        nms_threshold=detector.postprocess_config.nms_threshold,
        agnostic_nms=detector.postprocess_config.agnostic_nms,
        draw_threshold=PredictConfig.draw_threshold,
        max_detections=detector.postprocess_config.max_detections,
        tuned=_tuned(detector),
        device=str(detector.device),
        precision=getattr(description, "precision", None),
        trained_with=getattr(description, "version", None),
        version=__version__,
        server_id=app.state.server_id,
        limits=Limits(
            upload_bytes=config.upload_bytes,
            pixels=config.max_pixels,
            images=config.max_queue,
            max_detections=MAX_DETECTIONS,
            pictures=config.max_queue,
        ),
    )


def _tuned(detector: ServedDetector) -> Tuned | None:
    """Return the tuned thresholds of the served model as a part of the answer."""
    if (tuned := detector.info.tuned) is None:
        return None
    return Tuned(aim=tuned.aim, thresholds=list(tuned.thresholds), sentence=tuned.sentence)


def _service(request: Request) -> Service:
    service: Service | None = request.app.state.service
    if service is None:
        raise RefusedError(503, "the server is not ready: try again in 1 s", headers={"retry-after": "1"})
    return service


def _with_fields(options: M, fields: dict[str, list[str]]) -> M:
    """Return the options of the query, overridden and extended by the form's text fields.

    Raises:
        RefusedError: 422, a field is unknown or has an invalid value.
    """
    if not fields:
        return options
    values: dict[str, Any] = {name: texts if name in LISTS else texts[-1] for name, texts in fields.items()}
    try:
        return type(options).model_validate({**options.model_dump(exclude_unset=True, by_alias=True), **values})
    except ValidationError as error:
        raise RefusedError(422, validation_message(error.errors())) from error


def _accepted_format(header: str) -> str:
    """Return the answer format for the first supported media type of an Accept header, or json if none is supported."""
    formats = {"application/json": "json", "*/*": "json", "image/jpeg": "jpeg", "image/*": "jpeg", "image/png": "png"}
    media_types = (part.partition(";")[0].strip().lower() for part in header.split(","))
    return next((formats[name] for name in media_types if name in formats), "json")
