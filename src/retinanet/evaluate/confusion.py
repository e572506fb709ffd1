"""Compute the confusion matrix of K classes, with the background as an additional row and column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import hotcoco
import numpy as np
import numpy.typing as npt

from retinanet.evaluate.ground_truth import GroundTruth, category_names, load_ground_truth
from retinanet.evaluate.per_image import MATCH_IOU, crowd_regions
from retinanet.evaluate.results import Results, check_results

if TYPE_CHECKING:
    from retinanet.evaluate.per_image import ImageResults


@dataclass(frozen=True, kw_only=True)
class ConfusionMatrix:
    """Counts at one IoU and score threshold.

    Args:
        classes: class names by ascending category id.
        counts: int64 (K + 1, K + 1). The row is the object's class, the column the detected class. The last column
            counts missed objects, the last row detections without an object.
        iou: minimum IoU of a detection and its object.
        score: minimum score of a counted detection.
    """

    classes: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    iou: float
    score: float


def confusion_matrix(
    ground_truth: GroundTruth, results: Results, *, iou: float = 0.5, score: float = 0.5
) -> ConfusionMatrix:
    """Match detections of any class with objects, by descending score, and count the pairs of classes.

    As in COCO's AP, crowd regions are ignored: counted neither as objects nor, if a detection lies in a crowd region of
    its class, as false positives.

    Args:
        ground_truth: see `evaluate_results`.
        results: see `evaluate_results`.
        iou: minimum IoU of a detection and its object.
        score: minimum score of a counted detection.

    Raises:
        EvaluationError: see `evaluate_results`.
    """
    coco = load_ground_truth(ground_truth)
    rows = [row for row in check_results(coco, results) if row["score"] >= score]
    run = hotcoco.COCOeval(coco, coco.load_res(rows), "bbox")
    run.params.iou_thrs = [iou]
    run.params.max_dets = [max(len(rows), 1)]  # all detections: a limit would count further objects as missed
    run.evaluate()
    in_crowd = set()
    for result in run.eval_imgs:
        # In the area range of all sizes, COCO ignores only detections in crowd regions.
        if result is not None and result["aRng"] == run.params.area_rng[0]:
            in_crowd.update(np.asarray(result["dtIds"])[np.asarray(result["dtIgnore"])[0].astype(bool)].tolist())
    counted = [row for i, row in enumerate(rows, start=1) if i not in in_crowd]  # load_res numbers detections from 1
    matrix = hotcoco.COCOeval(coco, coco.load_res(counted), "bbox").confusion_matrix(
        iou_thr=iou, max_det=max(len(rows), 1)
    )
    names = {category_id: name for name, category_id in category_names(coco)}
    return ConfusionMatrix(
        classes=tuple(names[category_id] for category_id in matrix["cat_ids"]),
        counts=np.asarray(matrix["matrix"]).astype(np.int64),
        iou=iou,
        score=score,
    )


def confusion_pairs(
    item: ImageResults, ignored_D: npt.NDArray[np.bool_], iou_DG: npt.NDArray[np.floating]
) -> npt.NDArray[np.integer]:
    """Return the index of the object that the confusion matrix pairs with each detection, or -1.

    The pairs are those of `confusion_matrix`: objects of any class, by descending score, at IoU >= `MATCH_IOU`. A score
    threshold removes only detections with the lowest scores, so that the other pairs stay the same.

    Args:
        item: image with its objects and detections.
        ignored_D: True for each detection that is ignored in a crowd region, see `per_image.pair_detections`.
        iou_DG: IoU of the detections and the objects.
    """
    taken_G = crowd_regions(item).copy()
    partner_D = np.full(len(ignored_D), -1)
    for d in np.argsort(-np.asarray(item.scores_D), kind="stable"):
        free_G = np.flatnonzero(~taken_G & (iou_DG[d] >= MATCH_IOU))
        if len(free_G) and not ignored_D[d]:
            partner_D[d] = free_G[np.argmax(iou_DG[d, free_G])]
            taken_G[partner_D[d]] = True
    return partner_D
