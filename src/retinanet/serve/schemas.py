"""Define the fields of requests and answers of the API. FastAPI validates with them and derives the OpenAPI schema.

A renamed field of an answer is also sent under its old name, which the OpenAPI schema marks as deprecated.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Box = Annotated[
    list[float],
    Field(min_length=4, max_length=4, description="x1, y1, x2, y2 in pixels of the original image, from its top left."),
]
MAX_DETECTIONS = 1000
MAX_OBJECTS = 20
"""Maximum number of objects that one request explains. The IoU with all anchors takes about 0.2 GB for 20 objects."""


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DetectOptions(_Options):
    """Options of `POST /v1/detect`, in the query or as form fields."""

    threshold: Annotated[float, Field(ge=0, le=1)] | Literal["tuned"] | None = Field(
        None,
        description="Score threshold: only detections with a higher score are returned. tuned: for each class, the "
        "threshold that `retinanet tune` chose. Default: the model's.",
    )
    classes: list[str] = Field([], description="Names of the classes to return. Default: all classes.")
    max_detections: int | None = Field(
        None, ge=1, le=MAX_DETECTIONS, description="Maximum number of detections per image. Default: the model's."
    )
    agnostic_nms: bool | None = Field(
        None,
        description="Class-agnostic NMS: a box suppresses overlapping boxes of every class. "
        "Default: the model's setting. An exported model accepts its own setting only.",
    )
    format: Literal["json", "jpeg", "png"] | None = Field(
        None,
        description="Format of the answer: JSON, or the image with drawn boxes as JPEG or PNG. "
        "Default: the header Accept decides.",
    )


class ExplainOptions(_Options):
    """Options of `POST /v1/explain`, in the query or as form fields: objects (`box` and `class`), a place, or both."""

    x: float | None = Field(
        None, ge=0, description="Place in the image: pixels from the left of the original image.", allow_inf_nan=False
    )
    y: float | None = Field(
        None, ge=0, description="Place in the image: pixels from the top of the original image.", allow_inf_nan=False
    )
    box: list[str] = Field(
        [],
        max_length=MAX_OBJECTS,
        description="Object that should be detected: x1,y1,x2,y2 in pixels of the original image. Repeat `box` and "
        "`class` for its neighbours, so that a detection of a neighbour does not count as the object.",
    )
    class_: list[str] = Field(
        [],
        alias="class",
        max_length=MAX_OBJECTS,
        description="Class of each `box`. Empty: the class with the highest score in the box.",
    )
    max_detections: int | None = Field(
        None, ge=1, le=MAX_DETECTIONS, description="Maximum number of detections of the image. Default: the model's."
    )
    threshold: Annotated[float, Field(ge=0, le=1)] | Literal["tuned"] | None = Field(
        None,
        description="Score threshold of detections. tuned: for each class, the threshold that `retinanet tune` chose. "
        "Default: the model's.",
    )
    agnostic_nms: bool | None = Field(
        None,
        description="Class-agnostic NMS: a box suppresses overlapping boxes of every class. "
        "Default: the model's setting. An exported model accepts its own setting only.",
    )


class Detection(BaseModel):
    """A detected object."""

    box: Box
    score: float
    class_id: int
    class_: str = Field(alias="class")


class ImageResult(BaseModel):
    """Detections of one image. Width and height are pixels of the original image after EXIF rotation."""

    name: str
    width: int
    height: int
    detections: list[Detection]
    milliseconds: dict[str, float] = Field(
        description="before: decoding the image and waiting for the network. network: the network, for the whole batch "
        "of the image. total: all of the processing."
    )


class DetectResponse(BaseModel):
    """Results of all images of a request, in the order in which the images were sent."""

    images: list[ImageResult]
    pictures: list[ImageResult] = Field(
        description="Deprecated: former name of `images`, with the same content. Use `images`.",
        json_schema_extra={"deprecated": True},
    )


class Limits(BaseModel):
    """Limits of the server for one request."""

    upload_bytes: int = Field(description="Maximum size of a request, bytes.")
    pixels: int = Field(description="Maximum number of pixels of an image.")
    images: int = Field(description="Maximum number of images in a request.")
    max_detections: int = Field(description="Maximum value of the option `max_detections`.")
    pictures: int = Field(
        description="Deprecated: former name of `images`, with the same value. Use `images`.",
        json_schema_extra={"deprecated": True},
    )


class Tuned(BaseModel):
    """Score thresholds that `retinanet tune` chose."""

    aim: str = Field(description="What the thresholds were chosen for, such as recall=0.95.")
    thresholds: list[float] = Field(description="Threshold of each class, in the order of `classes`.")
    sentence: str = Field(description="What the thresholds promise for new images, in words.")


class Style(BaseModel):
    """How the boxes of a class are drawn."""

    color: str = Field(description="Colour of the line, #rrggbb.")
    casing: str = Field(description="Colour around the line and of text on `color`, #rrggbb.")
    dash: list[int] = Field(description="Lengths of line and gap, in line widths; empty for a continuous line.")


class ModelResponse(BaseModel):
    """The served model and the limits of the server."""

    name: str
    classes: list[str]
    styles: list[Style] = Field(description="How the boxes of each class are drawn, in the order of `classes`.")
    image_size: int
    max_size: int
    tile: int | None
    score_threshold: float
    nms_threshold: float
    agnostic_nms: bool = Field(description="Whether a box suppresses overlapping boxes of every class.")
    draw_threshold: float = Field(description="Score threshold at which the page starts if the model is not tuned.")
    max_detections: int
    tuned: Tuned | None = Field(description="Tuned thresholds of the model, if it has any.")
    device: str = Field(description="Device that runs the network, such as cuda:0 or CPUExecutionProvider.")
    precision: str | None
    trained_with: str | None = Field(description="Version of retinanet that wrote the model file.")
    version: str = Field(description="Version of retinanet that runs the server.")
    server_id: str = Field(
        description="Identifier of this start of the server. After another start, the model and its options can differ."
    )
    limits: Limits


class Status(BaseModel):
    """State of the server: `ok` or `ready`."""

    status: str


class ErrorResponse(BaseModel):
    """An error in words."""

    detail: str


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the error answers with these statuses, as FastAPI's `responses` expects."""
    descriptions = {
        400: "The form cannot be read.",
        401: "The API key is missing or wrong.",
        408: "The request did not arrive in time.",
        413: "The request exceeds the limit of bytes, pixels or images. The message states the limit.",
        415: "The file is not an image that the server can read.",
        422: "A parameter is invalid.",
        503: "The server is full or not ready. Try again after the seconds in the header Retry-After.",
    }
    return {status: {"model": ErrorResponse, "description": descriptions[status]} for status in statuses}
