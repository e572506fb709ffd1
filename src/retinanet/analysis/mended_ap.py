"""Compute the AP that a model would have if one cause of its errors did not exist.

The errors are edited as the mend would change them, and AP is computed anew. Nothing is estimated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from retinanet.analysis.causes import REINSTATED
from retinanet.analysis.image_errors import Prediction, predictions
from retinanet.evaluate import evaluate_results

if TYPE_CHECKING:
    from retinanet.analysis.image_errors import FalseDetection, Missed
    from retinanet.data import DetectionData
    from retinanet.types import ArrayDetections

Place = tuple[int, int]
"""Index of an image, and number of a detection or an object in it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Errors:
    """All errors of a network on a dataset at a score threshold, each with one cause.

    Args:
        data: images and objects.
        threshold: lowest score of a detection.
        detections: detections of each image with at least this score, best first.
        missed: missed objects.
        false: false detections.
    """

    data: DetectionData
    threshold: float
    detections: tuple[ArrayDetections, ...] = field(repr=False)
    missed: tuple[Missed, ...]
    false: tuple[FalseDetection, ...]


def mended_ap(errors: Errors, cause: str) -> float:
    """Return the AP if one cause did not exist.

    - Causes inside post-processing: the box that fits the object becomes a detection, with its own score.
    - wrong class, badly localised: the detection gets the class or the box of its object, if the object was
      missed; a false detection of another object, or a second one of the same object, is removed.
    - no anchor, anchors ignored, anchors taken, low scores: the objects do not count (as TIDE's "missed").
    - unlabelled?: the detection becomes an object. Other false detections are removed.
    """
    changed: dict[Place, Prediction | None] = {
        (f.image, f.detection): None for f in errors.false if f.cause == cause and cause != "unlabelled?"
    }
    added: list[tuple[int, Prediction]] = []
    dropped: set[Place] = set()
    for miss in errors.missed:
        if miss.cause != cause:
            continue
        if cause in REINSTATED and miss.best is not None:
            added.append((miss.image, miss.best))
        elif miss.detection is not None:
            now = predictions(errors.detections[miss.image])[miss.detection]
            box = now.box if cause == "wrong class" else miss.box
            changed[miss.image, miss.detection] = Prediction(box=box, label=miss.label, score=now.score)
        else:
            dropped.add((miss.image, miss.object))
    labelled = [(f.image, f.prediction) for f in errors.false if f.cause == cause == "unlabelled?"]
    return ap_after(errors, changed=changed, dropped=dropped, added=added, labelled=labelled)


def ap_after(
    errors: Errors,
    *,
    changed: Mapping[Place, Prediction | None] | None = None,
    dropped: Set[Place] = frozenset(),
    added: Sequence[tuple[int, Prediction]] = (),
    labelled: Sequence[tuple[int, Prediction]] = (),
) -> float:
    """Return the AP of the detections at the threshold after changes.

    Args:
        errors: detections and objects.
        changed: new prediction of a detection by (image, number); None removes it.
        dropped: (image, object) of objects that do not count.
        added: further detections, with the index of their image.
        labelled: further objects, with the index of their image.
    """
    rows = []
    for image, (record, found) in enumerate(zip(errors.data.records, errors.detections, strict=True)):
        for d, prediction in enumerate(predictions(found)):
            new = (changed or {}).get((image, d), prediction)
            if new is not None:
                rows.append(new.to_coco(record, errors.data))
    rows += [prediction.to_coco(errors.data.records[image], errors.data) for image, prediction in added]
    truth = errors.data.to_coco()
    places = [(i, g) for i, record in enumerate(errors.data.records) for g in range(len(record.labels_G))]
    truth["annotations"] = [
        annotation for annotation, place in zip(truth["annotations"], places, strict=True) if place not in dropped
    ]
    first = max((annotation["id"] for annotation in truth["annotations"]), default=0) + 1
    for number, (image, prediction) in enumerate(labelled, first):
        row = prediction.to_coco(errors.data.records[image], errors.data)
        del row["score"]
        area = row["bbox"][2] * row["bbox"][3]
        truth["annotations"].append({**row, "id": number, "area": area, "iscrowd": 0})
    return float(evaluate_results(truth, rows).AP)
