"""Pascal VOC's AP: hand-worked numbers, and an implementation with loops that follows the devkit."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from retinanet.evaluate.voc import voc_metrics
from tests.evaluate.cats_and_dogs import CAT, DOG, detection, ground_truth
from tests.evaluate.random_detections import iou, random_case

A, B, C = [0.0, 0, 10, 10], [50.0, 0, 10, 10], [0.0, 50, 10, 10]
AWAY = [80.0, 80, 10, 10]


def test_hand_worked_curve() -> None:
    """Three objects; detections right, wrong, right. Precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3.

    Every-point: (1 + 2/3) / 3. 11-point: 1 at recall 0 to 0.3 (4 levels), 2/3 at 0.4 to 0.6 (3), 0 at 0.7 to 1 (4).
    """
    truth = ground_truth((CAT, A, 0), (CAT, B, 0), (CAT, C, 0))
    found = voc_metrics(truth, [detection(CAT, A, 0.9), detection(CAT, AWAY, 0.8), detection(CAT, B, 0.7)])
    assert pytest.approx((1 + 2 / 3) / 3, abs=1e-12) == found.AP50
    assert found.AP50_11_point == pytest.approx((4 + 3 * 2 / 3) / 11, abs=1e-12)
    assert found.per_class["cat"].objects == 3
    assert found.per_class["dog"].AP50 == -1  # without objects: left out of the mean


def test_a_second_detection_of_an_object_is_wrong_although_another_object_is_free() -> None:
    """COCO would give the second detection the free object, with IoU 0.6. VOC claims the object of the highest IoU."""
    near = [2.5, 0.0, 10, 10]  # IoU with A: 0.6
    truth = ground_truth((CAT, A, 0), (CAT, near, 0))
    found = voc_metrics(truth, [detection(CAT, A, 0.9), detection(CAT, A, 0.8)])
    assert pytest.approx(0.5) == found.AP50


def test_an_iou_of_exactly_one_half_matches() -> None:
    truth = ground_truth((CAT, [0.0, 0, 10, 10], 0))
    assert voc_metrics(truth, [detection(CAT, [0.0, 0, 10, 5], 0.9)]).AP50 == 1
    assert voc_metrics(truth, [detection(CAT, [0.0, 0, 10, 4.9], 0.9)]).AP50 == 0


def test_recall_of_exactly_three_tenths_reaches_its_level() -> None:
    """10 objects, 3 found first: precision 1 at recall 0, 0.1, 0.2 and 0.3."""
    boxes = [[20.0 * i, 0.0, 10, 10] for i in range(10)]
    truth = ground_truth(*((CAT, box, 0) for box in boxes))
    found = voc_metrics(truth, [detection(CAT, box, 0.9) for box in boxes[:3]])
    assert found.AP50_11_point == pytest.approx(4 / 11, abs=1e-12)


def test_difficult_objects_and_their_detections_are_ignored() -> None:
    truth = ground_truth((CAT, A, 1), (CAT, B, 0))
    found = voc_metrics(truth, [detection(CAT, A, 0.9), detection(CAT, A, 0.8), detection(CAT, B, 0.7)])
    assert (found.AP50, found.AP50_11_point, found.objects) == (1, 1, 1)
    assert voc_metrics(ground_truth((CAT, A, 1)), [detection(CAT, A, 0.9)]).AP50 == -1


def test_no_detections_and_other_classes() -> None:
    truth = ground_truth((CAT, A, 0))
    assert voc_metrics(truth, []).AP50 == 0
    assert voc_metrics(truth, [detection(DOG, A, 0.9)]).AP50 == 0


def test_more_than_100_detections_of_a_class_count() -> None:
    """COCO counts at most 100 detections per image and class. VOC has no limit: the right one is the 151st."""
    rows = [detection(CAT, AWAY, 0.9)] * 150 + [detection(CAT, A, 0.5)]
    assert pytest.approx(1 / 151) == voc_metrics(ground_truth((CAT, A, 0)), rows).AP50


def by_the_devkit(truth: dict[str, Any], results: list[dict[str, Any]], category_id: int) -> tuple[float, float] | None:
    """Return every-point and 11-point AP of a class, as in VOCevaldet.m, with exact fractions."""
    objects = [row for row in truth["annotations"] if row["category_id"] == category_id]
    total = sum(not row["iscrowd"] for row in objects)
    if not total:
        return None
    detections = sorted((r for r in results if r["category_id"] == category_id), key=lambda r: -r["score"])
    taken: set[int] = set()
    curve: list[tuple[Fraction, Fraction]] = []  # recall, precision
    right = wrong = 0
    for row in detections:
        best, best_iou = None, -1.0
        for other in objects:
            if other["image_id"] == row["image_id"] and iou(row["bbox"], other["bbox"]) > best_iou:
                best, best_iou = other, iou(row["bbox"], other["bbox"])
        if best is not None and best_iou >= 0.5:
            if best["iscrowd"]:
                continue
            if best["id"] not in taken:
                taken.add(best["id"])
                right += 1
            else:
                wrong += 1
        else:
            wrong += 1
        curve.append((Fraction(right, total), Fraction(right, right + wrong)))
    eleven = sum(max((p for r, p in curve if r >= Fraction(k, 10)), default=Fraction(0)) for k in range(11)) / 11
    recall = [Fraction(0), *(r for r, _ in curve), Fraction(1)]
    precision = [Fraction(0), *(p for _, p in curve), Fraction(0)]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    every = sum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(recall)))
    return float(every), float(eleven)


@pytest.mark.parametrize("cases", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_random_cases_equal_the_devkit(cases: int) -> None:
    rng = np.random.default_rng(cases)
    compared = 0
    for _ in range(cases):
        truth, results = random_case(rng)
        found = voc_metrics(truth, results)
        of_class = []
        for category in truth["categories"]:
            expected, row = by_the_devkit(truth, results, category["id"]), found.per_class[category["name"]]
            if expected is None:
                assert (row.AP50, row.AP50_11_point) == (-1, -1)
            else:
                assert (row.AP50, row.AP50_11_point) == pytest.approx(expected, abs=1e-9)
                of_class.append(expected)
                compared += 0 < expected[0] < 1
        mean = np.mean(of_class, axis=0) if of_class else (-1, -1)
        assert (found.AP50, found.AP50_11_point) == pytest.approx(tuple(mean), abs=1e-9)
    assert compared > cases  # more than one curve per case with an AP other than 0 and 1
