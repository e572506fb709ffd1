"""What requests ask and answers hold, for checking the one and describing both."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Box = Annotated[
    list[float], Field(min_length=4, max_length=4, description="x1, y1, x2, y2; original pixels from the top left.")
]
MOST_DETECTIONS = 1000


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DetectOptions(_Options):
    """What `POST /v1/detect` can be told, in the address or as fields of the form."""

    threshold: float | None = Field(None, ge=0, le=1, description="Least score; the model's own unless given.")
    classes: list[str] = Field([], description="Names of classes that are wanted; all unless given.")
    max_detections: int | None = Field(
        None, ge=1, le=MOST_DETECTIONS, description="Detections of an image; the model's own limit unless given."
    )
    format: Literal["json", "jpeg", "png"] | None = Field(
        None, description="json, or the drawn image. Unless given, the header Accept decides."
    )


class ExplainOptions(_Options):
    """What `POST /v1/explain` can be told, in the address or as fields of the form."""

    x: float = Field(ge=0, description="Original pixels from the left.", allow_inf_nan=False)
    y: float = Field(ge=0, description="Original pixels from the top.", allow_inf_nan=False)
    threshold: float | None = Field(None, ge=0, le=1, description="Least score; the model's own unless given.")


class Detection(BaseModel):
    """One object."""

    box: Box
    score: float
    class_id: int
    class_: str = Field(alias="class")


class ImageResult(BaseModel):
    """What is in one image; its size is that after EXIF rotation."""

    name: str
    width: int
    height: int
    detections: list[Detection]
    milliseconds: dict[str, float] = Field(
        description="before: reading the image and waiting; network: of the whole batch; total."
    )


class DetectResponse(BaseModel):
    """The images in the order in which they were sent."""

    images: list[ImageResult]


class Proposal(Detection):
    """The box of an anchor, and what became of it."""

    anchor: Box
    fate: Literal["detected", "below_threshold", "not_a_candidate", "suppressed", "beyond_max_detections"]
    why: str
    detection: int | None = Field(description="Number, from 0, of the detection that it is or that suppressed it.")
    iou: float | None = Field(description="With the detection that suppressed it.")


class Level(BaseModel):
    """What a level of the pyramid says of a place."""

    level: str
    stride: int
    position: list[float] = Field(description="x, y of its position nearest to the place, original pixels.")
    scores: list[float] = Field(description="Best score of each class there.")
    best: Proposal
    covering: list[Proposal] = Field(description="The level's best boxes that cover the place, from any position.")


class ExplainResponse(BaseModel):
    """What every level scored at a place, and which boxes it proposed."""

    x: float
    y: float
    width: int
    height: int
    threshold: float
    summary: str
    levels: list[Level]
    detections: list[Detection]


class Limits(BaseModel):
    """Of the server."""

    upload_bytes: int
    pixels: int
    images: int
    max_detections: int


class ModelResponse(BaseModel):
    """The model that is served."""

    name: str
    classes: list[str]
    image_size: int
    max_size: int
    tile: int | None
    score_threshold: float
    nms_threshold: float
    max_detections: int
    precision: str | None
    trained_with: str | None = Field(description="Version of retinanet that wrote the file.")
    version: str = Field(description="Version of retinanet that serves it.")
    limits: Limits


class Status(BaseModel):
    """How the server is."""

    status: str


class ErrorResponse(BaseModel):
    """What was wrong, in words."""

    detail: str


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the answers of these statuses for OpenAPI."""
    said = {
        400: "The form cannot be read",
        401: "No key, or a wrong one",
        408: "The image did not arrive in time",
        413: "More bytes, pixels or images than the limit, which the message says",
        415: "Not an image that can be read",
        422: "A wrong parameter",
        503: "All places are taken: try again after the seconds in Retry-After",
    }
    return {status: {"model": ErrorResponse, "description": said[status]} for status in statuses}
