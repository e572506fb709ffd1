"""Explain why each object that the user marks in an image is detected or missed: one cause for each object.

The causes are those of `retinanet check MODEL DATA`, by the same code. Boxes are xyxy in original pixels. Shape
suffixes: A anchors (all levels, finest first), G objects.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retinanet.analysis.anchor_matches import AnchorMatches
from retinanet.analysis.causes import ADVICE, MISS_MEANINGS
from retinanet.analysis.image_errors import ImageErrors, Missed, Prediction, predictions
from retinanet.evaluate.per_image import overlaps
from retinanet.formats.records import Record
from retinanet.predict.trace import FlatOutputs, Trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinanet.config import MatchConfig, PostprocessConfig
    from retinanet.predict.dense import DenseOutputs
    from retinanet.serve.marked_objects import MarkedObjects
    from retinanet.serve.service import ServedDetector


def explain_objects(
    dense: DenseOutputs,
    marked: MarkedObjects,
    *,
    detector: ServedDetector,
    threshold: float,
    config: PostprocessConfig,
) -> dict[str, Any]:
    """Return why each object of an image is detected or missed.

    Args:
        dense: scores and boxes of the image at every position, before thresholds and NMS.
        marked: the objects.
        detector: the model. It provides the class names, and the assigner if it is a checkpoint.
        threshold: score threshold of detections.
        config: post-processing of the model. Its score threshold, or `threshold` if that is lower, decides which
            boxes NMS compares.

    Returns:
        values that JSON can hold, as described by `ExplainedObjects` in `schemas.py`.

    Raises:
        ConfigError: the assigner of the checkpoint is code that the user has not allowed.
    """
    flat, match_config = FlatOutputs.of(dense), detector.info.match_config
    iou_AG = overlaps(flat.anchors_A4, marked.boxes_G4)[0].astype(np.float32)
    object_A = detector.assigned_objects(dense, marked.boxes_G4, marked.labels_G)
    if object_A is None:
        anchors = AnchorMatches.by_iou(iou_AG, match_config)
    else:
        anchors = AnchorMatches.of(object_A, iou_AG, match_config)
    errors = ImageErrors(
        number=0,
        record=_record(dense, marked),
        trace=Trace(flat, dataclasses.replace(config, score_threshold=min(config.score_threshold, threshold))),
        anchors=anchors,
        levels=[level.level for level in dense.levels],
        threshold=threshold,
    )
    return {
        "width": dense.frame.width,
        "height": dense.frame.height,
        "threshold": threshold,
        "note": _note(match_config) if object_A is None else None,
        **explained(errors, detector.classes),
    }


def explained(errors: ImageErrors, classes: Sequence[str]) -> dict[str, Any]:
    """Return the fields `objects` and `detections`: each object with its cause, and the detections of the image."""
    shown, missed = predictions(errors.shown), {miss.object: miss for miss in errors.missed()}
    objects = []
    for g, (box_4, label) in enumerate(
        zip(errors.record.boxes_G4.tolist(), errors.record.labels_G.tolist(), strict=True)
    ):
        place = {"box": [round(value, 2) for value in box_4], "class_id": label, "class": classes[label]}
        if g in missed:
            objects.append({**place, **_missed(missed[g], classes)})
        else:
            d = errors.detection_of(g)
            assert d is not None  # noqa: S101
            objects.append({**place, **_detected(shown[d], d, float(errors.iou_DG[d, g]), classes)})
    return {"objects": objects, "detections": [_detection(prediction, classes) for prediction in shown]}


def _missed(miss: Missed, classes: Sequence[str]) -> dict[str, Any]:
    why = miss.why(classes)
    return {
        "cause": miss.cause,
        "summary": f"Missed, {miss.cause}: {MISS_MEANINGS[miss.cause]}. {why[0].upper()}{why[1:]}.",
        "advice": ADVICE[miss.cause],
        "best": None if miss.best is None else _detection(miss.best, classes),
        "detection": miss.detection,
        "iou": _rounded(miss.iou),
        "level": None if miss.level is None else f"P{miss.level}",
        "preferred_class": None if miss.preferred_label is None else classes[miss.preferred_label],
        "preferred_score": _rounded(miss.preferred_score),
        "anchor_iou": _rounded(miss.anchor_iou),
    }


def _detected(found: Prediction, number: int, iou: float, classes: Sequence[str]) -> dict[str, Any]:
    unset = dict.fromkeys(("advice", "level", "preferred_class", "preferred_score", "anchor_iou"))
    return {
        "cause": "detected",
        "summary": f"Detected: detection {number + 1}, {classes[found.label]}, score {found.score:.2f}, IoU {iou:.2f} "
        "with the object.",
        "best": _detection(found, classes),
        "detection": number,
        "iou": _rounded(iou),
        **unset,
    }


def _detection(prediction: Prediction, classes: Sequence[str]) -> dict[str, Any]:
    return {
        "box": [round(value, 2) for value in prediction.box],
        "score": round(prediction.score, 6),
        "class_id": prediction.label,
        "class": classes[prediction.label],
    }


def _note(config: MatchConfig) -> str | None:
    """Return what an exported model cannot show; None if the IoU rule is the assigner of its training run."""
    if config.assigner == "iou":
        return None
    return (
        f"The model was trained with the assigner {config.assigner}, which an exported model does not contain. Whether "
        "anchors reach an object follows from their IoU here. Serve the checkpoint for the cause of its own assigner."
    )


def _record(dense: DenseOutputs, marked: MarkedObjects) -> Record:
    boxes_G4, G = marked.boxes_G4, len(marked.labels_G)
    return Record(
        path=Path("image"),
        width=dense.frame.width,
        height=dense.frame.height,
        boxes_G4=boxes_G4,
        labels_G=marked.labels_G,
        crowd_G=np.zeros(G, bool),
        areas_G=np.prod(boxes_G4[:, 2:] - boxes_G4[:, :2], axis=1),
        annotation_ids=tuple(range(1, G + 1)),
        image_id=1,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
