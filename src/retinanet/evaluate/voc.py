"""Compute Pascal VOC's average precision at IoU 0.5, every-point (VOC 2010 to 2012) and 11-point (VOC 2007).

Source: Everingham et al., The PASCAL Visual Object Classes Challenge: A Retrospective (2015), and VOCevaldet.m of the
VOC devkit. The devkit counts the last pixel of a box (x2 - x1 + 1). Here, boxes are edges, so that an IoU may differ.
Shape suffixes: D detections, G ground-truth boxes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from retinanet.evaluate.coco import NOT_COMPUTED, mean_of_computed
from retinanet.evaluate.ground_truth import GroundTruth, category_names, load_ground_truth
from retinanet.evaluate.per_image import MATCH_IOU, overlaps
from retinanet.evaluate.results import Results, check_results

if TYPE_CHECKING:
    import numpy.typing as npt

    Bools = npt.NDArray[np.bool_]
    Ints = npt.NDArray[np.int64]

RECALL_STEPS: Final = 10
"""The 11-point AP is the mean precision at recall 0, 1/10, ..., 10/10."""


@dataclass(frozen=True, kw_only=True)
class VocAP:
    """Pascal VOC's average precision at IoU 0.5; -1 without objects.

    Args:
        AP50: area under the precision-recall curve, with the highest precision at this recall or above.
        AP50_11_point: mean of the highest precision at recall 0, 0.1, ..., 1 or above.
        objects: number of objects, without difficult objects and crowd regions.
    """

    AP50: float
    AP50_11_point: float
    objects: int


@dataclass(frozen=True, kw_only=True)
class VocMetrics(VocAP):
    """Mean of both APs over the classes with objects, the number of all objects, and the APs of each class."""

    per_class: dict[str, VocAP]

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain values for JSON."""
        return dataclasses.asdict(self)


def voc_metrics(ground_truth: GroundTruth, results: Results) -> VocMetrics:
    """Compute Pascal VOC's metrics. All detections count, without COCO's limit of 100 per image and class.

    A detection claims the object of its class with the highest IoU in its image, if that IoU is at least 0.5. The
    detection with the highest score that claims an object is a true positive, and all other detections are false
    positives. Detections that claim a difficult object or a crowd region (`iscrowd`) are ignored.

    Args:
        ground_truth: see `evaluate_results`.
        results: see `evaluate_results`.

    Raises:
        EvaluationError: see `evaluate_results`.
    """
    coco = load_ground_truth(ground_truth)
    rows, objects = check_results(coco, results), coco.dataset["annotations"]
    scores_D = np.array([row["score"] for row in rows], np.float64)
    claimed_D = _claimed(objects, rows)
    crowd_G = np.array([bool(row["iscrowd"]) for row in objects], bool)
    label_G = np.array([row["category_id"] for row in objects], np.int64)
    order_D = np.argsort(-scores_D, kind="stable")
    claimed_D = claimed_D[order_D]
    true_D = np.zeros(len(rows), bool)
    true_D[np.unique(claimed_D, return_index=True)[1]] = True  # the first detection that claims an object
    true_D &= claimed_D >= 0
    ignored_D = np.append(crowd_G, False)[claimed_D]  # the index -1 reads the last value
    label_D = np.array([row["category_id"] for row in rows], np.int64)[order_D]
    per_class = {}
    for name, category_id in category_names(coco):
        chosen_D = (label_D == category_id) & ~ignored_D
        per_class[name] = _average_precision(true_D[chosen_D], int(((label_G == category_id) & ~crowd_G).sum()))
    every, eleven = (
        mean_of_computed(np.array([getattr(row, name) for row in per_class.values()], np.float64))
        for name in ("AP50", "AP50_11_point")
    )
    return VocMetrics(AP50=every, AP50_11_point=eleven, objects=int((~crowd_G).sum()), per_class=per_class)


def _claimed(objects: list[dict[str, Any]], rows: list[dict[str, Any]]) -> Ints:
    """Return the index of the object that each detection claims, or -1."""
    places: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
    for side, entries in enumerate((objects, rows)):
        for index, row in enumerate(entries):
            places.setdefault((row["image_id"], row["category_id"]), ([], []))[side].append(index)
    boxes_G4, boxes_D4 = (np.array([row["bbox"] for row in r], np.float64).reshape(-1, 4) for r in (objects, rows))
    boxes_G4[:, 2:] += boxes_G4[:, :2]
    boxes_D4[:, 2:] += boxes_D4[:, :2]
    claimed_D = np.full(len(rows), -1)
    for of_image_G, of_image_D in places.values():
        if of_image_G and of_image_D:
            iou_DG, _ = overlaps(boxes_D4[of_image_D], boxes_G4[of_image_G])
            best_D = np.array(of_image_G)[iou_DG.argmax(axis=1)]
            claimed_D[of_image_D] = np.where(iou_DG.max(axis=1) >= MATCH_IOU, best_D, -1)
    return claimed_D


def _average_precision(true_D: Bools, objects: int) -> VocAP:
    """Return the APs of a class from its detections, highest score first, without ignored detections."""
    if not objects:
        return VocAP(AP50=NOT_COMPUTED, AP50_11_point=NOT_COMPUTED, objects=0)
    found_D = np.cumsum(true_D)
    precision_D = found_D / np.arange(1, len(true_D) + 1)
    highest_D = np.maximum.accumulate(precision_D[::-1])[::-1]  # at this recall or above
    # Recall found / objects >= step / 10, in integers: 3 / 10 >= 0.1 * 3 is false in floating point.
    first_11 = np.searchsorted(RECALL_STEPS * found_D, objects * np.arange(RECALL_STEPS + 1))
    eleven = np.append(highest_D, 0.0)[first_11].mean()
    return VocAP(AP50=float(highest_D[true_D].sum() / objects), AP50_11_point=float(eleven), objects=objects)
