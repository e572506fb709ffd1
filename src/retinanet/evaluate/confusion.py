"""Which class is taken for which, with the background as one more row and column. K classes."""

from __future__ import annotations

from dataclasses import dataclass

import hotcoco
import numpy as np
import numpy.typing as npt

from retinanet.evaluate.coco import GroundTruth, Results, category_names, check_results, load_ground_truth


@dataclass(frozen=True, kw_only=True)
class ConfusionMatrix:
    """Counts at one IoU and score threshold.

    Args:
        classes: their names, in the order of the category ids.
        counts: int64 (K + 1, K + 1). Row: the object's class; column: the class detected. The last column counts
            objects that were missed, the last row detections where nothing is.
        iou: from which IoU a detection belongs to an object.
        score: from which score a detection counts.
    """

    classes: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    iou: float
    score: float


def confusion_matrix(
    ground_truth: GroundTruth, results: Results, *, iou: float = 0.5, score: float = 0.5
) -> ConfusionMatrix:
    """Match detections of any class with objects, best score first, and count the pairs of classes.

    Detections that only hit a crowd region of their class are left out, as in COCO's AP: a crowd is neither to be
    found nor to be punished. The other arguments and the errors are those of `evaluate_results`.
    """
    coco = load_ground_truth(ground_truth)
    rows = [row for row in check_results(coco, results) if row["score"] >= score]
    run = hotcoco.COCOeval(coco, coco.load_res(rows), "bbox")
    run.params.iou_thrs = [iou]
    run.evaluate()
    in_crowd = set()
    for result in run.eval_imgs:
        if result is not None and result["aRng"] == run.params.area_rng[0]:  # all sizes: ignored means crowd
            in_crowd.update(np.asarray(result["dtIds"])[np.asarray(result["dtIgnore"])[0].astype(bool)].tolist())
    kept = [row for i, row in enumerate(rows, start=1) if i not in in_crowd]  # load_res numbers detections from 1
    matrix = hotcoco.COCOeval(coco, coco.load_res(kept), "bbox").confusion_matrix(iou_thr=iou)
    names = {category_id: name for name, category_id in category_names(coco)}
    return ConfusionMatrix(
        classes=tuple(names[category_id] for category_id in matrix["cat_ids"]),
        counts=np.asarray(matrix["matrix"]).astype(np.int64),
        iou=iou,
        score=score,
    )
