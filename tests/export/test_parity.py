"""Differences between detections that the comparison accepts or refuses."""

from __future__ import annotations

import numpy as np
import pytest

from retinanet.config import PostprocessConfig
from retinanet.export.parity import compare_detections
from retinanet.types import ArrayDetections

CONFIG = PostprocessConfig(max_detections=4)


def detections(*rows: tuple[float, float, float, float, float, int]) -> ArrayDetections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return ArrayDetections(boxes_D4=table[:, :4], scores_D=table[:, 4], labels_D=table[:, 5].astype(np.int64))


FIRST = (10, 10, 50, 50, 0.8, 0)
SECOND = (100, 100, 150, 160, 0.6, 1)


def test_equal_detections_agree_in_any_order() -> None:
    difference = compare_detections(detections(FIRST, SECOND), detections(SECOND, FIRST), CONFIG)
    assert difference.agrees
    assert (difference.compared, difference.boxes, difference.scores) == (2, 0, 0)
    assert compare_detections(detections(), detections(), CONFIG).agrees


@pytest.mark.parametrize(
    ("changed", "agrees"),
    [
        ((10.005, 10, 50, 50, 0.8, 0), True),
        ((10.02, 10, 50, 50, 0.8, 0), False),
        ((10, 10, 50, 50, 0.80005, 0), True),
        ((10, 10, 50, 50, 0.8002, 0), False),
        ((10, 10, 50, 50, 0.8, 1), False),  # another class
        ((60, 10, 90, 50, 0.8, 0), False),  # a box at another position
    ],
)
def test_tolerances(changed: tuple[float, float, float, float, float, int], agrees: bool) -> None:
    assert compare_detections(detections(FIRST, SECOND), detections(changed, SECOND), CONFIG).agrees is agrees


def test_a_missing_detection_disagrees_unless_it_lies_at_a_threshold() -> None:
    assert compare_detections(detections(FIRST, SECOND), detections(FIRST), CONFIG).missing == 1
    assert compare_detections(detections(FIRST), detections(FIRST, SECOND), CONFIG).missing == 1
    at_score = (100, 100, 150, 160, 0.05005, 1)
    assert compare_detections(detections(FIRST, at_score), detections(FIRST), CONFIG).at_threshold == 1
    # A 40 x 40 box and its copy shifted by 13.333 pixels have an IoU of 0.5, except for rounding.
    at_iou = (10 + 40 / 3, 10, 50 + 40 / 3, 50, 0.7, 0)
    assert compare_detections(detections(FIRST, at_iou), detections(FIRST), CONFIG).at_threshold == 1
    inside = (10 + 6, 10, 50 + 6, 50, 0.7, 0)
    assert compare_detections(detections(FIRST, inside), detections(FIRST), CONFIG).missing == 1
    full = [(i * 100, 0, i * 100 + 50, 50, 0.5, 0) for i in range(4)]
    other = (900, 0, 950, 50, 0.5, 0)
    assert compare_detections(detections(*full), detections(*full[:3], other), CONFIG).at_threshold == 2, (
        "equal scores compete for the fourth place"
    )


def test_class_agnostic_comparison() -> None:
    """With class-agnostic NMS, boxes of two classes compete: nearly equal scores may be ordered either way."""
    agnostic = PostprocessConfig(agnostic_nms=True)
    tied = detections((10, 10, 50, 50, 0.80001, 0)), detections((10, 10, 50, 50, 0.8, 1))
    assert compare_detections(*tied, CONFIG).missing == 2
    assert compare_detections(*tied, agnostic).at_threshold == 2
    lower = detections((10, 10, 50, 50, 0.6, 1))
    assert compare_detections(tied[0], lower, agnostic).missing == 1, "nothing suppressed the higher score"
    at_iou = (10 + 40 / 3, 10, 50 + 40 / 3, 50, 0.7, 1)
    assert compare_detections(detections(FIRST, at_iou), detections(FIRST), CONFIG).missing == 1
    assert compare_detections(detections(FIRST, at_iou), detections(FIRST), agnostic).at_threshold == 1


def test_boxes_that_are_all_shifted_disagree() -> None:
    """Each box is shifted by a fifth of its width, so that its counterpart could have suppressed it."""
    rows = [(i * 100, 0, i * 100 + 50, 50, 0.9 - 0.05 * i, 0) for i in range(8)]
    shifted = [(x1 + 10, y1, x2 + 10, y2, score, k) for x1, y1, x2, y2, score, k in rows]
    assert not compare_detections(detections(*rows), detections(*shifted), PostprocessConfig()).agrees
