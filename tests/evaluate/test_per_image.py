"""Detections of single images against ground truth, and the best threshold: hand-worked numbers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retinanet.evaluate.per_image import ImageResults, best_threshold, items_from_results, match_detections, overlaps
from tests.evaluate.image_results import make

A, B = (10, 10, 30, 30), (50, 10, 70, 30)


@pytest.mark.parametrize(
    ("truth", "detections", "expected"),  # expected: objects, missed, false, probably unlabelled
    [
        ([(*A, 0)], [(*A, 0, 0.9)], (1, 0, 0, 0)),
        ([(*A, 0)], [(*A, 1, 0.9)], (1, 1, 1, 0)),  # the wrong class
        ([(*A, 0)], [(*A, 0, 0.9), (*A, 0, 0.8)], (1, 0, 1, 0)),  # detected twice
        ([(*A, 0)], [(*A, 0, 0.2)], (1, 1, 0, 0)),  # score below the threshold
        ([(*A, 0)], [(10, 10, 30, 20, 0, 0.9)], (1, 0, 0, 0)),  # IoU 0.5 is enough
        ([(*A, 0)], [(10, 10, 30, 19.9, 0, 0.9)], (1, 1, 1, 0)),  # IoU 0.495 is not
        ([(*A, 0), (*B, 0)], [(*B, 0, 0.9)], (2, 1, 0, 0)),
        ([], [(*A, 0, 0.5)], (0, 0, 0, 1)),  # score 0.5 and no object: probably unlabelled
        ([], [(*A, 0, 0.49)], (0, 0, 1, 0)),
        ([], [], (0, 0, 0, 0)),
        ([(10, 10, 10, 10, 0)], [(10, 10, 10, 10, 0, 0.9)], (1, 1, 0, 1)),  # boxes without area
        ([(*A, 0)], [(10, 28, 30, 48, 0, 0.9)], (1, 1, 0, 1)),  # IoU 40 / 760 is below 0.1
        ([(*A, 0)], [(10, 26, 30, 46, 0, 0.9)], (1, 1, 1, 0)),  # IoU 80 / 720 is above 0.1
        ([(*A, 0)], [(26.1, 10, 32.1, 15, 0, 0.9)], (1, 1, 0, 1)),  # 65 % of the detection lie in the object
        ([(*A, 0)], [(25.5, 10, 31.5, 15, 0, 0.9)], (1, 1, 1, 0)),  # 75 %: a part of the object
        ([(*A, 0)], [(25.5, 10, 31.5, 15, 1, 0.9)], (1, 1, 0, 1)),  # 75 % in an object of another class: no part
    ],
)
def test_matches_of_an_image(truth: list[Any], detections: list[Any], expected: tuple[int, int, int, int]) -> None:
    verdict = match_detections(make(truth, detections), 0.3)
    assert (verdict.objects, verdict.missed, verdict.false, verdict.unlabelled) == expected
    hits = expected[0] - expected[1]
    assert verdict.found == hits
    total = 2 * hits + expected[1] + expected[2]
    assert verdict.f1 == (2 * hits / total if total else 1)
    shown = int(verdict.shown_D.sum())
    assert int((verdict.correct_D & verdict.shown_D).sum()) + verdict.false + verdict.unlabelled == shown


def test_crowd_regions_and_detections_in_crowd_regions_are_ignored() -> None:
    region = (0, 0, 60, 60, 0)
    verdict = match_detections(make([region], [(*A, 0, 0.9), (5, 5, 25, 25, 0, 0.8), (*A, 1, 0.9)], crowd=[True]), 0.3)
    assert (verdict.objects, verdict.missed, verdict.false, verdict.unlabelled) == (0, 0, 1, 0)
    # IoU 0.25 with the region does not count; less than 70 % of the detection lie in the region.
    verdict = match_detections(make([region], [(40, 0, 80, 60, 1, 0.9)], crowd=[True]), 0.3)
    assert (verdict.objects, verdict.missed, verdict.false, verdict.unlabelled) == (0, 0, 0, 1)


def test_the_best_threshold_by_hand() -> None:
    # From 0.65 to 0.70: both objects detected, no false positive. Lower thresholds show the wrong detection with
    # score 0.6, higher thresholds hide the right one with score 0.7.
    items = [make([(*A, 0)], [(*A, 0, 0.7), (*B, 0, 0.6)]), make([(*B, 1)], [(*B, 1, 0.9), (*A, 1, 0.1)])]
    assert best_threshold(items) == 0.65
    assert [match_detections(item, 0.65).f1 for item in items] == [1, 1]
    assert best_threshold([]) == 0.5
    assert best_threshold([make([(*A, 0)], [(*B, 0, 0.9)])]) == 0.5
    # Detections in a crowd region do not change the threshold.
    crowd = make([(0, 0, 60, 60, 0)], [(*A, 0, 0.9)], crowd=[True])
    assert best_threshold([*items, crowd]) == 0.65


def test_a_threshold_does_not_change_the_other_pairs() -> None:
    item = make([(*A, 0), (12, 10, 32, 30, 0)], [(*A, 0, 0.9), (12, 10, 32, 30, 0, 0.4)])
    assert match_detections(item, 0.3).matched_G.tolist() == [True, True]
    assert match_detections(item, 0.5).matched_G.tolist() == [True, False]


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"scores_D needs the shape \(1,\), found \(2,\)"):
        ImageResults(
            name="x",
            image=Path("x.jpg"),
            boxes_G4=np.zeros((0, 4)),
            labels_G=np.zeros(0, dtype=int),
            detected_D4=np.zeros((1, 4)),
            detected_labels_D=np.zeros(1, dtype=int),
            scores_D=np.zeros(2),
        )


def test_items_from_coco_results() -> None:
    record = SimpleNamespace(
        image_id=5,
        path=Path("folder/p.jpg"),
        boxes_G4=np.array([[1.0, 2, 3, 4]]),
        labels_G=np.array([1]),
        crowd_G=np.array([False]),
    )
    data: Any = SimpleNamespace(records=(record,), category_ids=(3, 9), source=Path("a.json"))
    (item,) = items_from_results(data, [{"image_id": 5, "category_id": 9, "bbox": [1, 2, 10, 20], "score": 0.5}])
    assert item.name == "p.jpg"
    assert item.detected_D4.tolist() == [[1, 2, 11, 22]]
    assert item.detected_labels_D.tolist() == [1]
    (empty,) = items_from_results(data, [])
    assert empty.detected_D4.shape == (0, 4)
    with pytest.raises(ValueError, match=r"of a\.json, found the result"):
        items_from_results(data, [{"image_id": 6, "category_id": 9, "bbox": [1, 2, 10, 20], "score": 0.5}])


def test_overlaps_by_hand():
    """IoU 50 / 150, and half of the first box lies in the second box. A box without area has overlap 0."""
    a_D4 = np.array([[0, 0, 10, 10], [5, 5, 5, 9], [8, 8, 2, 2]])
    iou_DG, inside_DG = overlaps(a_D4, np.array([[5, 0, 15, 10], [0, 0, 10, 20]]))
    np.testing.assert_allclose(iou_DG, [[1 / 3, 0.5], [0, 0], [0, 0]])
    np.testing.assert_allclose(inside_DG, [[0.5, 1], [0, 0], [0, 0]])


def test_an_image_without_objects_or_detections():
    """F1 is 1 without objects and detections, and 0 with one false detection."""
    no_objects = {"boxes_G4": np.zeros((0, 4)), "labels_G": np.zeros(0, int)}
    no_detections = {"detected_D4": np.zeros((0, 4)), "detected_labels_D": np.zeros(0, int), "scores_D": np.zeros(0)}
    image = Image.new("RGB", (8, 8))
    verdict = match_detections(ImageResults(name="a", image=image, **no_objects, **no_detections), 0.5)
    assert (verdict.objects, verdict.missed, verdict.false, verdict.f1) == (0, 0, 0, 1.0)
    one_detection = {"detected_D4": np.ones((1, 4)), "detected_labels_D": np.zeros(1, int), "scores_D": np.array([0.4])}
    verdict = match_detections(ImageResults(name="a", image=image, **no_objects, **one_detection), 0.3)
    assert (verdict.false, verdict.f1) == (1, 0.0)
    assert best_threshold([]) == 0.5
