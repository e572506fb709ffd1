"""Convert detections to COCO results, as dictionaries or as an array.

Boxes of detections are xyxy, boxes of COCO results are xywh, both in original pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import supervision as sv

from retinanet.types import ArrayDetections


def detections_to_coco(
    detections: ArrayDetections | sv.Detections, *, image_id: int, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Return COCO results in the order of the detections: image_id, category_id, bbox (xywh, original pixels), score.

    Args:
        detections: detections of one image.
        image_id: id of the image in the ground truth.
        category_ids: COCO category id of each 0-based class id.
    """
    if isinstance(detections, ArrayDetections):
        boxes_D4, scores_D = detections.boxes_D4.tolist(), detections.scores_D.tolist()
        labels_D = detections.labels_D.tolist()
    else:
        boxes_D4 = detections.xyxy.tolist()
        scores_D, labels_D = scores(detections).tolist(), class_ids(detections).tolist()
    return [
        {"image_id": image_id, "category_id": category_ids[k], "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for (x1, y1, x2, y2), score, k in zip(boxes_D4, scores_D, labels_D, strict=True)
    ]


def detections_to_array(
    images: Iterable[tuple[int, ArrayDetections]], *, category_ids: Sequence[int]
) -> npt.NDArray[np.float64]:
    """Return COCO results as an array (D, 7): image_id, x, y, width, height, score, category_id.

    `evaluate_results` accepts this array, which is much faster to build than one dictionary per detection. Rows keep
    the order of images and detections.

    Args:
        images: id in the ground truth and detections of each image.
        category_ids: COCO category id of each 0-based class id. Detections of a class with an id below 0 are left out.
    """
    ids, parts = [], []
    for image_id, detections in images:
        ids.append(image_id)
        parts.append(detections)
    if not parts:
        return np.zeros((0, 7))
    boxes_D4 = np.concatenate([p.boxes_D4 for p in parts]).astype(np.float64)
    scores_D = np.concatenate([p.scores_D for p in parts]).astype(np.float64)
    labels_D = np.concatenate([p.labels_D for p in parts])
    image_D = np.repeat(np.array(ids, np.float64), [len(p.scores_D) for p in parts])
    category_D = np.array(category_ids, np.float64)[labels_D]
    array_D7 = np.column_stack([image_D, boxes_D4[:, :2], boxes_D4[:, 2:] - boxes_D4[:, :2], scores_D, category_D])
    kept_D7: npt.NDArray[np.float64] = array_D7[category_D >= 0]
    return kept_D7


def class_ids(detections: sv.Detections) -> Any:
    """Return the class id of each detection, or zeros if the detections have no class ids."""
    return np.zeros(len(detections), np.int64) if detections.class_id is None else detections.class_id


def scores(detections: sv.Detections) -> Any:
    """Return the score of each detection, or ones if the detections have no scores."""
    return np.ones(len(detections), np.float32) if detections.confidence is None else detections.confidence


def class_names(detections: sv.Detections) -> list[str]:
    """Return the class name of each detection, or its class id as text if the detections have no class names."""
    names = detections.data.get("class_name")
    return [str(name) for name in (class_ids(detections) if names is None else names)]
