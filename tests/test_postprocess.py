"""Tests of turning network outputs into detections, with hand-worked values."""

import math

import pytest
import torch

from retinanet.config import PostprocessConfig
from retinanet.images import Frame
from retinanet.postprocess import postprocess, score_threshold_logit
from retinanet.types import HeadOutputs

LOW = -20.0
"""Logit whose probability is below every threshold of these tests."""
ANCHORS = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 20.0, 40.0, 40.0]]
"""Three anchors: the first two have an IoU of 0.9, the third overlaps neither."""
FRAME = Frame(width=100, height=200, resized_width=50, resized_height=50)
"""Frame in which original pixels are input pixels times (2, 4)."""


def make_outputs(logits: list[list[float]], deltas: list[list[float]] | None = None) -> HeadOutputs:
    return HeadOutputs(
        logits_NAK=torch.tensor([logits]),
        deltas_NA4=torch.tensor([deltas]) if deltas else torch.zeros(1, 3, 4),
        anchors_A4=torch.tensor(ANCHORS),
        anchors_per_level=(2, 1),
    )


def detect(logits: list[list[float]], deltas: list[list[float]] | None = None, **options: float):
    (detections,) = postprocess(make_outputs(logits, deltas), frames=[FRAME], config=PostprocessConfig(**options))
    return detections


def test_detections_are_in_original_pixels_by_descending_score():
    """sigmoid(log 3) = 0.75 and sigmoid(0) = 0.5. NMS drops the second anchor because of the first."""
    detections = detect([[0.0, LOW], [-1.0, LOW], [LOW, math.log(3)]])
    assert detections.scores_D.tolist() == pytest.approx([0.75, 0.5])
    assert detections.labels_D.tolist() == [1, 0]
    assert detections.boxes_D4.tolist() == [[40, 80, 80, 160], [0, 0, 20, 40]]


def test_boxes_of_other_classes_are_not_suppressed():
    assert detect([[0.0, LOW], [LOW, -1.0], [LOW, LOW]]).labels_D.tolist() == [0, 1]


def test_nms_keeps_boxes_whose_iou_is_below_the_threshold():
    assert len(detect([[0.0, LOW], [-1.0, LOW], [LOW, LOW]], nms_threshold=0.95).scores_D) == 2


def test_score_threshold_and_max_detections_limit_the_detections():
    logits = [[1.0, LOW], [LOW, 0.5], [0.0, LOW]]
    assert detect(logits, score_threshold=0.55).labels_D.tolist() == [0, 1]
    assert detect(logits, max_detections=1).labels_D.tolist() == [0]
    assert detect([[LOW, LOW]] * 3).boxes_D4.shape == (0, 4)


def test_boxes_are_clipped_to_the_image():
    """dx = 0.75 moves a box of width 20 by 15, from x = 20..40 to 35..55. The image is 50 input pixels wide."""
    moved = detect([[LOW, LOW], [LOW, LOW], [0.0, LOW]], [[0.0] * 4, [0.0] * 4, [0.75, 0.0, 0.0, 0.0]])
    assert moved.boxes_D4.tolist() == [[70, 80, 100, 160]]


@pytest.mark.parametrize(("threshold", "logit"), [(0.0, -math.inf), (0.5, 0.0), (0.75, math.log(3)), (1.0, math.inf)])
def test_least_logit_is_the_logit_of_the_score_threshold(threshold: float, logit: float):
    assert score_threshold_logit(PostprocessConfig(score_threshold=threshold)) == pytest.approx(logit)
