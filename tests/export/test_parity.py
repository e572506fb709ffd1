"""The comparison: what it lets pass and what it does not."""

from __future__ import annotations

import numpy as np
import pytest

from retinanet.config import PostprocessConfig
from retinanet.export.parity import differ
from retinanet.types import ArrayDetections

CONFIG = PostprocessConfig(max_detections=4)


def found(*rows: tuple[float, float, float, float, float, int]) -> ArrayDetections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return ArrayDetections(boxes_D4=table[:, :4], scores_D=table[:, 4], labels_D=table[:, 5].astype(np.int64))


ONE = (10, 10, 50, 50, 0.8, 0)
TWO = (100, 100, 150, 160, 0.6, 1)


def test_the_same_agree_in_any_order() -> None:
    difference = differ(found(ONE, TWO), found(TWO, ONE), CONFIG)
    assert difference.agrees
    assert (difference.compared, difference.boxes, difference.scores) == (2, 0, 0)
    assert differ(found(), found(), CONFIG).agrees


@pytest.mark.parametrize(
    ("changed", "agrees"),
    [
        ((10.005, 10, 50, 50, 0.8, 0), True),
        ((10.02, 10, 50, 50, 0.8, 0), False),
        ((10, 10, 50, 50, 0.80005, 0), True),
        ((10, 10, 50, 50, 0.8002, 0), False),
        ((10, 10, 50, 50, 0.8, 1), False),  # another class
        ((60, 10, 90, 50, 0.8, 0), False),  # elsewhere
    ],
)
def test_tolerances(changed: tuple[float, float, float, float, float, int], agrees: bool) -> None:
    assert differ(found(ONE, TWO), found(changed, TWO), CONFIG).agrees is agrees


def test_a_missing_detection_disagrees_unless_a_threshold_decides() -> None:
    assert differ(found(ONE, TWO), found(ONE), CONFIG).missing == 1
    assert differ(found(ONE), found(ONE, TWO), CONFIG).missing == 1
    at_score = (100, 100, 150, 160, 0.05005, 1)
    assert differ(found(ONE, at_score), found(ONE), CONFIG).doubtful == 1
    # 40 x 40 and the same 40 x 40 shifted by 13.333: IoU 0.5 to the last digit or so
    at_iou = (10 + 40 / 3, 10, 50 + 40 / 3, 50, 0.7, 0)
    assert differ(found(ONE, at_iou), found(ONE), CONFIG).doubtful == 1
    inside = (10 + 6, 10, 50 + 6, 50, 0.7, 0)
    assert differ(found(ONE, inside), found(ONE), CONFIG).missing == 1
    full = [(i * 100, 0, i * 100 + 50, 50, 0.5, 0) for i in range(4)]
    other = (900, 0, 950, 50, 0.5, 0)
    assert differ(found(*full), found(*full[:3], other), CONFIG).doubtful == 2, "which of equals is the fourth"


def test_boxes_that_all_lie_elsewhere_are_no_accident_of_suppression() -> None:
    """Shifted by a fifth with the same scores, each overlaps its counterpart as one that suppressed it would."""
    rows = [(i * 100, 0, i * 100 + 50, 50, 0.9 - 0.05 * i, 0) for i in range(8)]
    shifted = [(x1 + 10, y1, x2 + 10, y2, score, k) for x1, y1, x2, y2, score, k in rows]
    assert not differ(found(*rows), found(*shifted), PostprocessConfig()).agrees
