"""Define the fields of the answers of `POST /v1/explain`. FastAPI derives the OpenAPI schema from them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from retinanet.analysis.causes import MissCause
from retinanet.analysis.visibility import Option
from retinanet.predict.trace import FateName
from retinanet.serve.proposals import Source
from retinanet.serve.schemas import Box, Detection


class ClassScore(BaseModel):
    """Score of one class."""

    class_id: int
    class_: str = Field(alias="class")
    score: float


class ScoredDetection(Detection):
    """A predicted box with its runner-up classes."""

    classes: list[ClassScore] = Field(description="The classes with the highest scores for this box, at most 3.")


class Proposal(ScoredDetection):
    """Box predicted from an anchor, and why it became a detection or not."""

    anchor: Box
    fate: FateName
    why: str
    detection: int | None = Field(
        description="Index, from 0, in `detections`: the detection that this box became or that suppressed it."
    )
    iou: float | None = Field(description="IoU with the detection that suppressed this box.")


class Level(BaseModel):
    """Scores and boxes of one feature level at a place."""

    level: str
    detail: str = Field(description="The level in plain words, such as: fine detail, about 64 px.")
    size: float = Field(description="Mean size of the level's anchors, pixels of the original image.")
    stride: int
    position: list[float] = Field(
        description="x, y of the level's position nearest to the place, in pixels of the original image."
    )
    scores: list[float] = Field(description="Highest score of each class at the nearest position.")
    best: Proposal = Field(description="Box with the highest score at the nearest position.")
    covering: list[Proposal] = Field(
        description="Boxes of the level, from any position, that cover the place and have the highest scores."
    )


class NearDetection(BaseModel):
    """The detection nearest to a place that no detection covers."""

    detection: int = Field(description="Index, from 0, in `detections`.")
    distance: float = Field(description="Distance of the place from the box, pixels of the original image.")


class FitBox(ScoredDetection):
    """A predicted box near an object. `score` is the score of the object's class."""

    iou: float = Field(description="IoU with the object.")
    level: str
    detail: str = Field(description="The feature level in plain words.")


class BestAnchor(BaseModel):
    """The anchor with the highest IoU with an object, and what training makes of it."""

    box: Box
    iou: float
    level: str
    detail: str = Field(description="The feature level in plain words.")
    role: Literal["positive", "positive for another object", "ignored", "background"]
    object: int | None = Field(description="Index, from 0, of the object that the anchor is positive for.")
    positives: int = Field(description="Number of anchors that are positive for the object.")


class AppliedRemedy(BaseModel):
    """The value of one option of post-processing with which an object is detected, found by running it."""

    option: Option
    value: bool | int | float
    detections: int = Field(description="Number of detections of the image with this value.")
    text: str = Field(description="The remedy as a sentence.")


class ExplainedObject(BaseModel):
    """An object that the request marked or that a place suggests, and the one cause for which it is missed."""

    box: Box
    class_id: int
    class_: str = Field(alias="class")
    is_class_proposed: bool = Field(
        description="Whether the server chose the class, because the request left it empty."
    )
    cause: Literal["detected"] | MissCause
    meaning: str = Field(description="What the cause means, without numbers and without a full stop.")
    summary: str = Field(description="The cause and its numbers in words.")
    advice: str | None = Field(description="What can mend the cause. null if the object is detected.")
    command: str | None = Field(description="Command whose option addresses the cause.")
    remedy: AppliedRemedy | None = Field(description="The option of post-processing that shows a missed object.")
    visible_from: float | None = Field(
        description="Highest threshold, in steps of 0.001, at which the object is detected. null: no threshold."
    )
    hidden_because: str | None = Field(description="Why no threshold shows the object.")
    best: FitBox | None = Field(
        description="The detection of the object. If the object is missed: the prediction of its class with the "
        "highest score among the boxes that fit the object (IoU at least 0.5)."
    )
    closest: FitBox = Field(description="The predicted box with the highest IoU with the object.")
    detection: int | None = Field(
        description="Index, from 0, in `detections`: the detection of the object, the one that suppressed `best`, or "
        "the one with a wrong class or place."
    )
    iou: float | None = Field(description="IoU of this detection with the object.")
    nms_iou: float | None = Field(description="IoU of `best` with the box that suppressed it.")
    anchor: BestAnchor
    taken_by: int | None = Field(
        description="Index, from 0, of the object that took the anchors. Set for the cause `anchors taken`."
    )
    level: str | None = Field(description="Feature level of the highest score at the anchors of a missed object.")
    preferred_class: str | None = Field(description="Class of this score.")
    preferred_score: float | None = Field(description="Highest score of any class at the anchors of a missed object.")
    anchor_iou: float | None = Field(description="Highest IoU of an anchor with a missed object.")


class OtherObject(BaseModel):
    """Another object that a place suggests."""

    box: Box
    class_id: int
    class_: str = Field(alias="class")
    score: float
    source: Source


class ExplainResponse(BaseModel):
    """Scores and boxes of every feature level at a place of an image, and the object that the place suggests."""

    x: float
    y: float
    width: int
    height: int
    threshold: float = Field(description="Score threshold. Lowest threshold of a class for `tuned`.")
    summary: str
    near: NearDetection | None
    note: str | None = Field(
        description="Limit of the explanation, for example an assigner that the server cannot run."
    )
    object: ExplainedObject | None = Field(
        description="The object that the place suggests. null for an image that detection cuts into several tiles."
    )
    proposed_from: Source | None = Field(description="Where the box of `object` comes from.")
    others: list[OtherObject] = Field(description="Other objects that the place suggests, at most 3.")
    levels: list[Level]
    detections: list[ScoredDetection]


class ExplainedObjects(BaseModel):
    """The causes for which the objects of a request are missed."""

    width: int
    height: int
    threshold: float = Field(description="Score threshold. Lowest threshold of a class for `tuned`.")
    note: str | None = Field(
        description="Limit of the explanation, for example an assigner that the server cannot run."
    )
    objects: list[ExplainedObject] = Field(description="The objects of the request, in their order.")
    detections: list[ScoredDetection]
