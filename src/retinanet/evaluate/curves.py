"""Compute precision-recall curves of each class at COCO's recall levels.

Shape suffixes: R recall levels (101), K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retinanet.errors import ConfigError
from retinanet.evaluate.coco import COCO_MAX_DETECTIONS, coco_eval
from retinanet.evaluate.ground_truth import GroundTruth, category_names
from retinanet.evaluate.results import Results


@dataclass(frozen=True, kw_only=True)
class PrecisionRecall:
    """Curves of all classes at one IoU threshold.

    Args:
        classes: class names by ascending category id.
        recall_R: recall levels 0, 0.01, ..., 1.
        precision_RK: highest precision at this recall or above; 0 for a recall that is never reached; NaN for a class
            without objects. The mean over R is the AP of the class at this IoU.
        scores_RK: score threshold with this recall; 0 for a recall that is never reached; NaN for a class without
            objects.
        iou: minimum IoU of a true positive.
    """

    classes: tuple[str, ...]
    recall_R: npt.NDArray[np.float64]
    precision_RK: npt.NDArray[np.float64]
    scores_RK: npt.NDArray[np.float64]
    iou: float


def precision_recall(
    ground_truth: GroundTruth, results: Results, *, iou: float = 0.5, max_detections: int = COCO_MAX_DETECTIONS
) -> PrecisionRecall:
    """Compute the precision-recall curves of all classes.

    Args:
        ground_truth: see `evaluate_results`.
        results: see `evaluate_results`.
        iou: minimum IoU of a true positive, one of 0.50, 0.55, ..., 0.95.
        max_detections: number of detections per image and class that count, those with the highest scores first.

    Raises:
        ConfigError: `iou` has another value.
        EvaluationError: see `evaluate_results`.
    """
    run = coco_eval(ground_truth, results, max_detections=max_detections)
    thresholds = [round(float(value), 2) for value in run.params.iou_thrs]
    if round(iou, 2) not in thresholds:
        raise ConfigError(f"iou must be one of {', '.join(f'{value:.2f}' for value in thresholds)}, found {iou}")
    t, m = thresholds.index(round(iou, 2)), list(run.params.max_dets).index(max_detections)
    precision_RK = np.array(run.eval["precision"][t, :, :, 0, m], dtype=np.float64)
    scores_RK = np.array(run.eval["scores"][t, :, :, 0, m], dtype=np.float64)
    absent_K = (precision_RK < 0).all(axis=0)
    precision_RK[:, absent_K] = scores_RK[:, absent_K] = np.nan
    return PrecisionRecall(
        classes=tuple(name for name, _ in category_names(run.coco_gt)),
        recall_R=np.array(run.params.rec_thrs, dtype=np.float64),
        precision_RK=precision_RK,
        scores_RK=scores_RK,
        iou=thresholds[t],
    )
