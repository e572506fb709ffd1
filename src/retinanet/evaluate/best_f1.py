"""Find the score threshold with the highest F1 at IoU 0.5, over all scores of the detections.

Matching is COCO's, without a limit of detections: by descending score, each object once, so that a threshold removes
only detections with the lowest scores and changes no other match. Shape suffix: D detections.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import hotcoco
import numpy as np

from retinanet.evaluate.coco import NOT_COMPUTED
from retinanet.evaluate.ground_truth import GroundTruth, category_names, load_ground_truth
from retinanet.evaluate.per_image import MATCH_IOU
from retinanet.evaluate.results import Results, loadable

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class BestF1:
    """The highest F1, and the threshold, precision and recall there.

    Args:
        threshold: detections with this score or more count; None if no detection is right.
        F1: 2 x precision x recall / (precision + recall); 0 if no detection is right, -1 without objects.
        precision: share of the counted detections that are right; -1 if F1 is 0 or -1.
        recall: share of the objects that are found; -1 without objects.
        objects: number of objects, without crowd regions.
    """

    threshold: float | None
    F1: float
    precision: float
    recall: float
    objects: int


@dataclass(frozen=True, kw_only=True)
class BestF1Metrics(BestF1):
    """The highest F1 of all classes together with one threshold, and the highest F1 of each class."""

    per_class: dict[str, BestF1]

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain values for JSON."""
        return dataclasses.asdict(self)


def best_f1_metrics(ground_truth: GroundTruth, results: Results) -> BestF1Metrics:
    """Return the highest F1 of all classes together, and of each class.

    Detections in crowd regions of their class are ignored, as in COCO's AP.

    Args:
        ground_truth: see `evaluate_results`.
        results: see `evaluate_results`.

    Raises:
        EvaluationError: see `evaluate_results`.
    """
    coco = load_ground_truth(ground_truth)
    array = loadable(coco, results)
    run = hotcoco.COCOeval(coco, coco.load_res(array), "bbox")
    run.params.iou_thrs, run.params.max_dets = [MATCH_IOU], [max(1, len(array))]
    run.params.area_rng, run.params.area_rng_lbl = [[0.0, 1e10]], ["all"]
    run.evaluate()
    names = category_names(coco)
    scores, right = ({category_id: [np.zeros(0)] for _, category_id in names} for _ in range(2))
    objects = dict.fromkeys((category_id for _, category_id in names), 0)
    for found in run.eval_imgs:
        if found is not None:
            counted_D = ~np.array(found["dtIgnore"][0], bool)
            scores[found["category_id"]].append(np.array(found["dtScores"], np.float64)[counted_D])
            right[found["category_id"]].append(np.array(found["dtMatched"][0], bool)[counted_D])
            objects[found["category_id"]] += int(np.sum(found["gtInDenominator"]))
    per_class = {name: _best(scores[key], right[key], objects[key]) for name, key in names}
    all_scores, all_right = ([part for parts in by.values() for part in parts] for by in (scores, right))
    together = _best(all_scores, all_right, sum(objects.values()))
    return BestF1Metrics(**dataclasses.asdict(together), per_class=per_class)


def _best(scores: list[npt.NDArray[Any]], right: list[npt.NDArray[Any]], objects: int) -> BestF1:
    """Return the highest F1 over all scores; of equally good thresholds, the highest."""
    scores_D = np.concatenate(scores)
    order_D = np.argsort(-scores_D, kind="stable")
    scores_D, found_D = scores_D[order_D], np.cumsum(np.concatenate(right)[order_D])
    last_D = np.flatnonzero(np.diff(scores_D, append=-np.inf))  # a threshold counts all detections with equal scores
    f1_D = 2 * found_D[last_D] / np.maximum(objects + last_D + 1, 1)
    if not objects:
        return BestF1(threshold=None, F1=NOT_COMPUTED, precision=NOT_COMPUTED, recall=NOT_COMPUTED, objects=0)
    if not f1_D.any():
        return BestF1(threshold=None, F1=0.0, precision=NOT_COMPUTED, recall=0.0, objects=objects)
    place = f1_D.argmax()
    last = last_D[place]
    return BestF1(
        threshold=float(scores_D[last]),
        F1=float(f1_D[place]),
        precision=float(found_D[last] / (last + 1)),
        recall=float(found_D[last] / objects),
        objects=objects,
    )
