"""Compute COCO's detection metrics with hotcoco, whose results equal those of pycocotools.

A result is one detection as a COCO dictionary: image_id, category_id, bbox (xywh, original pixels), score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import hotcoco
import numpy as np
import numpy.typing as npt

from retinanet.evaluate.ground_truth import GroundTruth, category_names, load_ground_truth
from retinanet.evaluate.results import Results, loadable

NOT_COMPUTED: Final = -1.0
"""Value of a metric that cannot be computed because the data has no object of that class or size."""

SUMMARY: Final = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""Names of the twelve COCO metrics, in the order of pycocotools."""

MEANING: Final = {
    "AP": "IoU 0.50:0.95",
    "AP50": "IoU 0.50",
    "AP75": "IoU 0.75",
    "APs": "small, below 32² pixels",
    "APm": "medium",
    "APl": "large, above 96² pixels",
    "AR1": "1 detection per image and class",
    "AR10": "10 detections per image and class",
    "AR100": "100 detections per image and class",
    "ARs": "small",
    "ARm": "medium",
    "ARl": "large",
}
COCO_LIMITS: Final = (1, 10, 100)
"""Limits of detections per image and class of AR1, AR10 and AR100."""
COCO_MAX_DETECTIONS: Final = COCO_LIMITS[-1]
"""Number of detections per image and class that COCO's AP counts."""


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """Metrics of one class; -1 if the ground truth has no object of the class.

    Args:
        AP: average precision, mean over IoU 0.50:0.95.
        AP50: average precision at IoU 0.5.
        AP75: average precision at IoU 0.75.
        AR: recall, mean over IoU 0.50:0.95.
        objects: number of objects in the ground truth, without crowd regions.
    """

    AP: float
    AP50: float
    AP75: float
    AR: float
    objects: int


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The twelve COCO metrics in [0, 1], and the metrics of each class; -1 if the data has no such object.

    `per_class` has one entry for each category, by ascending category id. If several categories have the same name, the
    id is added to each of these names.

    Metrics count at most `max_detections` detections per image and class, those with the highest scores first,
    except AR1, AR10 and AR100, which count at most 1, 10 and 100. `AR` is the recall, mean over IoU 0.50:0.95.
    """

    AP: float
    AP50: float
    AP75: float
    APs: float
    APm: float
    APl: float
    AR1: float
    AR10: float
    AR100: float
    ARs: float
    ARm: float
    ARl: float
    AR: float
    max_detections: int
    per_class: dict[str, ClassMetrics]

    def to_json(self) -> dict[str, Any]:
        """Return all metrics as plain values for JSON, with AP, AP50 and objects of each class; -1 stays -1.

        `AR` and `max_detections` are included only if another number of detections than COCO's 100 counted.
        """
        per_class = {
            name: {"AP": row.AP, "AP50": row.AP50, "objects": row.objects} for name, row in self.per_class.items()
        }
        limit = ("AR", "max_detections") if self.max_detections != COCO_MAX_DETECTIONS else ()
        summary = {name: getattr(self, name) for name in (*SUMMARY, *limit)}
        return {**summary, "per_class": per_class}


def evaluate_results(
    ground_truth: GroundTruth, results: Results, *, max_detections: int = COCO_MAX_DETECTIONS
) -> Metrics:
    """Compute COCO's metrics for the boxes of `results`.

    Args:
        ground_truth: COCO dictionary or path of a COCO .json, see `load_ground_truth`.
        results: list of COCO results, path of a JSON file with such a list, or array (D, 7) of
            image_id, x, y, w, h, score, category_id. An empty list gives AP 0.
        max_detections: number of detections per image and class that count, those with the highest scores first.

    Raises:
        EvaluationError: the ground truth or a result is invalid, or a result has an image or category id that the
            ground truth lacks. The message lists the first invalid annotations or results.
    """
    run = coco_eval(ground_truth, results, max_detections=max_detections)
    limits = list(run.params.max_dets)
    m = limits.index(max_detections)
    # Axes: IoU thresholds, recall levels, classes, areas (all, small, medium, large), limits of detections.
    precision_TRKAM, recall_TKAM = run.eval["precision"], run.eval["recall"]
    thresholds = list(np.round(run.params.iou_thrs, 2))
    at50, at75 = thresholds.index(0.5), thresholds.index(0.75)
    coco = run.coco_gt
    per_class = {}
    for k, (name, category_id) in enumerate(category_names(coco)):
        per_class[name] = ClassMetrics(
            AP=mean_of_computed(precision_TRKAM[:, :, k, 0, m]),
            AP50=mean_of_computed(precision_TRKAM[at50, :, k, 0, m]),
            AP75=mean_of_computed(precision_TRKAM[at75, :, k, 0, m]),
            AR=mean_of_computed(recall_TKAM[:, k, 0, m]),
            objects=len(coco.get_ann_ids(img_ids=coco.get_img_ids(), cat_ids=[category_id], iscrowd=False)),
        )
    by_size = {f"AP{size}": mean_of_computed(precision_TRKAM[..., a, m]) for a, size in enumerate("sml", 1)}
    by_size |= {f"AR{size}": mean_of_computed(recall_TKAM[..., a, m]) for a, size in enumerate("sml", 1)}
    by_limit = {f"AR{limit}": mean_of_computed(recall_TKAM[..., 0, limits.index(limit)]) for limit in COCO_LIMITS}
    return Metrics(
        AP=mean_of_computed(precision_TRKAM[..., 0, m]),
        AP50=mean_of_computed(precision_TRKAM[at50, ..., 0, m]),
        AP75=mean_of_computed(precision_TRKAM[at75, ..., 0, m]),
        AR=mean_of_computed(recall_TKAM[..., 0, m]),
        max_detections=max_detections,
        per_class=per_class,
        **by_size,
        **by_limit,
    )


def mean_of_computed(values: npt.NDArray[np.float64]) -> float:
    """Return the mean of the computed values, as pycocotools does; -1 if there are none."""
    computed = values[values > NOT_COMPUTED]
    return float(computed.mean()) if computed.size else NOT_COMPUTED


def coco_eval(ground_truth: GroundTruth, results: Results, *, max_detections: int = COCO_MAX_DETECTIONS) -> Any:
    """Return a `hotcoco.COCOeval` for boxes after matching and accumulation.

    Arguments and errors are those of `evaluate_results`. `params.max_dets` holds `COCO_LIMITS` and `max_detections`.
    """
    coco = load_ground_truth(ground_truth)
    run = hotcoco.COCOeval(coco, coco.load_res(loadable(coco, results)), "bbox")
    run.params.max_dets = sorted({*COCO_LIMITS, max_detections})
    run.evaluate()
    run.accumulate()
    return run
