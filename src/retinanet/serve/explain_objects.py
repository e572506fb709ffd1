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
from retinanet.analysis.image_errors import ImageErrors, Missed
from retinanet.analysis.visibility import Remedy, Visibility, remedy, visibilities
from retinanet.evaluate.per_image import overlaps
from retinanet.formats.records import Record
from retinanet.predict.trace import FlatOutputs, Trace
from retinanet.serve.explain import explain
from retinanet.serve.explained_values import detections, level_details, predicted, rounded, rounded_box, shown
from retinanet.serve.marked_objects import MarkedObjects
from retinanet.serve.proposals import propose_label, propose_object, propose_others
from retinanet.serve.remedies import advice, at_no_threshold, command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinanet.config import MatchConfig, PostprocessConfig
    from retinanet.predict.dense import DenseOutputs
    from retinanet.serve.service import ServedDetector


def explain_place(
    dense: DenseOutputs,
    marked: MarkedObjects,
    *,
    x: float,
    y: float,
    width: int,
    height: int,
    detector: ServedDetector,
    threshold: float | Sequence[float],
    config: PostprocessConfig,
    with_object: bool = True,
) -> dict[str, Any]:
    """Return the scores and boxes at (x, y), and why the object that the place suggests is detected or missed.

    Args:
        dense: scores and boxes of the image at every position, before thresholds and NMS.
        marked: objects near the place. They count as ground truth for the suggested object.
        x: pixels from the left of the original image.
        y: pixels from the top of the original image.
        width: width of the original image, pixels.
        height: height of the original image, pixels.
        detector: the model.
        threshold: score threshold of detections, or a threshold for each class.
        config: post-processing of the model.
        with_object: whether to suggest an object.

    Returns:
        values that JSON can hold, as described by `ExplainResponse` in `schemas.py`.

    Raises:
        ConfigError: the assigner of the checkpoint is code that the user has not allowed.
    """
    size, classes = {"width": width, "height": height}, detector.classes
    answer = explain(dense, x=x, y=y, **size, classes=classes, threshold=threshold, config=config)
    if not with_object:
        return {**answer, "object": None, "proposed_from": None, "others": [], "note": None}
    flat = FlatOutputs.of(dense)
    trace = Trace(flat, dataclasses.replace(config, score_threshold=float(np.min(threshold))))
    found = trace.detections()[shown(trace, np.broadcast_to(np.array(threshold, np.float32), len(classes)))]
    proposed = propose_object(flat, found, dense, marked.boxes_G4, x=x, y=y)
    others = [
        {
            "box": list(one.box),
            "class_id": one.label,
            "class": classes[one.label],
            "score": one.score,
            "source": one.source,
        }
        for one in propose_others(flat, found, proposed, marked.boxes_G4, x=x, y=y)
    ]
    marked = MarkedObjects(
        boxes_G4=np.concatenate([[proposed.box], marked.boxes_G4]),
        labels_G=np.concatenate([[proposed.label], marked.labels_G]),
    )
    objects = explain_objects(dense, marked, detector=detector, threshold=threshold, config=config)
    return {
        **answer,
        "object": objects["objects"][0],
        "proposed_from": proposed.source,
        "others": others,
        "note": objects["note"],
    }


def explain_objects(
    dense: DenseOutputs,
    marked: MarkedObjects,
    *,
    detector: ServedDetector,
    threshold: float | Sequence[float],
    config: PostprocessConfig,
) -> dict[str, Any]:
    """Return why each object of an image is detected or missed.

    Args:
        dense: scores and boxes of the image at every position, before thresholds and NMS.
        marked: the objects. A class id of -1 stands for the class with the highest score in the box.
        detector: the model. It provides the class names, and the assigner if it is a checkpoint.
        threshold: score threshold of detections, or a threshold for each class.
        config: post-processing of the model. Its score threshold, or `threshold` if that is lower, decides which
            boxes NMS compares.

    Returns:
        values that JSON can hold, as described by `ExplainedObjects` in `schemas.py`.

    Raises:
        ConfigError: the assigner of the checkpoint is code that the user has not allowed.
    """
    flat, match_config = FlatOutputs.of(dense), detector.info.match_config
    is_proposed_G = marked.labels_G < 0
    if is_proposed_G.any():
        marked = _with_labels(marked, flat)
    iou_AG = overlaps(flat.anchors_A4, marked.boxes_G4)[0].astype(np.float32)
    object_A = detector.assigned_objects(dense, marked.boxes_G4, marked.labels_G)
    if object_A is None:
        anchors = AnchorMatches.by_iou(iou_AG, match_config)
    else:
        anchors = AnchorMatches.of(object_A, iou_AG, match_config)
    lowest = float(np.min(threshold))
    errors = ImageErrors(
        number=0,
        record=_record(dense, marked),
        trace=Trace(flat, dataclasses.replace(config, score_threshold=min(config.score_threshold, lowest))),
        anchors=anchors,
        levels=[level.level for level in dense.levels],
        threshold=threshold,
    )
    explained = ExplainedImage(errors=errors, classes=detector.classes, details=level_details(dense))
    return {
        "width": dense.frame.width,
        "height": dense.frame.height,
        "threshold": lowest,
        "note": _note(match_config) if object_A is None else None,
        "objects": [
            {**fields, "is_class_proposed": bool(is_proposed)}
            for fields, is_proposed in zip(explained.objects(), is_proposed_G.tolist(), strict=True)
        ],
        "detections": detections(errors.trace, errors.kept_D, detector.classes),
    }


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ExplainedImage:
    """The objects of an image, explained as values that JSON can hold.

    Args:
        errors: errors of the image.
        classes: name of each class id.
        details: each feature level in plain words.
    """

    errors: ImageErrors
    classes: Sequence[str]
    details: Sequence[str]

    def objects(self) -> list[dict[str, Any]]:
        """Return each object with its cause, its numbers and what shows it."""
        missed = {miss.object: miss for miss in self.errors.missed()}
        return [
            {
                "box": rounded_box(self.errors.record.boxes_G4[g]),
                "class_id": label,
                "class": self.classes[label],
                **(self._missed(missed[g], seen) if g in missed else self._detected(g, seen)),
                "closest": self._predicted(int(self.errors.iou_AG[:, g].argmax()), g),
                "anchor": self._anchor(g),
            }
            for g, (label, seen) in enumerate(
                zip(self.errors.record.labels_G.tolist(), visibilities(self.errors), strict=True)
            )
        ]

    def _missed(self, miss: Missed, seen: Visibility) -> dict[str, Any]:
        errors, found = self.errors, remedy(self.errors, miss, seen)
        best, why = errors.best(miss.object), miss.why(self.classes)
        fate = None if best is None else errors.trace.fate(best, miss.label)
        return {
            "cause": miss.cause,
            "meaning": MISS_MEANINGS[miss.cause],
            "summary": f"Missed, {miss.cause}: {MISS_MEANINGS[miss.cause]}. {why[0].upper()}{why[1:]}.",
            "advice": ADVICE[miss.cause],
            "best": None if best is None else self._predicted(best, miss.object),
            "detection": miss.detection,
            "iou": _optional(miss.iou),
            "nms_iou": _optional(fate.iou) if fate is not None and miss.cause == "suppressed" else None,
            "level": None if miss.level is None else f"P{miss.level}",
            "preferred_class": None if miss.preferred_label is None else self.classes[miss.preferred_label],
            "preferred_score": _optional(miss.preferred_score),
            "anchor_iou": _optional(miss.anchor_iou),
            "taken_by": miss.taken_by,
            "visible_from": seen.threshold,
            "hidden_because": None if seen.cause is None else at_no_threshold(seen.cause),
            "remedy": None if found is None else self._remedy(found),
            "command": command(miss.cause, found),
        }

    def _detected(self, g: int, seen: Visibility) -> dict[str, Any]:
        d = self.errors.detection_of(g)
        assert d is not None  # noqa: S101
        anchor, label, iou = self._anchor_of_detection(d), int(self.errors.shown.labels_D[d]), self.errors.iou_DG[d, g]
        unset = dict.fromkeys(
            ("advice", "level", "preferred_class", "preferred_score", "anchor_iou", "nms_iou", "taken_by", "remedy")
        )
        return {
            "cause": "detected",
            "meaning": "a detection of its class fits the object (IoU at least 0.5)",
            "summary": f"Detected: detection {d + 1}, {self.classes[label]}, score "
            f"{self.errors.shown.scores_D[d]:.2f}, IoU {iou:.2f} with the object.",
            "best": self._predicted(anchor, g),
            "detection": d,
            "iou": rounded(iou),
            "visible_from": seen.threshold,
            "hidden_because": None,
            "command": None,
            **unset,
        }

    def _anchor_of_detection(self, d: int) -> int:
        return int(self.errors.trace.anchor_D[self.errors.kept_D[d]])

    def _predicted(self, anchor: int, g: int) -> dict[str, Any]:
        """Return the box predicted from an anchor, with its score of the object's class."""
        errors, label = self.errors, int(self.errors.record.labels_G[g])
        level = errors.trace.flat.level_of(anchor)
        return {
            **predicted(errors.trace.flat, anchor, label, self.classes),
            "iou": rounded(errors.iou_AG[anchor, g]),
            "level": f"P{errors.levels[level]}",
            "detail": self.details[level],
        }

    def _anchor(self, g: int) -> dict[str, Any]:
        """Return the anchor with the highest IoU with the object, and what training makes of it."""
        errors, matches = self.errors, self.errors.anchors
        a = int(matches.iou_AG[:, g].argmax())
        level, iou, owner = errors.trace.flat.level_of(a), float(matches.iou_AG[a, g]), int(matches.object_A[a])
        if owner >= 0:
            role = "positive" if owner == g else "positive for another object"
        else:
            role = "ignored" if matches.negative_iou <= iou < matches.positive_iou else "background"
        return {
            "box": rounded_box(errors.trace.flat.anchors_A4[a]),
            "iou": rounded(iou),
            "level": f"P{errors.levels[level]}",
            "detail": self.details[level],
            "role": role,
            "object": owner if owner >= 0 else None,
            "positives": int((matches.object_A == g).sum()),
        }

    def _remedy(self, found: Remedy) -> dict[str, Any]:
        return {**dataclasses.asdict(found), "text": advice(found, len(self.errors.shown))}


def _with_labels(marked: MarkedObjects, flat: FlatOutputs) -> MarkedObjects:
    """Return the objects with the class of the highest score instead of each class id of -1."""
    iou_AG = overlaps(flat.boxes_A4, marked.boxes_G4)[0]
    labels = [propose_label(flat, iou_AG[:, g]) if k < 0 else k for g, k in enumerate(marked.labels_G.tolist())]
    return MarkedObjects(boxes_G4=marked.boxes_G4, labels_G=np.array(labels, np.int64))


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


def _optional(value: float | None) -> float | None:
    return None if value is None else rounded(value)
