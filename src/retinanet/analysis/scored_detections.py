"""The detections of a dataset with their outcomes: which are right, and how well their scores state it.

Shape suffixes: D detections, I images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from retinanet.analysis.score_thresholds import Outcomes
from retinanet.evaluate.coco import coco_eval
from retinanet.evaluate.per_image import MATCH_IOU, crowd_regions, items_from_results, pair_detections

if TYPE_CHECKING:
    import numpy.typing as npt

    from retinanet.data import DetectionData

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]
    Bools = npt.NDArray[np.bool_]

BINS: Final = 10
"""Number of bins of scores of the calibration error."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredDetections:
    """All detections of a dataset with their outcomes at IoU 0.5. Detections in crowd regions are left out.

    Args:
        scores_D: scores.
        labels_D: class ids of the model.
        correct_D: whether a detection matches an object.
        image_D: index of the image.
        objects_IK: number of objects of each image and class of the model.
    """

    scores_D: Floats
    labels_D: Ints
    correct_D: Bools
    image_D: Ints
    objects_IK: Ints

    def outcomes(self, label: int | None = None) -> Outcomes:
        """Return the detections and objects of a class, or of all classes."""
        own_D = np.ones(len(self.scores_D), dtype=bool) if label is None else self.labels_D == label
        objects_I = self.objects_IK.sum(axis=1) if label is None else self.objects_IK[:, label]
        return Outcomes(
            scores_D=self.scores_D[own_D],
            correct_D=self.correct_D[own_D],
            image_D=self.image_D[own_D],
            objects_I=objects_I,
        )


def scored_detections(
    data: DetectionData, results: list[dict[str, Any]], columns: list[int | None]
) -> ScoredDetections:
    """Return the detections in COCO results with their outcomes at IoU 0.5.

    Args:
        data: images and objects.
        results: detections as COCO results.
        columns: index in `data.classes` of each class of the model, None for a class that the data lacks.
    """
    K = len(columns)
    label_of = {column: k for k, column in enumerate(columns) if column is not None}
    parts: list[tuple[Floats, Ints, Bools, Ints]] = []
    objects_IK = np.zeros((len(data.records), K), np.int64)
    for i, item in enumerate(items_from_results(data, results)):
        partner_D, in_crowd_D = pair_detections(item)
        counted_D = ~in_crowd_D
        labels_D = np.array([label_of[int(column)] for column in item.detected_labels_D], np.int64)
        scores_D = np.asarray(item.scores_D, np.float64)
        image_D = np.full(len(labels_D), i)
        parts.append(tuple(v[counted_D] for v in (scores_D, labels_D, partner_D >= 0, image_D)))  # type: ignore[arg-type]
        for column in np.asarray(item.labels_G)[~crowd_regions(item)]:
            if int(column) in label_of:
                objects_IK[i, label_of[int(column)]] += 1
    scores_D, labels_D, correct_D, image_D = (np.concatenate(values) for values in zip(*parts, strict=True))
    return ScoredDetections(
        scores_D=scores_D, labels_D=labels_D, correct_D=correct_D, image_D=image_D, objects_IK=objects_IK
    )


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Agreement of scores with the share of right detections.

    Args:
        error: expected calibration error: the mean difference between the score and the share of right detections in
            bins of equal width, weighted by the number of detections.
        bins: mean score, share of right detections and number of detections of each bin with detections.
    """

    error: float
    bins: tuple[tuple[float, float, int], ...]


def measure_reliability(truth: dict[str, Any], results: list[dict[str, Any]]) -> Reliability:
    """Return how well the scores of COCO results agree with the share of right detections: hotcoco's, at IoU 0.5."""
    if not results:
        return Reliability(error=0.0, bins=())
    found = coco_eval(truth, results).calibration(n_bins=BINS, iou_threshold=MATCH_IOU)
    return Reliability(
        error=float(found["ece"]),
        bins=tuple(
            (float(row["avg_confidence"]), float(row["avg_accuracy"]), int(row["count"]))
            for row in found["bins"]
            if row["count"]
        ),
    )
