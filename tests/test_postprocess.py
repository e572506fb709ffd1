"""Tests of turning network outputs into detections, with hand-worked values."""

import math

import pytest
import torch

from retinanet.config import PostprocessConfig
from retinanet.images import Frame
from retinanet.ops.nms import nms, nms_torch
from retinanet.postprocess import postprocess, score_threshold_logit
from retinanet.types import HeadOutputs
from tests.ops import reference
from tests.shared import num_examples

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


def test_class_agnostic_nms_suppresses_boxes_of_other_classes():
    """The boxes 0 0 10 10 (class 0, score 0.5) and 0 0 10 6 (class 1, score 0.75) have the IoU 60 / 100 = 0.6."""
    outputs = HeadOutputs(
        logits_NAK=torch.tensor([[[0.0, LOW], [LOW, math.log(3)]]]),
        deltas_NA4=torch.zeros(1, 2, 4),
        anchors_A4=torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 6.0]]),
        anchors_per_level=(1, 1),
    )
    for options, labels in (
        ({}, [1, 0]),
        ({"agnostic_nms": True}, [1]),
        ({"agnostic_nms": True, "nms_threshold": 0.65}, [1, 0]),
    ):
        (detections,) = postprocess(outputs, frames=[FRAME], config=PostprocessConfig(**options))
        assert detections.labels_D.tolist() == labels, options


def test_class_agnostic_nms_gives_an_anchor_one_class_and_the_first_of_equal_scores():
    assert detect([[0.0, 1.0], [LOW, LOW], [0.5, 0.5]], agnostic_nms=True).labels_D.tolist() == [1, 0]


@pytest.mark.parametrize("form", [nms, nms_torch])
def test_class_agnostic_nms_equals_the_plain_form(form, monkeypatch: pytest.MonkeyPatch):
    """Without suppression, the detections are the candidates. The plain form suppresses these one by one."""
    monkeypatch.setattr("retinanet.postprocess.nms", form)
    rng, A = torch.Generator().manual_seed(3), 25
    dropped = 0
    for case in range(num_examples(60)):
        corner_A2 = torch.rand(A, 2, generator=rng) * 30
        logits_NAK = torch.randn(1, A, (1, 2, 5)[case % 3], generator=rng)
        outputs = HeadOutputs(
            logits_NAK=logits_NAK.round(decimals=1) if case % 2 else logits_NAK,  # rounded: many equal scores
            deltas_NA4=torch.zeros(1, A, 4),
            anchors_A4=torch.cat([corner_A2, corner_A2 + torch.rand(A, 2, generator=rng) * 20], dim=1),
            anchors_per_level=(15, 10),
        )
        config = PostprocessConfig(nms_threshold=1.0, max_detections=10_000)
        (all_,) = postprocess(outputs, frames=[Frame(50, 50, 50, 50)], config=config)
        config = PostprocessConfig(nms_threshold=(0.5, 0.2)[case % 2], max_detections=30, agnostic_nms=True)
        (detections,) = postprocess(outputs, frames=[Frame(50, 50, 50, 50)], config=config)
        one_class = torch.zeros_like(all_.labels_D)
        keep = reference.nms(all_.boxes_D4, all_.scores_D, one_class, threshold=config.nms_threshold, limit=30)
        assert torch.equal(detections.boxes_D4, all_.boxes_D4[keep])
        assert torch.equal(detections.labels_D, all_.labels_D[keep])
        dropped += len(all_.labels_D) - len(keep)
    assert dropped > 100


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
