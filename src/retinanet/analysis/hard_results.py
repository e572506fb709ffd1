"""Find hard examples from COCO results, without the network: probably unlabelled objects and wrong labels.

The loss of a detection or an object is the cross-entropy of its score: -log(1 - score) for background that is detected,
-log(score) for an object. Boxes are xyxy in original pixels. Shape suffixes: D detections, G objects of an image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from retinanet.analysis.hard_examples import NEAR, SAME, HardExample, HardExamples, background_kind
from retinanet.evaluate.per_image import MATCH_IOU, crowd_regions, items_from_results, overlaps, parts_of_objects

if TYPE_CHECKING:
    from retinanet.data import DetectionData
    from retinanet.evaluate.per_image import ImageResults

LOWEST_SCORE: Final = 1e-3
"""Score of an object without a detection, and 1 minus the highest score of background: keeps the loss finite."""


def hard_examples_from_results(
    data: DetectionData, results: Sequence[Mapping[str, Any]], *, count: int = 50
) -> HardExamples:
    """Return the detections without an object and the objects with the lowest scores, by descending loss.

    Results do not show which anchors were positive, so that no example has the kind "no anchor". Objects with equal
    loss are ordered by the score of another class at their place: a confident other class makes a wrong label probable.

    Args:
        data: images with labels.
        results: COCO results with the image and category ids of `data`, best of networks that were not trained on these
            images (`retinanet study --cross-validate`).
        count: maximum number of background examples, and of objects.
    """
    background, objects = list[HardExample](), list[HardExample]()
    for number, item in enumerate(items_from_results(data, results)):
        background += _background(item, number)
        objects += _objects(item, number, data.records[number].annotation_ids)
    hardest = [
        sorted(examples, key=lambda example: (-example.loss, -example.predicted_score))[:count]
        for examples in (background, objects)
    ]
    return HardExamples(data=data, background=tuple(hardest[0]), objects=tuple(hardest[1]), unreached=())


def _background(item: ImageResults, number: int) -> Iterator[HardExample]:
    """Yield the detections that show no object of their class, the highest score of each group of overlapping boxes."""
    to_object_DG, inside_DG = overlaps(item.detected_D4, item.boxes_G4)
    to_detection_DD, _ = overlaps(item.detected_D4, item.detected_D4)
    crowd_G = crowd_regions(item)
    is_part_D = parts_of_objects(item.detected_D4, item.detected_labels_D, item.boxes_G4, item.labels_G, crowd_G)
    yielded: list[int] = []
    for d in np.argsort(-item.scores_D, kind="stable").tolist():
        over_G = to_object_DG[d] >= SAME
        if (over_G & (item.labels_G == item.detected_labels_D[d])).any():
            continue
        if (crowd_G & ((inside_DG[d] >= MATCH_IOU) | over_G)).any():  # a place that is ignored
            continue
        if any(to_detection_DD[d, other] >= NEAR for other in yielded):
            continue
        yielded.append(d)
        label, score = int(item.detected_labels_D[d]), float(item.scores_D[d])
        yield HardExample(
            kind=background_kind(float(to_object_DG[d].max(initial=0.0)), is_part=bool(is_part_D[d])),
            image=number,
            box=_box(item.detected_D4[d]),
            label=label,
            annotation_id=None,
            loss=-math.log(max(1 - score, LOWEST_SCORE)),
            score=score,
            predicted_label=label,
            predicted_score=score,
        )


def _objects(item: ImageResults, number: int, annotation_ids: Sequence[int]) -> Iterator[HardExample]:
    """Yield every object, with the highest score of the detections at its place."""
    overlap_DG, _ = overlaps(item.detected_D4, item.boxes_G4)
    for g, box_4 in enumerate(item.boxes_G4):
        if item.crowd_G is not None and item.crowd_G[g]:
            continue
        label = int(item.labels_G[g])
        places = np.flatnonzero(overlap_DG[:, g] >= SAME).tolist()
        best = max(places, key=lambda d: item.scores_D[d], default=None)
        same = [float(item.scores_D[d]) for d in places if item.detected_labels_D[d] == label]
        score = max(same, default=0.0)
        yield HardExample(
            kind="hard object",
            image=number,
            box=_box(box_4),
            label=label,
            annotation_id=annotation_ids[g] if g < len(annotation_ids) else None,
            loss=-math.log(max(score, LOWEST_SCORE)),
            score=score,
            predicted_label=label if best is None else int(item.detected_labels_D[best]),
            predicted_score=0.0 if best is None else float(item.scores_D[best]),
        )


def _box(box_4: Any) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(value) for value in box_4)
    return x1, y1, x2, y2
