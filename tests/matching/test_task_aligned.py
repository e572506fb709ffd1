"""Tests of the task-aligned assigner: hand-worked cases."""

import math

import pytest
import torch

from retinanet.boxes import encode
from retinanet.config import MatchConfig
from retinanet.matching import TaskAlignedAssigner, make_assigner
from retinanet.types import HeadOutputs
from tests.matching.test_atss import grid, positives
from tests.matching.test_iou import make_target


def logit(probability):
    return math.log(probability / (1 - probability))


def outputs_of(anchors, predicted, probabilities):
    """Return outputs for one image and two classes, with these probabilities of class 1 and 0.01 of class 0."""
    logits = torch.full((1, len(anchors), 2), logit(0.01))
    logits[0, :, 1] = torch.tensor([logit(p) for p in probabilities])
    return HeadOutputs(
        logits_NAK=logits.requires_grad_(),
        deltas_NA4=encode(predicted, anchors)[None].requires_grad_(),
        anchors_A4=anchors,
        anchors_per_level=(len(anchors),),
    )


ANCHORS = torch.tensor([[0.0, 0, 10, 10]] * 15 + [[20.0, 0, 30, 10]])
"""15 anchors with their centre (5, 5) inside of the box, and one with its centre (25, 5) outside."""
BOX = [[0, 0, 10, 10]]


def test_the_metric_is_the_probability_times_the_iou_to_the_power_of_six():
    """Anchor 0: p = 0.9, u = 0.5, t = 0.0141. Anchor 1: p = 0.02, u = 1, t = 0.02.

    The 13 other anchors: p = 0.5, u = 0.6, t = 0.0233, the largest metrics. With p = 0.4, their metric is 0.0187, and
    anchor 1 has the largest metric.
    """
    predicted = torch.tensor([[0.0, 0, 5, 10], [0, 0, 10, 10]] + [[0.0, 0, 6, 10]] * 13 + [[0.0, 0, 10, 10]])
    target = [make_target(BOX, labels=[1])]
    found = TaskAlignedAssigner().assign(outputs_of(ANCHORS, predicted, [0.9, 0.02] + [0.5] * 13 + [0.99]), target)
    assert positives(found) == dict.fromkeys(range(2, 15), 0)
    found = TaskAlignedAssigner().assign(outputs_of(ANCHORS, predicted, [0.9, 0.02] + [0.4] * 13 + [0.99]), target)
    assert positives(found) == dict.fromkeys(range(1, 14), 0), "of equal metrics, the first 12 anchors"
    assert found.labels_NA[0, 1] == 1
    assert not found.ignored_NA.any()
    assert not found.boxes_NA4.requires_grad


def test_the_class_of_the_object_decides():
    """Class 0 has the probability 0.01 at all anchors: the metric follows the IoU of the predicted box alone."""
    predicted = torch.tensor([[0.0, 0, 5, 10], [0, 0, 10, 10]] + [[0.0, 0, 6, 10]] * 13 + [[0.0, 0, 10, 10]])
    outputs = outputs_of(ANCHORS, predicted, [0.9] * 16)
    found = TaskAlignedAssigner().assign(outputs, [make_target(BOX, labels=[0])])
    assert positives(found) == dict.fromkeys(range(1, 14), 0)


def test_an_anchor_belongs_to_the_object_whose_box_it_predicts():
    """Both boxes contain the centres. The predicted boxes have IoUs of 0.6 and 0.75 with the boxes."""
    predicted = torch.tensor([[0.0, 0, 6, 10]] * 16)
    target = make_target([[0, 0, 10, 10], [0, 0, 8, 10]], labels=[1, 1])
    found = TaskAlignedAssigner().assign(outputs_of(ANCHORS, predicted, [0.5] * 16), [target])
    assert positives(found) == dict.fromkeys(range(13), 1)


def test_without_predictions_the_anchors_are_the_predicted_boxes():
    """One object of 12 x 12 pixels at position 5 of the grid, the only one inside."""
    target = make_target([[2, 2, 14, 14]])
    assert positives(TaskAlignedAssigner()(grid(8, 12), [target], anchors_per_level=(32,))) == {10: 0, 11: 0}


@pytest.mark.parametrize("low_quality", [False, True])
def test_an_object_without_a_centre_inside(low_quality):
    """Anchor 5 at (8, 8) has the highest IoU with the box, 36 / 64 of its 8 x 8 pixels at most."""
    assigner = make_assigner(MatchConfig(assigner="task_aligned", low_quality_matches=low_quality))
    found = assigner(grid(8), [make_target([[9, 9, 15, 15]])], anchors_per_level=(16,))
    assert len(positives(found)) == low_quality


def test_crowd_regions_get_no_positives_and_ignore_negatives():
    target = make_target([[16, 8, 40, 40], [2, 2, 14, 14]], labels=[1, 2], crowd=[True, False])
    found = TaskAlignedAssigner()(grid(8), [target, make_target([])], anchors_per_level=(16,))
    assert positives(found) == {5: 1}
    assert torch.nonzero(found.ignored_NA[0]).flatten().tolist() == [7, 10, 11, 14, 15]
    assert not found.positive_NA[1].any()
