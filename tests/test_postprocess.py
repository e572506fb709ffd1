"""Dense predictions to detections, with values worked by hand."""

import math

import pytest
import torch

from retinanet.config import PostprocessConfig
from retinanet.images import Frame
from retinanet.postprocess import least_logit, postprocess
from retinanet.types import HeadOutputs

NO = -20.0
"""A logit whose probability is below every threshold here."""
ANCHORS = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 20.0, 40.0, 40.0]]
"""The first two overlap by IoU 0.9; the third lies apart."""
FRAME = Frame(width=100, height=200, resized_width=50, resized_height=50)
"""Input pixels times (2, 4) are original pixels."""


def outputs(logits: list[list[float]], deltas: list[list[float]] | None = None) -> HeadOutputs:
    return HeadOutputs(
        logits_NAK=torch.tensor([logits]),
        deltas_NA4=torch.tensor([deltas]) if deltas else torch.zeros(1, 3, 4),
        anchors_A4=torch.tensor(ANCHORS),
        anchors_per_level=(2, 1),
    )


def found(logits: list[list[float]], deltas: list[list[float]] | None = None, **options: float):
    (detections,) = postprocess(outputs(logits, deltas), frames=[FRAME], config=PostprocessConfig(**options))
    return detections


def test_best_first_in_original_pixels():
    """sigmoid(log 3) = 0.75 and sigmoid(0) = 0.5; the second anchor loses to the first by NMS."""
    seen = found([[0.0, NO], [-1.0, NO], [NO, math.log(3)]])
    assert seen.scores_D.tolist() == pytest.approx([0.75, 0.5])
    assert seen.labels_D.tolist() == [1, 0]
    assert seen.boxes_D4.tolist() == [[40, 80, 80, 160], [0, 0, 20, 40]]


def test_boxes_of_other_classes_are_not_suppressed():
    assert found([[0.0, NO], [NO, -1.0], [NO, NO]]).labels_D.tolist() == [0, 1]


def test_a_suppression_threshold_above_the_overlap_keeps_both():
    assert len(found([[0.0, NO], [-1.0, NO], [NO, NO]], nms_threshold=0.95).scores_D) == 2


def test_the_threshold_and_the_most_detections():
    logits = [[1.0, NO], [NO, 0.5], [0.0, NO]]
    assert found(logits, score_threshold=0.55).labels_D.tolist() == [0, 1]
    assert found(logits, max_detections=1).labels_D.tolist() == [0]
    assert found([[NO, NO]] * 3).boxes_D4.shape == (0, 4)


def test_boxes_are_clipped_to_the_image():
    """dx = 1.5: a box 20 wide moves by 30 to x in 50..70, the whole of it outside; dx = 0.75 leaves half inside."""
    moved = found([[NO, NO], [NO, NO], [0.0, NO]], [[0.0] * 4, [0.0] * 4, [0.75, 0.0, 0.0, 0.0]])
    assert moved.boxes_D4.tolist() == [[70, 80, 100, 160]]


@pytest.mark.parametrize(("threshold", "logit"), [(0.0, -math.inf), (0.5, 0.0), (0.75, math.log(3)), (1.0, math.inf)])
def test_the_logit_of_the_threshold(threshold: float, logit: float):
    assert least_logit(PostprocessConfig(score_threshold=threshold)) == pytest.approx(logit)
